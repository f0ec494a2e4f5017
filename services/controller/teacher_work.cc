// The part of TrainerWork that asks a reference what the teacher of a distillation finds likeliest, some sequences at a
// time, before the Update that learns from it.

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "common/rpc/limits.h"
#include "services/controller/trainer_work.h"

namespace rein::services {
namespace {

constexpr uint64_t kBytesOfCandidate = 8;  // an id and a log-prob
// Answers are kept well below the longest message.
constexpr uint64_t kBytesAsked = rpc::kMaxMessageBytes / 4;
// Largest vocabularies have a quarter of a million tokens; asked for whole, so many are reckoned with.
constexpr uint64_t kWholeVocabulary = 1 << 18;

// The place of the first target: all before it is context.
int FirstTarget(const v1::TrainingSequence& sequence) {
  return static_cast<int>(sequence.loss_mask().find('\1'));
}

std::string WhatIsLarge(const v1::JobConfig& job) {
  if (job.has_distill()) return "lower distill.top_k or distill.sequences";
  if (job.trainer().router().replay()) {
    return "replayed choices take 2 bytes for each token, router and chosen expert: want fewer or shorter rollouts in an "
           "update, or no trainer.router.replay";
  }
  return "fewer or shorter sequences in an update";
}

}  // namespace

void TrainerWork::SendUpdate() {
  const v1::UpdateRequest request = std::move(update_);
  update_.Clear();
  if (request.ByteSizeLong() > static_cast<size_t>(rpc::kMaxMessageBytes)) {
    return run_.Fail(absl::StrCat("update ", wanted_.number, " would be a message of ", request.ByteSizeLong() >> 20,
                                  " MB, at most ", rpc::kMaxMessageBytes >> 20,
                                  " go through: ", WhatIsLarge(run_.job.config)));
  }
  run_.pool.trainer()->trainer->Update(request, kUpdateDeadline, Expect(&TrainerWork::OnUpdated));
}

void TrainerWork::AskTeacher() {
  const v1::DistillConfig& config = run_.job.config.distill();
  PooledActor* reference = nullptr;
  for (const ActorView& view : run_.pool.Views("reference")) {
    const bool ready = view.loaded && view.has_weights && view.not_before <= run_.deps.clock.Now();
    if (ready && reference == nullptr) reference = run_.pool.Find(view.name);
  }
  if (reference == nullptr) return;  // decided on what has just changed: it is decided again
  teacher_ = reference->actor.name();
  v1::ScoreTokensRequest request;
  *request.mutable_fence() = run_.FreshFence(reference->actor, absl::StrCat("teach/", update_.update()));
  request.set_temperature(config.temperature());
  request.set_top_k(config.top_k() > 0 ? config.top_k() : UINT32_MAX);
  const uint64_t candidates = config.top_k() > 0 ? config.top_k() : kWholeVocabulary;
  uint64_t bytes = 0;
  for (int i = taught_; i < update_.sequences_size(); ++i) {
    const v1::TrainingSequence& sequence = update_.sequences(i);
    const int first = FirstTarget(sequence);
    const auto places = static_cast<uint64_t>(first < 0 ? 1 : sequence.token_ids_size() - first);
    bytes += places * candidates * kBytesOfCandidate;
    if (request.sequences_size() > 0 && bytes > kBytesAsked) break;
    v1::TokenSequence* tokens = request.add_sequences();
    *tokens->mutable_token_ids() = sequence.token_ids();
    tokens->set_prefix(static_cast<uint32_t>(first < 0 ? sequence.token_ids_size() - 1 : first));
  }
  asked_ = request.sequences_size();
  reference->reference->Score(request, kUpdateDeadline, Expect(&TrainerWork::OnTaught));
}

void TrainerWork::OnTaught(absl::StatusOr<v1::ScoreTokensReply> reply) {
  if (reply.ok() && reply->sequences_size() != asked_) {
    reply = absl::InternalError("another number of sequences came back");
  }
  PooledActor* reference = run_.pool.Find(teacher_);
  if (!reply.ok()) {
    if (!IsTransient(reply.status())) {
      return run_.Fail(absl::StrCat(teacher_, ": the teacher cannot score update ", wanted_.number, ": ",
                                    std::string(reply.status().message())));
    }
    if (reference == nullptr) return;
    reference->view.not_before = run_.deps.clock.Now() + RetryPause(++reference->failures);
    if (absl::IsFailedPrecondition(reply.status())) reference->view.loaded = false;
    return;
  }
  if (reference != nullptr) reference->failures = 0;
  for (int i = 0; i < asked_; ++i) {
    v1::TrainingSequence& sequence = *update_.mutable_sequences(taught_ + i);
    const v1::TokenLogprobs& taught = reply->sequences(i);
    const int begin = FirstTarget(sequence), places = sequence.token_ids_size() - begin;
    if (begin < 0) continue;
    const int k = taught.top_ids_size() / places;
    for (int t = begin; t < sequence.token_ids_size(); ++t) {
      if (sequence.loss_mask()[static_cast<size_t>(t)] == 0) continue;
      const int first = (t - begin) * k;
      sequence.mutable_teacher_ids()->Add(taught.top_ids().begin() + first, taught.top_ids().begin() + first + k);
      sequence.mutable_teacher_logprobs()->Add(taught.top_logprobs().begin() + first,
                                               taught.top_logprobs().begin() + first + k);
    }
  }
  taught_ += asked_;
  if (run_.pool.trainer() == nullptr) return;
  taught_ < update_.sequences_size() ? AskTeacher() : SendUpdate();
}

}  // namespace rein::services
