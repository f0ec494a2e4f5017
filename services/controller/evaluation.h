// Evaluation scores the held-out prompts once, under one version of the weights.
//
// Its prompts are named 0, 1, ... like the groups of a ledger, but nothing of it is kept: after a
// crash it begins again. Not thread-safe.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/controller.pb.h"
#include "services/controller/prompt_source.h"

namespace rein::services {

class Evaluation {
 public:
  // Reads every prompt. `update` is the number of the weights.
  static absl::StatusOr<Evaluation> Begin(PromptSource& prompts, uint64_t update);

  struct Item {
    Prompt prompt;
    std::optional<v1::Rollout> rollout;
    std::optional<v1::RewardResult> result;
    std::string given_up;  // why it has no result; such an item scores 0
  };

  uint64_t update() const { return update_; }
  std::vector<Item>& items() { return items_; }
  bool Done() const;

  // How the draws of an item are keyed: no training group has such a name.
  v1::GroupId GroupOf(uint64_t item) const;

  // `accuracy`: name of the reward whose mean is the accuracy.
  v1::EvalResult Result(const std::string& accuracy) const;

 private:
  explicit Evaluation(uint64_t update) : update_(update) {}

  uint64_t update_;
  std::vector<Item> items_;
};

}  // namespace rein::services
