// PlanStep decides what the engine computes in its next step: a pure function of what it holds.
//
// Every running sequence decodes one token, or prefills a chunk of what is not computed yet; the
// oldest come first. When pages run out, the youngest running sequence is preempted: it gives its
// pages back and waits again, to be computed anew. Then waiting sequences are admitted in order, as
// long as the whole of what they know fits and nothing was preempted.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::rollout {

struct RunningSequence {
  uint64_t id = 0;
  int32_t known_tokens = 0;     // prompt and completion so far
  int32_t computed_tokens = 0;  // whose keys and values stand in pages; fewer than known
  int32_t pages = 0;
  int32_t own_pages = 0;  // of these, shared with nobody: what preempting it gives back at least
};

struct WaitingSequence {
  uint64_t id = 0;
  int32_t known_tokens = 0;
  int32_t cached_tokens = 0;  // that stand in remembered pages, whole pages; fewer than known
  int32_t unused_pages = 0;   // of these remembered pages, without a user so far
  bool blocked = false;       // its prompt is being computed by a sibling
  bool started = false;       // was preempted: it holds tokens already
};

struct EngineSnapshot {
  std::vector<RunningSequence> running;  // oldest first
  std::vector<WaitingSequence> waiting;  // first in line first
  int32_t available_pages = 0;
  int32_t page_tokens = 16;
  int32_t max_running = 256;
  int32_t step_tokens = 2048;
  bool admit_new = true;  // false: only sequences that were started may be admitted
};

struct StepWork {
  uint64_t id = 0;
  int32_t tokens = 0;  // to compute, from computed_tokens (or cached_tokens) on

  bool operator==(const StepWork&) const = default;
};

struct StepPlan {
  std::vector<uint64_t> preempted;
  std::vector<uint64_t> admitted;
  std::vector<StepWork> work;  // running ones, then admitted ones
};

StepPlan PlanStep(const EngineSnapshot& snapshot);

}  // namespace rein::rollout
