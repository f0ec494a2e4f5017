#include "services/trainer/trainer_service.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/grpc_status.h"
#include "common/status/fatal.h"
#include "common/status/status_macros.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::services {
namespace {

constexpr absl::Duration kPatience = absl::Hours(1);  // of a repeat that waits for the first call

const std::vector<double>& DurationBounds() {
  static const auto& bounds = *new std::vector<double>{
      0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600};
  return bounds;
}

}  // namespace

TrainerServiceImpl::TrainerServiceImpl(std::string device, TrainerRanks ranks,
                                       const ServiceDeps& deps)
    : device_(std::move(device)), ranks_(std::move(ranks)), peers_(ranks_.peers), deps_(deps) {}

template <typename Request, typename Reply>
absl::StatusOr<Reply> TrainerServiceImpl::OnAllRanks(const Request& request,
                                                     absl::StatusOr<Reply> (TrainerSession::*work)(
                                                         const Request&)) {
  PeerCalls peers = peers_.Start(request);
  absl::StatusOr<Reply> result = (session_.get()->*work)(request);
  if (IsFatal(result.status())) peers.Cancel();
  const absl::Status others = peers.Wait();
  if (others.ok() || IsFatal(result.status())) return result;
  // This rank knows only that another gave up: the other knows why.
  if (absl::IsAborted(result.status()) && !absl::IsAborted(others)) return others;
  if (!result.ok()) return result;
  return Fatal(absl::UnavailableError(
      absl::StrCat("the ranks are not alike any more: ", others.message())));
}

template <typename Request, typename Reply>
grpc::Status TrainerServiceImpl::Mutate(const Request& request, Reply* reply, const char* phase,
                                        absl::StatusOr<Reply> (TrainerSession::*work)(
                                            const Request&)) {
  absl::Status admitted = deps_.fence.Admit(request.fence());
  if (!admitted.ok()) return rpc::ToGrpc(admitted);
  auto call = [&]() -> absl::StatusOr<Reply> {
    std::lock_guard<std::mutex> lock(session_mutex_);
    if (session_ == nullptr) {
      return absl::FailedPreconditionError("no job is loaded: call Load first");
    }
    if (session_->job() != request.fence().job()) {
      return absl::FailedPreconditionError(absl::StrCat("job '", session_->job(),
                                                        "' is loaded, the call is for '",
                                                        request.fence().job(), "'"));
    }
    const auto start = std::chrono::steady_clock::now();
    absl::StatusOr<Reply> result = OnAllRanks(request, work);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    deps_.metrics
        .AddHistogram("rein_trainer_update_duration_seconds", "Time of each phase",
                      DurationBounds(), {{"phase", phase}, {"rl_job", session_->job()}})
        .Observe(seconds.count());
    if (!result.ok()) {
      NoteFailure(phase, result.status());
      return result;
    }
    NoteStanding(request.fence().request_id());
    if constexpr (std::is_same_v<Reply, v1::UpdateReply>) Observe(*result);
    return result;
  };
  return rpc::Answer(deps_.replies.Once<Reply>(request.fence().request_id(), kPatience, call),
                     reply);
}

void TrainerServiceImpl::NoteFailure(const char* phase, const absl::Status& status) {
  deps_.log.Error(absl::StrCat(phase, " failed"), {{"status", status.ToString()}});
  if (absl::IsAborted(status)) {
    deps_.metrics
        .AddCounter("rein_trainer_skipped_updates_total", "Updates that were not applied",
                    {{"reason", "not_finite"}, {"rl_job", session_->job()}})
        .Add();
  }
  if (!IsFatal(status)) return;
  session_.reset();  // closes this rank's connections: the others need not wait for their timeouts
  deps_.give_up(status);
}

void TrainerServiceImpl::NoteStanding(const std::string& request_id) {
  std::lock_guard<std::mutex> lock(standing_mutex_);
  standing_.set_job(session_->job());
  *standing_.mutable_version() = session_->version();
  standing_.set_digest(session_->digest());
  standing_.set_last_request_id(request_id);
}

void TrainerServiceImpl::Observe(const v1::UpdateReply& reply) {
  const telemetry::Labels job = {{"rl_job", session_->job()}};
  for (const v1::Metric& metric : reply.metrics()) {
    if (metric.name() == "tokens" || metric.name() == "computed_tokens" || metric.name() == "trained_tokens") continue;
    if (metric.name() == "mismatch_tokens") {
      deps_.metrics
          .AddCounter("rein_trainer_mismatched_tokens_total",
                      "Tokens of which generator and trainer, under the same weights, give other log-probs", job)
          .Add(metric.value());
      continue;
    }
    deps_.metrics.AddGauge(absl::StrCat("rein_trainer_", metric.name()), "Of the last Update", job)
        .Set(metric.value());
  }
  if (const int64_t peak = tensor::PeakDeviceBytes(); peak > 0) {
    deps_.metrics.AddGauge("rein_trainer_memory_peak_bytes", "Of the device, reserved at most since the process began", job)
        .Set(static_cast<double>(peak));
  }
  const auto number = static_cast<double>(reply.version().number());
  deps_.metrics.AddGauge("rein_trainer_update", "Updates consumed", job).Set(number);
  deps_.metrics.AddGauge("rein_trainer_policy_version", "Number of the current weights", job).Set(number);
  deps_.metrics
      .AddGauge("rein_trainer_last_update_timestamp_seconds", "When the last Update ended", job)
      .Set(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  for (const v1::Metric& metric : reply.metrics()) {
    if (metric.name() != "tokens") continue;
    deps_.metrics.AddCounter("rein_trainer_tokens_total", "Tokens of the sequences trained on", job)
        .Add(metric.value());
  }
}

absl::Status TrainerServiceImpl::CheckRank(const v1::LoadTrainerRequest& request) const {
  if (ranks_.rank == 0 || (request.has_rank() && request.rank().rank() == ranks_.rank)) return absl::OkStatus();
  const std::string called = request.has_rank() ? absl::StrCat("rank ", request.rank().rank(), " of ", request.rank().size())
                                                : std::string("rank 0");
  return absl::InvalidArgumentError(absl::StrCat("this trainer was started as rank ", ranks_.rank, " and is called as ", called,
                                                    ": rank 0's --peers must name ranks 1, 2, ... in this order"));
}

absl::StatusOr<std::unique_ptr<TrainerSession>> TrainerServiceImpl::Open(
    const v1::LoadTrainerRequest& request) {
  REIN_RETURN_IF_ERROR(CheckRank(request));
  parallel::GroupPlace place{.timeout = ranks_.timeout};
  if (request.has_rank()) {
    deps_.fence.Follow(request.fence());
    place.rank = static_cast<int>(request.rank().rank());
    place.size = static_cast<int>(request.rank().size());
    place.address = request.rank().rendezvous();
    REIN_ASSIGN_OR_RETURN(auto group, parallel::JoinGroup(place, device_));
    return TrainerSession::Open(request, device_, std::move(group));
  }
  if (peers_.size() == 1) return TrainerSession::Open(request, device_);
  place.size = peers_.size();
  REIN_ASSIGN_OR_RETURN(auto listener, parallel::RankListener::Create(ranks_.host));
  PeerCalls peers = peers_.Start(request, listener->address());
  place.listener = listener.get();
  place.others = [&peers] { return peers.FirstError(); };
  auto group = parallel::JoinGroup(place, device_);
  if (!group.ok()) {
    peers.Cancel();
    return group.status();
  }
  auto session = TrainerSession::Open(request, device_, *std::move(group));
  REIN_RETURN_IF_ERROR(session.status());
  REIN_RETURN_IF_ERROR(peers.Wait());
  return session;
}

absl::StatusOr<v1::LoadTrainerReply> TrainerServiceImpl::LoadSession(
    const v1::LoadTrainerRequest& request) {
  std::lock_guard<std::mutex> lock(session_mutex_);
  if (session_ == nullptr || !session_->IsSameLoad(request)) {
    session_.reset();  // frees its memory first
    absl::StatusOr<std::unique_ptr<TrainerSession>> session = Open(request);
    deps_.GiveUpIfFatal(session.status());
    REIN_RETURN_IF_ERROR(session.status());
    session_ = *std::move(session);
    deps_.log.SetJob(session_->job());
    const v1::LoadTrainerReply loaded = session_->Loaded();
    for (const v1::MemoryPart& part : loaded.memory()) {
      deps_.metrics
          .AddGauge("rein_trainer_memory_planned_bytes", "Of the device, planned when the job was loaded",
                    {{"part", part.name()}, {"rl_job", session_->job()}})
          .Set(static_cast<double>(part.bytes()));
    }
    deps_.log.Info("loaded", {{"parameters", absl::StrCat(loaded.parameters())},
                              {"version", absl::StrCat(session_->version().lineage(), ".",
                                                       session_->version().number())}});
  }
  NoteStanding(request.fence().request_id());
  return session_->Loaded();
}

grpc::Status TrainerServiceImpl::Load(grpc::ServerContext*, const v1::LoadTrainerRequest* request,
                                      v1::LoadTrainerReply* reply) {
  absl::Status admitted = deps_.fence.Admit(request->fence());
  if (!admitted.ok()) return rpc::ToGrpc(admitted);
  return rpc::Answer(deps_.replies.Once<v1::LoadTrainerReply>(request->fence().request_id(), kPatience,
                                                         [&] { return LoadSession(*request); }),
                     reply);
}

grpc::Status TrainerServiceImpl::Update(grpc::ServerContext*, const v1::UpdateRequest* request,
                                        v1::UpdateReply* reply) {
  return Mutate(*request, reply, "total", &TrainerSession::Update);
}

grpc::Status TrainerServiceImpl::ForwardBackward(grpc::ServerContext*,
                                                 const v1::ForwardBackwardRequest* request,
                                                 v1::ForwardBackwardReply* reply) {
  return Mutate(*request, reply, "forward_backward", &TrainerSession::ForwardBackward);
}

grpc::Status TrainerServiceImpl::OptimStep(grpc::ServerContext*,
                                           const v1::OptimStepRequest* request,
                                           v1::OptimStepReply* reply) {
  return Mutate(*request, reply, "optimizer", &TrainerSession::OptimStep);
}

grpc::Status TrainerServiceImpl::Publish(grpc::ServerContext*, const v1::PublishRequest* request,
                                         v1::PublishReply* reply) {
  return Mutate(*request, reply, "weight_sync", &TrainerSession::Publish);
}

grpc::Status TrainerServiceImpl::Save(grpc::ServerContext*, const v1::SaveRequest* request,
                                      v1::SaveReply* reply) {
  return Mutate(*request, reply, "checkpoint", &TrainerSession::Save);
}

grpc::Status TrainerServiceImpl::Score(grpc::ServerContext*,
                                       const v1::ScorePolicyRequest* request,
                                       v1::ScorePolicyReply* reply) {
  std::lock_guard<std::mutex> lock(session_mutex_);
  if (session_ == nullptr) {
    return rpc::ToGrpc(absl::FailedPreconditionError("no job is loaded: call Load first"));
  }
  absl::StatusOr<v1::ScorePolicyReply> scores = session_->Score(*request);
  deps_.GiveUpIfFatal(scores.status());
  return rpc::Answer(std::move(scores), reply);
}

absl::StatusOr<v1::TraceLayersReply> TrainerServiceImpl::Trace(const v1::TraceLayersRequest& request) {
  std::lock_guard<std::mutex> lock(session_mutex_);
  if (session_ == nullptr || session_->job() != request.job()) {
    return absl::FailedPreconditionError(absl::StrCat("job '", request.job(), "' is not loaded"));
  }
  absl::StatusOr<v1::TraceLayersReply> trace = session_->Trace(request);
  deps_.GiveUpIfFatal(trace.status());
  return trace;
}

grpc::Status TrainerServiceImpl::Status(grpc::ServerContext*, const v1::TrainerStatusRequest*,
                                        v1::TrainerStatusReply* reply) {
  *reply = Standing();
  return grpc::Status::OK;
}

v1::TrainerStatusReply TrainerServiceImpl::Standing() const {
  std::lock_guard<std::mutex> lock(standing_mutex_);
  return standing_;
}

}  // namespace rein::services
