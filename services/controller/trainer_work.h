// TrainerWork does what a run asks of the trainer, one thing at a time, and writes the results to
// the ledger and the store.
//
// The ledger's entry always comes before the call. An answer from a trainer that has left the pool
// meanwhile is not looked at.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "rein/v1/trainer.pb.h"
#include "services/controller/run_state.h"
#include "services/controller/training_batch.h"

namespace rein::services {

class TrainerWork {
 public:
  // `run` must outlive the object.
  explicit TrainerWork(RunState& run) : run_(run) {}

  TrainerView View() const;
  // The trainer is not in the pool any more.
  void OnLeft();

  // Of the trainer that is loaded: bytes that it will still allocate, and its model's parameters.
  uint64_t coming_bytes() const { return coming_bytes_; }
  uint64_t parameters() const { return parameters_; }

  using OnScores = std::function<void(uint64_t lines, const v1::ScorePolicyReply& scores)>;
  // Scores the answers of some lines from `first` on.
  void Validate(PromptSource& prompts, uint64_t first, OnScores on_scores);

  // For kAskTrainer, kLoadTrainer, kLoadInitial, kPublish, kSave, kExport and kTrain.
  void Start(const Action& action);

 private:
  template <typename Reply>
  rpc::Done<Reply> Expect(void (TrainerWork::*on_reply)(absl::StatusOr<Reply>));

  void Ask();
  void Load(bool initial);
  void Publish(const std::vector<std::string>& actors);
  void Save();
  void Export();
  void Train(uint64_t count);

  void OnStatus(absl::StatusOr<v1::TrainerStatusReply> reply);
  void OnLoaded(absl::StatusOr<v1::LoadTrainerReply> reply);
  void OnPublished(absl::StatusOr<v1::PublishReply> reply);
  void OnSaved(absl::StatusOr<v1::SaveReply> reply);
  void OnExported(absl::StatusOr<v1::SaveReply> reply);
  void OnUpdated(absl::StatusOr<v1::UpdateReply> reply);
  // Asks a reference for what the teacher finds likeliest; the Update follows.
  void AskTeacher();
  void OnTaught(absl::StatusOr<v1::ScoreTokensReply> reply);
  void SendUpdate();
  void OnValidated(absl::StatusOr<v1::ScorePolicyReply> reply);

  absl::StatusOr<TrainingBatch> Batch(uint64_t update, const std::vector<uint64_t>& orders);
  void RollBack(uint64_t checkpoint_update);
  void Skip(const absl::Status& status);
  void Record(const v1::UpdateReply& reply);
  // The call that was begun last ends now.
  void NoteSpan(const std::string& work, const std::string& about);
  void RemoveOldCheckpoints();
  void ForgetOldRollouts();
  // Asks the trainer again later, or ends the run when it makes no sense to.
  void Failed(const std::string& doing, const absl::Status& status);

  RunState& run_;
  uint64_t call_ = 0;  // under way; 0: none
  absl::Time started_;
  int failures_ = 0;  // in a row
  absl::Time not_before_ = absl::InfinitePast();
  bool known_ = false;
  bool loaded_ = false;
  Version version_;
  uint64_t digest_ = 0;

  // Of the call under way.
  Version wanted_;
  std::vector<std::string> receivers_;
  std::vector<uint64_t> orders_;
  std::vector<v1::Metric> batch_metrics_;
  v1::Checkpoint checkpoint_;
  v1::UpdateRequest update_;  // that waits for the teacher
  std::string teacher_;       // the reference that was asked
  int taught_ = 0, asked_ = 0;  // sequences of update_ that have their answers, and that are asked for
  OnScores on_scores_;
  uint64_t validated_lines_ = 0;
  uint64_t coming_bytes_ = 0, parameters_ = 0;
};

inline constexpr absl::Duration kUpdateDeadline = absl::Hours(2);

template <typename Reply>
rpc::Done<Reply> TrainerWork::Expect(void (TrainerWork::*on_reply)(absl::StatusOr<Reply>)) {
  call_ = run_.next_call++;
  started_ = run_.deps.clock.Now();
  return [this, call = call_, on_reply](absl::StatusOr<Reply> reply) {
    run_.mailbox.Post([this, call, on_reply, reply = std::move(reply)]() mutable {
      if (call != call_) return;
      call_ = 0;
      (this->*on_reply)(std::move(reply));
    });
  };
}

}  // namespace rein::services
