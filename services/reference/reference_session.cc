#include "services/reference/reference_session.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/policy/opened_model.h"
#include "common/policy/sequence_scorer.h"
#include "common/status/status_macros.h"
#include "services/role/debug_service.h"
#include "services/role/trained_choice.h"

namespace rein::services {
namespace {

std::string LoadKey(const v1::LoadModelRequest& request) {
  v1::LoadModelRequest models;  // without what a reference does not use
  if (request.has_model()) *models.mutable_model() = request.model();
  *models.mutable_reward_models() = request.reward_models();
  models.set_weights_path(request.weights_path());
  return absl::StrCat(request.fence().job(), "\n", models.SerializeAsString());
}

// Counts the calls that are inside.
class Visit {
 public:
  explicit Visit(std::atomic<uint32_t>& count) : count_(count) { ++count_; }
  ~Visit() { --count_; }

 private:
  std::atomic<uint32_t>& count_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ReferenceSession>> ReferenceSession::Open(
    const v1::LoadModelRequest& request, const std::string& device, const sync::Clock& clock) {
  auto session = std::unique_ptr<ReferenceSession>(new ReferenceSession(request));
  for (const v1::ModelReward& reward_model : request.reward_models()) {
    auto& place = session->reward_models_[reward_model.SerializeAsString()];
    REIN_ASSIGN_OR_RETURN(place, RewardModel::Open(reward_model, device));
  }
  if (!request.has_model()) return session;
  const v1::ModelConfig& config = request.model();
  KeepBitsAs(config);
  REIN_ASSIGN_OR_RETURN(
      policy::OpenedModel model,
      policy::OpenModel({.path = ModelPathOf(config),
                         .trained = TrainedChoiceOf(config),
                         .dtype = config.dtype(),
                         .device = device,
                         .keep_idle = false,
                         .load_weights = !request.weights_path().empty()}));
  session->Hold(std::move(model.slots), clock);
  if (!request.weights_path().empty()) session->version_ = weights::Version{0, 0};
  return session;
}

ReferenceSession::ReferenceSession(const v1::LoadModelRequest& request)
    : job_(request.fence().job()), load_key_(LoadKey(request)) {}

void ReferenceSession::Hold(std::unique_ptr<policy::PolicySlots> slots, const sync::Clock& clock) {
  slots_ = std::move(slots);
  receiver_ = std::make_unique<weights::WeightReceiver>(*slots_, clock);
  slots_->SetSwapHook([this](const weights::Version& version, weights::InFlight,
                             const std::function<absl::Status()>& swap) {
    std::lock_guard<std::mutex> no_forward(forward_mutex_);
    REIN_RETURN_IF_ERROR(swap());
    std::lock_guard<std::mutex> lock(mutex_);
    version_ = version;
    return absl::OkStatus();
  });
}

bool ReferenceSession::IsSameLoad(const v1::LoadModelRequest& request) const {
  return load_key_ == LoadKey(request);
}

v1::LoadModelReply ReferenceSession::Loaded() const {
  v1::LoadModelReply reply;
  uint64_t parameters =
      slots_ == nullptr ? 0 : static_cast<uint64_t>(slots_->registry().parameter_count());
  for (const auto& [config, model] : reward_models_) parameters += model->parameters();
  reply.set_parameters(parameters);
  return reply;
}

absl::StatusOr<v1::ScoreTokensReply> ReferenceSession::Score(
    const v1::ScoreTokensRequest& request) {
  Visit visit(calls_);
  std::vector<policy::ScoredSequence> sequences;
  uint64_t tokens = 0;
  for (const v1::TokenSequence& sequence : request.sequences()) {
    sequences.push_back(
        {{sequence.token_ids().begin(), sequence.token_ids().end()}, sequence.prefix()});
    tokens += static_cast<uint64_t>(sequence.token_ids_size());
  }
  const double temperature = request.has_temperature() ? request.temperature() : 1.0;
  std::lock_guard<std::mutex> no_swap(forward_mutex_);
  v1::ScoreTokensReply reply;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (slots_ == nullptr) return absl::FailedPreconditionError("only reward models are loaded");
    if (!version_.has_value()) return absl::FailedPreconditionError("no weights have come yet");
    reply.mutable_version()->set_lineage(version_->lineage);
    reply.mutable_version()->set_number(version_->number);
  }
  REIN_ASSIGN_OR_RETURN(auto logprobs,
                        policy::ScoreSequences(slots_->decoder(), sequences, temperature));
  for (const std::vector<float>& sequence : logprobs) {
    reply.add_sequences()->mutable_logprobs()->Add(sequence.begin(), sequence.end());
  }
  if (request.top_k() > 0) {
    REIN_ASSIGN_OR_RETURN(auto top, policy::ScoreTopTokens(slots_->decoder(), sequences, temperature,
                                                           request.top_k()));
    for (size_t i = 0; i < top.size(); ++i) {
      v1::TokenLogprobs* sequence = reply.mutable_sequences(static_cast<int>(i));
      sequence->mutable_top_ids()->Add(top[i].ids.begin(), top[i].ids.end());
      sequence->mutable_top_logprobs()->Add(top[i].logprobs.begin(), top[i].logprobs.end());
    }
  }
  tokens_ += tokens;
  return reply;
}

absl::StatusOr<v1::TraceLayersReply> ReferenceSession::Trace(const v1::TraceLayersRequest& request) {
  std::lock_guard<std::mutex> no_swap(forward_mutex_);
  const v1::ActorStatusReply standing = Status();
  if (slots_ == nullptr) return absl::FailedPreconditionError("only reward models are loaded");
  if (!standing.has_version()) return absl::FailedPreconditionError("no weights have come yet");
  REIN_ASSIGN_OR_RETURN(policy::LayerTrace trace,
                        policy::TraceAtOnce(slots_->decoder(), SequenceOf(request), request.temperature()));
  v1::TraceLayersReply reply = ToProto(trace);
  *reply.mutable_version() = standing.version();
  reply.set_digest(standing.digest());
  return reply;
}

RewardModel* ReferenceSession::FindRewardModel(const v1::ModelReward& config) const {
  auto found = reward_models_.find(config.SerializeAsString());
  return found == reward_models_.end() ? nullptr : found->second.get();
}

v1::ActorStatusReply ReferenceSession::Status() const {
  v1::ActorStatusReply status;
  status.set_job(job_);
  status.set_requests_running(calls_);
  status.set_tokens_total(tokens_);
  if (slots_ != nullptr) status.set_digest(slots_->digest());
  std::lock_guard<std::mutex> lock(mutex_);
  if (version_.has_value()) {
    status.mutable_version()->set_lineage(version_->lineage);
    status.mutable_version()->set_number(version_->number);
  }
  return status;
}

}  // namespace rein::services
