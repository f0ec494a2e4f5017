// What the trainer learns from: one sequence of token ids with its targets, plain data without torch or
// protobuf.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rein::trainer {

inline constexpr uint16_t kUnknownExpert = 0xffff;  // in TrainingSequence::expert_choices

struct TrainingSequence {
  std::string id;                      // for messages
  std::vector<int64_t> token_ids;      // prompt first
  std::vector<uint8_t> loss_mask;      // 1 where the token is a target; the first never is
  std::vector<float> behaviour_logprobs;  // one for each target, in order; RL only
  std::vector<float> reference_logprobs;  // one for each target, in order; only with a KL term
  uint32_t group = 0;                  // RL only
  double reward = 0;                   // RL only
  std::vector<double> reward_parts;    // the score of each reward of the job; RL only
  std::vector<int64_t> teacher_ids;      // equally many for each target; distillation only
  std::vector<float> teacher_logprobs;   // of them
  double greedy_reward = 0;            // of a greedy completion of the same prompt; RL only
  // What of `reward` belongs to each run of targets (a turn), in order; empty: all of it to the last target.
  std::vector<double> turn_rewards;
  // One for each target, or none. RL: what of `reward` was earned at it, instead of turn_rewards; of a reward model that
  // learns steps: the label of the step that ends there. SFT: what the target counts, in loss and denominators.
  std::vector<double> target_rewards;
  int64_t first_position = 0;  // of its first token
  // Experts of its tokens but the last, to be replayed, as Completion.expert_choices; empty: the trainer's own.
  std::string expert_choices;
  bool truncated = false;
  // Every target was sampled by the weights in training, from their whole distribution at the job's temperature.
  bool on_policy = false;

  int64_t targets() const {
    int64_t count = 0;
    for (uint8_t m : loss_mask) count += m;
    return count;
  }
};

}  // namespace rein::trainer
