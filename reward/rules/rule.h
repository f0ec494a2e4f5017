// Rule scores one completion; every file of this folder makes one kind of them.

#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/reward.pb.h"

namespace rein::reward {

// True once the rule's time is over; a rule that loops asks it and returns DEADLINE_EXCEEDED.
using Expired = std::function<bool()>;

// A score, and why it is what it is where the rule has something to say about that.
struct Verdict {
  Verdict(double score, std::string note = "") : score(score), note(std::move(note)) {}

  double score;
  std::string note;
  std::vector<v1::StepReward> steps;  // where it was earned; empty: at the end
  // True: the rule is not for this prompt, and there is no score.
  bool skipped = false;
  // True: a program tried what the sandbox refuses; the note names it.
  bool refused = false;
};

// Thread-safe. An error costs this completion its score, and no other.
using Rule = std::function<absl::StatusOr<Verdict>(const v1::RewardItem& item, const Expired&)>;

}  // namespace rein::reward
