#include "services/reference/reference_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"

namespace rein::services {
namespace {

constexpr absl::Duration kPatience =
    absl::Minutes(30);  // of a repeat that waits for the first call
constexpr char kRequests[] = "rein_reference_requests_total";
constexpr char kRequestsHelp[] = "Score calls";

const std::vector<double>& DurationBounds() {
  static const auto& bounds =
      *new std::vector<double>{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
  return bounds;
}

}  // namespace

ReferenceServiceImpl::ReferenceServiceImpl(std::string device, const ServiceDeps& deps)
    : device_(std::move(device)),
      deps_(deps),
      scored_(deps.metrics.AddCounter(kRequests, kRequestsHelp, {{"result", "ok"}})),
      refused_(deps.metrics.AddCounter(kRequests, kRequestsHelp, {{"result", "error"}})),
      tokens_(deps.metrics.AddCounter("rein_reference_scored_tokens_total",
                                      "Tokens of scored sequences, prompts included")),
      duration_(deps.metrics.AddHistogram(
          "rein_reference_score_duration_seconds", "Time of one Score call", DurationBounds())) {}

absl::StatusOr<v1::LoadModelReply> ReferenceServiceImpl::Open(
    const v1::LoadModelRequest& request) {
  auto open = [&] { return ReferenceSession::Open(request, device_, deps_.clock); };
  REIN_ASSIGN_OR_RETURN(auto session, slot_.Load(request, deps_, open));
  return session->Loaded();
}

grpc::Status ReferenceServiceImpl::Load(grpc::ServerContext*, const v1::LoadModelRequest* request,
                                        v1::LoadModelReply* reply) {
  absl::Status admitted = deps_.fence.Admit(request->fence());
  if (!admitted.ok()) return rpc::ToGrpc(admitted);
  return rpc::Answer(
      deps_.replies.Once<v1::LoadModelReply>(request->fence().request_id(), kPatience,
                                             [&] { return Open(*request); }),
      reply);
}

absl::StatusOr<v1::ScoreTokensReply> ReferenceServiceImpl::ScoreOnce(
    const v1::ScoreTokensRequest& request) {
  REIN_RETURN_IF_ERROR(deps_.fence.Admit(request.fence()));
  REIN_ASSIGN_OR_RETURN(auto loaded, slot_.ForJob(request.fence()));
  return deps_.replies.Once<v1::ScoreTokensReply>(request.fence().request_id(), kPatience,
                                                  [&] { return loaded->Score(request); });
}

grpc::Status ReferenceServiceImpl::Score(grpc::ServerContext*,
                                         const v1::ScoreTokensRequest* request,
                                         v1::ScoreTokensReply* reply) {
  const absl::Time start = deps_.clock.Now();
  absl::StatusOr<v1::ScoreTokensReply> result = ScoreOnce(*request);
  (result.ok() ? scored_ : refused_).Add();
  deps_.GiveUpIfFatal(result.status());
  if (result.ok()) {
    duration_.Observe(absl::ToDoubleSeconds(deps_.clock.Now() - start));
    for (const v1::TokenSequence& sequence : request->sequences()) {
      tokens_.Add(sequence.token_ids_size());
    }
  }
  return rpc::Answer(std::move(result), reply);
}

absl::StatusOr<v1::TraceLayersReply> ReferenceServiceImpl::Trace(const v1::TraceLayersRequest& request) {
  v1::Fence of_job;
  of_job.set_job(request.job());
  REIN_ASSIGN_OR_RETURN(std::shared_ptr<ReferenceSession> session, slot_.ForJob(of_job));
  absl::StatusOr<v1::TraceLayersReply> trace = session->Trace(request);
  deps_.GiveUpIfFatal(trace.status());
  return trace;
}

grpc::Status ReferenceServiceImpl::Status(grpc::ServerContext*, const v1::ActorStatusRequest*,
                                          v1::ActorStatusReply* reply) {
  *reply = Standing();
  return grpc::Status::OK;
}

RewardModelServiceImpl::RewardModelServiceImpl(const ReferenceServiceImpl& reference,
                                               const ServiceDeps& deps)
    : reference_(reference),
      deps_(deps),
      items_(deps.metrics.AddCounter("rein_reference_reward_items_total",
                                     "Completions scored by reward models")),
      duration_(deps.metrics.AddHistogram("rein_reference_reward_duration_seconds",
                                          "Time of one call for scores of a reward model",
                                          DurationBounds())) {}

grpc::Status RewardModelServiceImpl::Score(grpc::ServerContext*,
                                           const v1::ScoreRewardsRequest* request,
                                           v1::ScoreRewardsReply* reply) {
  if (request->rules_size() != 1 || !request->rules(0).has_model()) {
    return rpc::ToGrpc(absl::InvalidArgumentError(absl::StrCat(
        "a reference scores one `model` rule in a call, got ", request->rules_size(), " rules")));
  }
  std::shared_ptr<ReferenceSession> session = reference_.session();
  RewardModel* model =
      session == nullptr ? nullptr : session->FindRewardModel(request->rules(0).model());
  if (model == nullptr) {
    return rpc::ToGrpc(absl::UnavailableError(
        absl::StrCat("the reward model ", request->rules(0).model().path(), " is not loaded here")));
  }
  const absl::Time start = deps_.clock.Now();
  for (const absl::StatusOr<v1::RewardResult>& score :
       model->Score({request->items().begin(), request->items().end()})) {
    v1::RewardResult* result = reply->add_results();
    deps_.GiveUpIfFatal(score.status());
    if (score.ok()) {
      *result = *score;
    } else {
      result->set_error(std::string(score.status().message()));
    }
  }
  items_.Add(request->items_size());
  duration_.Observe(absl::ToDoubleSeconds(deps_.clock.Now() - start));
  return grpc::Status::OK;
}

}  // namespace rein::services
