#include "services/rollout/rollout_service.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "services/rollout/rollout_protos.h"

namespace rein::services {
namespace {

constexpr absl::Duration kPatience =
    absl::Minutes(30);  // of a repeat that waits for the first call

// One Generate call: it writes each sibling as the engine finishes it, and ends when the request
// has ended and all is written. Deletes itself.
class GenerateStream final : public grpc::ServerWriteReactor<v1::GenerateReply> {
 public:
  explicit GenerateStream(const v1::GroupId& group) : group_(group) {}

  // Ends the stream with the error when the engine refuses.
  void Start(rollout::Engine& engine, rollout::GenerateSpec spec) {
    absl::StatusOr<uint64_t> id = engine.Submit(
        std::move(spec), {.on_sibling = [this](rollout::FinishedSibling s) { Add(std::move(s)); },
                          .on_end = [this](absl::Status status) { End(status); }});
    if (!id.ok()) return Fail(id.status());
    std::unique_lock<std::mutex> lock(mutex_);
    engine_ = &engine;
    id_ = *id;
    started_ = true;
    if (gone_ && !end_.has_value()) engine_->AbortRequest(id_);
    Continue(lock);
  }

  void Fail(const absl::Status& status) {
    std::unique_lock<std::mutex> lock(mutex_);
    end_ = status;
    started_ = true;
    Continue(lock);
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock<std::mutex> lock(mutex_);
    writing_ = false;
    queue_.pop_front();
    if (!ok) queue_.clear();
    Continue(lock);
  }

  // The caller is gone: nobody wants the rest.
  void OnCancel() override {
    std::lock_guard<std::mutex> lock(mutex_);
    gone_ = true;
    if (started_ && !end_.has_value()) engine_->AbortRequest(id_);
  }

  void OnDone() override { delete this; }

 private:
  void Add(rollout::FinishedSibling sibling) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (gone_) return;
    queue_.push_back(ToProto(group_, sibling));
    Continue(lock);
  }

  void End(const absl::Status& status) {
    std::unique_lock<std::mutex> lock(mutex_);
    end_ = status;
    Continue(lock);
  }

  // Writes what waits, or finishes when nothing will come any more; then the object may be gone.
  void Continue(std::unique_lock<std::mutex>& lock) {
    if (!started_ || writing_) return;
    if (!queue_.empty()) {
      writing_ = true;
      const v1::GenerateReply* next = &queue_.front();
      lock.unlock();
      StartWrite(next);
    } else if (end_.has_value()) {
      grpc::Status status = rpc::ToGrpc(*end_);
      lock.unlock();
      Finish(status);
    }
  }

  const v1::GroupId group_;
  std::mutex mutex_;
  rollout::Engine* engine_ = nullptr;  // not used once end_ is set
  uint64_t id_ = 0;
  bool started_ = false;                 // the engine took the request, or refused it
  std::deque<v1::GenerateReply> queue_;  // the front is being written
  bool writing_ = false;
  bool gone_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<RolloutSession>> RolloutServiceImpl::Admit(const v1::Fence& fence) {
  REIN_RETURN_IF_ERROR(deps_.fence.Admit(fence));
  return slot_.ForJob(fence);
}

absl::StatusOr<v1::LoadModelReply> RolloutServiceImpl::Open(const v1::LoadModelRequest& request) {
  auto on_failure = [this](const absl::Status& status) {
    deps_.log.Error("generation failed", {{"status", status.ToString()}});
    deps_.GiveUpIfFatal(status);
  };
  auto open = [&]() -> absl::StatusOr<std::unique_ptr<RolloutSession>> {
    REIN_ASSIGN_OR_RETURN(auto session, RolloutSession::Open(request, device_, deps_.clock,
                                                             deps_.metrics, on_failure));
    if (!session->row_stability().ok()) {
      deps_.log.Warn(std::string(session->row_stability().message()));
    }
    return session;
  };
  REIN_ASSIGN_OR_RETURN(auto session, slot_.Load(request, deps_, open));
  return session->Loaded();
}

grpc::Status RolloutServiceImpl::Load(grpc::ServerContext*, const v1::LoadModelRequest* request,
                                      v1::LoadModelReply* reply) {
  absl::Status admitted = deps_.fence.Admit(request->fence());
  if (!admitted.ok()) return rpc::ToGrpc(admitted);
  return rpc::Answer(
      deps_.replies.Once<v1::LoadModelReply>(request->fence().request_id(), kPatience,
                                             [&] { return Open(*request); }),
      reply);
}

grpc::ServerWriteReactor<v1::GenerateReply>* RolloutServiceImpl::Generate(
    grpc::CallbackServerContext*, const v1::GenerateRequest* request) {
  auto* stream = new GenerateStream(request->group());
  absl::StatusOr<std::shared_ptr<RolloutSession>> loaded = Admit(request->fence());
  if (!loaded.ok()) {
    stream->Fail(loaded.status());
    return stream;
  }
  absl::StatusOr<rollout::GenerateSpec> spec = FromProto(*request);
  if (!spec.ok()) {
    stream->Fail(spec.status());
    return stream;
  }
  stream->Start((*loaded)->engine(), *std::move(spec));
  return stream;
}

template <typename Request, typename Reply>
grpc::Status RolloutServiceImpl::Mutate(const Request& request, Reply* reply,
                                        const std::function<Reply(rollout::Engine&)>& work) {
  absl::StatusOr<std::shared_ptr<RolloutSession>> loaded = Admit(request.fence());
  if (!loaded.ok()) return rpc::ToGrpc(loaded.status());
  return rpc::Answer(deps_.replies.Once<Reply>(
                         request.fence().request_id(), kPatience,
                         [&]() -> absl::StatusOr<Reply> { return work((*loaded)->engine()); }),
                     reply);
}

grpc::Status RolloutServiceImpl::Abort(grpc::ServerContext*,
                                       const v1::AbortGenerateRequest* request,
                                       v1::AbortGenerateReply* reply) {
  return Mutate<v1::AbortGenerateRequest, v1::AbortGenerateReply>(
      *request, reply, [&](rollout::Engine& engine) {
        std::vector<rollout::GroupId> groups;
        for (const v1::GroupId& group : request->groups()) groups.push_back(FromProto(group));
        v1::AbortGenerateReply answer;
        answer.set_aborted(engine.Abort(groups));
        return answer;
      });
}

grpc::Status RolloutServiceImpl::Pause(grpc::ServerContext*, const v1::PauseRequest* request,
                                       v1::PauseReply* reply) {
  return Mutate<v1::PauseRequest, v1::PauseReply>(*request, reply, [](rollout::Engine& engine) {
    engine.Pause();
    return v1::PauseReply();
  });
}

grpc::Status RolloutServiceImpl::Resume(grpc::ServerContext*, const v1::ResumeRequest* request,
                                        v1::ResumeReply* reply) {
  return Mutate<v1::ResumeRequest, v1::ResumeReply>(*request, reply, [](rollout::Engine& engine) {
    engine.Resume();
    return v1::ResumeReply();
  });
}

absl::StatusOr<v1::TraceLayersReply> RolloutServiceImpl::Trace(const v1::TraceLayersRequest& request) {
  v1::Fence of_job;
  of_job.set_job(request.job());
  REIN_ASSIGN_OR_RETURN(std::shared_ptr<RolloutSession> session, slot_.ForJob(of_job));
  absl::StatusOr<v1::TraceLayersReply> trace = session->Trace(request);
  deps_.GiveUpIfFatal(trace.status());
  return trace;
}

grpc::Status RolloutServiceImpl::Status(grpc::ServerContext*, const v1::ActorStatusRequest*,
                                        v1::ActorStatusReply* reply) {
  *reply = Standing();
  return grpc::Status::OK;
}

void RolloutServiceImpl::DropRequests() {
  std::shared_ptr<RolloutSession> loaded = slot_.get();
  if (loaded != nullptr) loaded->Close();
}

}  // namespace rein::services
