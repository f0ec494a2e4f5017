#include "trainer/sequence_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace rein::trainer {
namespace {

// Empty: the experts of all tokens but the last, or none.
std::string ChoiceProblem(const TrainingSequence& s, const SequenceLimits& limits) {
  if (limits.choice_width == 0 || s.expert_choices.empty()) return "";
  const size_t wanted = (s.token_ids.size() - 1) * static_cast<size_t>(limits.choice_width) * sizeof(uint16_t);
  if (s.expert_choices.size() != wanted) {
    return absl::StrCat("has ", s.expert_choices.size(), " bytes of expert_choices for ", s.token_ids.size(), " tokens, want ", wanted,
                        ": ", limits.choice_width, " choices for each but the last");
  }
  for (size_t i = 0; i < wanted; i += sizeof(uint16_t)) {
    uint16_t expert = 0;
    std::memcpy(&expert, s.expert_choices.data() + i, sizeof(expert));
    if (expert != kUnknownExpert && expert >= limits.experts) {
      return absl::StrCat("went to expert ", expert, ", want below ", limits.experts);
    }
  }
  return "";
}

// Empty: the sequence fits a model of these limits.
std::string ShapeProblem(const TrainingSequence& s, const SequenceLimits& limits) {
  const auto length = static_cast<int64_t>(s.token_ids.size());
  if (length < 2 || length > limits.max_length) {
    return absl::StrCat("has ", length, " tokens, want 2 to ", limits.max_length);
  }
  for (int64_t id : s.token_ids) {
    if (id >= 0 && id < limits.vocab_size) continue;
    return absl::StrCat("token id ", id, " is outside the vocabulary of ", limits.vocab_size);
  }
  if (s.loss_mask.size() != s.token_ids.size() || s.loss_mask[0] != 0) {
    return absl::StrCat("loss_mask has ", s.loss_mask.size(), " entries for ", length,
                        " tokens; want as many, the first 0");
  }
  if (s.first_position < 0 || s.first_position + length > limits.max_length) {
    return absl::StrCat("begins at position ", s.first_position, " and has ", length, " tokens, want it to end by ",
                        limits.max_length);
  }
  return ChoiceProblem(s, limits);
}

// Empty: each turn has its reward, or none has.
std::string TurnProblem(const TrainingSequence& s) {
  if (s.turn_rewards.empty()) return "";
  size_t turns = 0;
  for (size_t t = 1; t < s.loss_mask.size(); ++t) turns += s.loss_mask[t] == 1 && s.loss_mask[t - 1] == 0;
  if (s.turn_rewards.size() != turns) {
    return absl::StrCat("has ", s.turn_rewards.size(), " turn_rewards for ", turns, " runs of targets");
  }
  for (double reward : s.turn_rewards) {
    if (!std::isfinite(reward)) return absl::StrCat("has a turn reward of ", reward);
  }
  return "";
}

// Empty: each target has its reward (or label), or none has.
std::string TargetProblem(const TrainingSequence& s, const Algorithm& algorithm) {
  if (s.target_rewards.empty() && !algorithm.scores_targets) return "";
  if (!algorithm.advantage && !algorithm.scores_targets && !algorithm.weighs_targets) {
    return absl::StrCat("has targets that are weighted, which ", algorithm.name, " does not use: leave weight out of the messages");
  }
  if (s.target_rewards.size() != static_cast<size_t>(s.targets())) {
    return absl::StrCat("has ", s.target_rewards.size(), " target_rewards for ", s.targets(), " targets");
  }
  for (double value : s.target_rewards) {
    if (!std::isfinite(value)) return absl::StrCat("has a target reward of ", value);
    if (algorithm.scores_targets && (value < 0 || value > 1)) {
      return absl::StrCat("has a step labelled ", value, ", want 0 to 1");
    }
    if (algorithm.weighs_targets && value < 0) return absl::StrCat("has a target of weight ", value, ", want at least 0");
  }
  return "";
}

// Empty: the sequence has what the algorithm's loss reads.
std::string LossProblem(const TrainingSequence& s, const Algorithm& algorithm) {
  const auto targets = static_cast<size_t>(s.targets());
  if (algorithm.needs_behaviour && s.behaviour_logprobs.size() != targets) {
    return absl::StrCat("has ", s.behaviour_logprobs.size(), " behaviour_logprobs for ", targets,
                        " targets");
  }
  if (algorithm.needs_reference && s.reference_logprobs.size() != targets) {
    return absl::StrCat("has ", s.reference_logprobs.size(), " reference_logprobs for ", targets,
                        " targets");
  }
  if (!std::isfinite(s.reward)) return absl::StrCat("reward is ", s.reward);
  if (!std::isfinite(s.greedy_reward)) return absl::StrCat("greedy_reward is ", s.greedy_reward);
  if (std::string problem = TurnProblem(s); !problem.empty()) return problem;
  if (std::string problem = TargetProblem(s, algorithm); !problem.empty()) return problem;
  if (algorithm.advantage && algorithm.advantage->kind == AdvantageKind::kPerReward &&
      s.reward_parts.size() != algorithm.advantage->part_weights.size()) {
    return absl::StrCat("has ", s.reward_parts.size(), " reward_parts for ",
                        algorithm.advantage->part_weights.size(), " rewards");
  }
  for (const auto* logprobs : {&s.behaviour_logprobs, &s.reference_logprobs}) {
    for (float x : *logprobs) {
      if (!std::isfinite(x)) {
        return absl::StrCat("has a behaviour or reference logprob of ", x);
      }
    }
  }
  return "";
}

// Empty: the sequence has the teacher's tokens, `candidates` for each target, or needs none.
std::string TeacherProblem(const TrainingSequence& s, const SequenceLimits& limits, size_t candidates) {
  const auto wanted = static_cast<size_t>(s.targets()) * candidates;
  if (s.teacher_ids.size() != wanted || s.teacher_logprobs.size() != wanted) {
    return absl::StrCat("has ", s.teacher_ids.size(), " teacher_ids and ", s.teacher_logprobs.size(),
                        " teacher_logprobs, want ", wanted, ": ", candidates, " for each of ", s.targets(),
                        " targets");
  }
  for (int64_t id : s.teacher_ids) {
    if (id < 0 || id >= limits.vocab_size) {
      return absl::StrCat("teacher id ", id, " is outside the vocabulary of ", limits.vocab_size);
    }
  }
  for (float x : s.teacher_logprobs) {
    if (!std::isfinite(x) || x > 1e-3f) return absl::StrCat("has a teacher logprob of ", x);
  }
  return "";
}

// Of the first sequence with targets; at least 1.
size_t CandidatesOf(const std::vector<TrainingSequence>& sequences) {
  for (const TrainingSequence& s : sequences) {
    const auto targets = static_cast<size_t>(s.targets());
    if (targets > 0) return std::max<size_t>(1, s.teacher_ids.size() / targets);
  }
  return 1;
}

// Empty: the sequence is one of a pair, or need not be.
std::string PairProblem(const std::vector<TrainingSequence>& sequences, size_t i,
                        const Algorithm& algorithm) {
  if (sequences[i].targets() == 0 && (algorithm.pairs || algorithm.frozen_reference)) {
    return "has no targets";
  }
  if (!algorithm.pairs) return "";
  const size_t partner = i ^ 1;
  if (partner < sequences.size() && sequences[partner].group == sequences[i].group) return "";
  return "has no partner: pairs stand together, the chosen one first, under one group number";
}

}  // namespace

absl::Status CheckSequences(const std::vector<TrainingSequence>& sequences,
                            const SequenceLimits& limits, const Algorithm* algorithm) {
  if (sequences.empty()) return absl::InvalidArgumentError("batch: has no sequences");
  const size_t candidates = CandidatesOf(sequences);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const TrainingSequence& s = sequences[i];
    std::string problem = ShapeProblem(s, limits);
    if (problem.empty() && algorithm != nullptr && algorithm->needs_teacher) {
      problem = TeacherProblem(s, limits, candidates);
    }
    if (problem.empty() && algorithm != nullptr) problem = PairProblem(sequences, i, *algorithm);
    if (problem.empty() && algorithm != nullptr) problem = LossProblem(s, *algorithm);
    if (problem.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("sequence ", i, " (", s.id, "): ", problem));
  }
  return absl::OkStatus();
}

}  // namespace rein::trainer
