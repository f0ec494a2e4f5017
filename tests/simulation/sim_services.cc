#include "tests/simulation/sim_services.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace rein::simulation {
namespace {

uint64_t HashOf(const v1::TrainingSequence& sequence) {
  uint64_t hash = 1;
  for (uint32_t id : sequence.token_ids()) hash = Mix(hash, id);
  for (char c : sequence.loss_mask()) hash = Mix(hash, static_cast<uint64_t>(c));
  for (float logprob : sequence.behaviour_logprobs()) {
    hash = Mix(hash, static_cast<uint64_t>(static_cast<int64_t>(logprob * -1000)));
  }
  for (float logprob : sequence.reference_logprobs()) {
    hash = Mix(hash, static_cast<uint64_t>(static_cast<int64_t>(logprob * -1000)));
  }
  hash = Mix(hash, sequence.group());
  return Mix(hash, static_cast<uint64_t>(static_cast<int64_t>(sequence.reward() * 1000)));
}

bool Newer(const v1::PolicyVersion& a, const v1::PolicyVersion& b) {
  return std::make_pair(a.lineage(), a.number()) > std::make_pair(b.lineage(), b.number());
}

}  // namespace

uint64_t Mix(uint64_t hash, uint64_t value) {
  uint64_t x = hash * 0x9E3779B97F4A7C15 + value + 0x7F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  return x ^ (x >> 27);
}

absl::StatusOr<v1::LoadTrainerReply> SimTrainerService::Load(
    const v1::LoadTrainerRequest& request) {
  v1::LoadTrainerReply reply;
  if (loaded_id_ != request.fence().request_id()) {
    weights_ = {.job = request.job().name(), .loaded = true, .has_version = true};
    weights_.version.set_lineage(request.lineage());
    weights_.digest = Mix(1, request.job().seed());
    if (!request.checkpoint_path().empty()) {
      auto found = truth_.checkpoints.find(request.checkpoint_path());
      if (found == truth_.checkpoints.end()) {
        return absl::NotFoundError(absl::StrCat("no checkpoint ", request.checkpoint_path()));
      }
      weights_.version.set_number(found->second.number);
      weights_.digest = found->second.digest;
    }
    loaded_id_ = request.fence().request_id();
    last_reply_.reset();
  }
  *reply.mutable_version() = weights_.version;
  reply.set_digest(weights_.digest);
  return reply;
}

absl::StatusOr<v1::UpdateReply> SimTrainerService::Update(const v1::UpdateRequest& request) {
  if (!weights_.loaded) return absl::FailedPreconditionError("nothing is loaded");
  if (last_reply_.has_value() && last_reply_->version().number() == request.update()) {
    return *last_reply_;
  }
  if (request.update() != weights_.version.number() + 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("update ", request.update(), " after ", weights_.version.number()));
  }
  uint64_t batch = 1;
  for (const v1::TrainingSequence& sequence : request.sequences()) {
    batch = Mix(batch, HashOf(sequence));
  }
  if (request.sequences().empty()) truth_.violations.push_back("an empty batch");
  if (++truth_.trained[{weights_.version.lineage(), request.update()}] > 1) {
    truth_.violations.push_back(absl::StrCat("update ", request.update(), " trained twice"));
  }
  auto [first, added] = truth_.batches.emplace(request.update(), batch);
  if (!added && first->second != batch) {
    truth_.violations.push_back(absl::StrCat("update ", request.update(), " got another batch"));
  }
  ++truth_.updates_made;
  weights_.version.set_number(request.update());
  weights_.digest = Mix(weights_.digest, batch);
  v1::UpdateReply reply;
  *reply.mutable_version() = weights_.version;
  reply.set_digest(weights_.digest);
  for (int i = 0; i < request.sequences_size(); ++i) {
    reply.add_advantages(i);
    v1::PolicyFigures& figures = *reply.add_policy_figures();
    for (float logprob : request.sequences(i).behaviour_logprobs()) {
      figures.add_logprobs(logprob - 0.5f);
      figures.add_entropies(1);
    }
  }
  last_reply_ = reply;
  return reply;
}

absl::StatusOr<v1::SaveReply> SimTrainerService::Save(const v1::SaveRequest& request) {
  if (!weights_.loaded) return absl::FailedPreconditionError("nothing is loaded");
  auto [done, first] = saved_.emplace(request.fence().request_id(), v1::SaveReply());
  if (!first) return done->second;
  auto [place, added] = truth_.checkpoints.emplace(
      request.path(),
      SimTruth::Checkpoint{.number = weights_.version.number(), .digest = weights_.digest});
  if (!added) {
    saved_.erase(done);
    return absl::AlreadyExistsError(absl::StrCat(request.path(), " exists"));
  }
  *done->second.mutable_version() = weights_.version;
  done->second.set_bytes(1);
  return done->second;
}

v1::ScorePolicyReply SimTrainerService::Score(const v1::ScorePolicyRequest& request) const {
  v1::ScorePolicyReply reply;
  const auto number = static_cast<float>(std::min<uint64_t>(weights_.version.number(), 2));
  if (request.measure()) {
    for (const char* name : {"loss", "accuracy", "score_margin"}) {
      v1::Metric* metric = reply.add_metrics();
      metric->set_name(name);
      metric->set_value(1 / (1 + number));
    }
    reply.set_weight(request.sequences_size());
    return reply;
  }
  for (const v1::TrainingSequence& sequence : request.sequences()) {
    v1::SequenceLogprobs* logprobs = reply.add_sequences();
    for (char target : sequence.loss_mask()) {
      if (target != 0) logprobs->add_logprobs(-1 / (1 + number));
    }
  }
  return reply;
}

v1::TrainerStatusReply SimTrainerService::Status() const {
  v1::TrainerStatusReply reply;
  reply.set_job(weights_.job);
  *reply.mutable_version() = weights_.version;
  reply.set_digest(weights_.digest);
  return reply;
}

absl::StatusOr<v1::LoadModelReply> SimModelService::Load(const v1::LoadModelRequest& request) {
  if (!weights_.loaded || weights_.job != request.fence().job()) {
    weights_ = {.job = request.fence().job(), .loaded = true};
  }
  if (!request.weights_path().empty()) weights_.has_version = true;  // from a folder
  return v1::LoadModelReply();
}

std::string SimModelService::Take(const SimWeights& weights) {
  if (!weights_.loaded) return "no model is loaded";
  bool same = weights_.has_version && weights_.version.lineage() == weights.version.lineage() &&
              weights_.version.number() == weights.version.number();
  if (!same && weights_.has_version && !Newer(weights.version, weights_.version)) {
    return "the version is not newer than the one in use";
  }
  weights_.has_version = true;
  weights_.version = weights.version;
  weights_.digest = weights.digest;
  return "";
}

v1::ActorStatusReply SimModelService::Status() const {
  v1::ActorStatusReply reply;
  reply.set_job(weights_.job);
  if (weights_.has_version) *reply.mutable_version() = weights_.version;
  reply.set_digest(weights_.digest);
  return reply;
}

v1::Rollout SimModelService::Generate(const v1::GenerateRequest& request, uint32_t sibling) const {
  uint64_t hash = weights_.digest;
  for (uint64_t value : {request.group().data_epoch(), request.group().prompt(),
                         request.group().attempt(), uint64_t{sibling}}) {
    hash = Mix(hash, value);
  }
  if (request.turn() > 0) {  // depends on all that came before
    hash = Mix(hash, request.turn());
    for (uint32_t id : request.prompt_token_ids()) hash = Mix(hash, id);
  }
  v1::Rollout rollout;
  *rollout.mutable_group() = request.group();
  rollout.set_sibling(sibling);
  v1::Completion& completion = *rollout.mutable_completion();
  for (uint64_t i = 0; i < 1 + hash % 3; ++i) {
    hash = Mix(hash, i);
    completion.add_token_ids(hash % 1000);
    completion.add_behaviour_logprobs(-static_cast<float>(hash % 100) / 100);
  }
  v1::VersionSpan* span = completion.add_versions();
  *span->mutable_version() = weights_.version;
  span->set_tokens(static_cast<uint32_t>(completion.token_ids_size()));
  completion.set_text(absl::StrCat(hash % 10));
  completion.set_finish_reason(v1::FINISH_REASON_STOP);
  return rollout;
}

absl::StatusOr<v1::ScoreTokensReply> SimModelService::Score(
    const v1::ScoreTokensRequest& request) const {
  if (!weights_.has_version) return absl::FailedPreconditionError("no weights have come");
  v1::ScoreTokensReply reply;
  for (const v1::TokenSequence& sequence : request.sequences()) {
    v1::TokenLogprobs* logprobs = reply.add_sequences();
    for (int i = static_cast<int>(sequence.prefix()); i < sequence.token_ids_size(); ++i) {
      uint64_t hash = Mix(weights_.digest, sequence.token_ids(i));
      logprobs->add_logprobs(-static_cast<float>(hash % 100) / 100);
      for (uint32_t k = 0; k < std::min(request.top_k(), 32u); ++k) {  // a vocabulary of 32, the token's neighbours first
        logprobs->add_top_ids((sequence.token_ids(i) + k) % 32);
        logprobs->add_top_logprobs(-1 - static_cast<float>(k));
      }
    }
  }
  return reply;
}

v1::ScoreRewardsReply ScoreRewards(const v1::ScoreRewardsRequest& request) {
  v1::ScoreRewardsReply reply;
  for (const v1::RewardItem& item : request.items()) {
    uint64_t prompt = 0;
    bool number = absl::SimpleAtoi(item.answer(), &prompt);
    bool first = item.id().substr(item.id().rfind('/')) == "/0";
    v1::RewardResult* result = reply.add_results();
    if ((number && prompt % 11 == 5) || (prompt % 7 == 3 && first)) {
      result->set_error("numeric: took longer than 10 s");
      continue;
    }
    double score = item.completion().text() == item.answer() ? 1 : 0;
    result->set_reward(score);
    if (item.has_environment_reward()) {
      v1::RewardPart* given = result->add_parts();
      given->set_name("environment");
      given->set_score(item.environment_reward());
      given->set_weight(1);
      result->set_reward(score + item.environment_reward());
    }
    v1::RewardPart* part = result->add_parts();
    part->set_name("numeric");
    part->set_score(score);
    part->set_weight(1);
  }
  return reply;
}

v1::EnvironmentStepReply StepEpisode(const v1::EnvironmentResetRequest& begun, const v1::EnvironmentStepRequest& step) {
  uint64_t hash = Mix(begun.seed(), step.turn());
  for (char c : step.text()) hash = Mix(hash, static_cast<uint64_t>(c));
  v1::EnvironmentStepReply reply;
  reply.set_reward(static_cast<double>(hash % 5) / 4);
  reply.set_done(step.turn() + 1 >= 1 + begun.seed() % 3);
  uint64_t prompt = 0;
  const bool number = absl::SimpleAtoi(begun.answer(), &prompt);
  if (number && prompt % 9 == 4 && begun.sibling() == 0) reply.set_reward(std::nan(""));
  v1::Message* message = reply.add_messages();
  message->set_role("user");
  message->set_content(std::string(1 + hash % 7, 'x'));
  return reply;
}

}  // namespace rein::simulation
