// What kind of job a JobConfig is, and the block of its policy-gradient algorithm whichever preset it uses.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "rein/v1/job.pb.h"

namespace rein::config {

// The key of the kind, such as "grpo"; "" when there is none.
std::string KindOf(const v1::JobConfig& job);

// What jobs that learn from given texts share: sft, dpo, kto ...
struct TextJob {
  // Of a line: an answer; a better and a worse one; one marked good or bad; one with a number; one in steps with labels.
  enum class Answers { kOne, kPair, kMarked, kScored, kSteps };

  Answers answers = Answers::kOne;
  std::optional<uint32_t> updates;
  double passes = 1;
  uint32_t lines = 0;  // of the data, per Update
};

// Absent for a job that generates what it learns from, or learns nothing.
std::optional<TextJob> TextJobOf(const v1::JobConfig& job);
// What every line of its training data must have; absent for other jobs, where answers may lack.
std::optional<TextJob::Answers> AnswersOf(const v1::JobConfig& job);

// Whether a job's held-out loss is that of given answers: sft and distill.
bool LearnsAnswers(const v1::JobConfig& job);

// Whether held-out lines are measured by the loss that the job trains with: jobs that learn from pairs, labels or steps,
// where data.eval is not there to be completed and scored by rewards.
bool MeasuresHeldOut(const v1::JobConfig& job);

// The data that a job goes through: what it learns from, or, of generate and score, the held-out data. Null for a job
// that has none of this kind.
const v1::DatasetConfig* DataOf(const v1::JobConfig& job);

// The `updates` of a kind that trains; 0 where it is absent.
uint32_t UpdatesOf(const v1::JobConfig& job);
void SetUpdates(uint32_t updates, v1::JobConfig& job);

// The block of grpo, dapo, gspo ...; null for a job of another kind.
const v1::GrpoConfig* PolicyGradientOf(const v1::JobConfig& job);
v1::GrpoConfig* PolicyGradientOf(v1::JobConfig& job);

}  // namespace rein::config
