#include "rollout/engine/step_plan.h"

#include <algorithm>

namespace rein::rollout {
namespace {

int32_t PagesFor(int32_t tokens, int32_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

class Planner {
 public:
  explicit Planner(const EngineSnapshot& snapshot)
      : snapshot_(snapshot),
        available_(snapshot.available_pages),
        budget_(snapshot.step_tokens),
        kept_(snapshot.running.size()) {
    // Decoding goes on whatever prefill there is.
    int32_t decoding = 0;
    for (const RunningSequence& sequence : snapshot.running) {
      decoding += sequence.known_tokens - sequence.computed_tokens == 1;
    }
    prefill_budget_ = std::max(budget_ - decoding, 0);
  }

  StepPlan Plan() {
    for (size_t i = 0; i < kept_; ++i) PlanRunning(i);
    if (plan_.preempted.empty()) {
      for (const WaitingSequence& sequence : snapshot_.waiting) {
        if (!Admit(sequence)) break;
      }
    }
    return std::move(plan_);
  }

 private:
  // New pages for `tokens` more, as far as they are to be had; fewer tokens when not.
  int32_t Fit(const RunningSequence& sequence, int32_t tokens) const {
    int32_t room = (sequence.pages + available_) * snapshot_.page_tokens - sequence.computed_tokens;
    return std::min(tokens, room);
  }

  void PlanRunning(size_t index) {
    const RunningSequence& sequence = snapshot_.running[index];
    int32_t missing = sequence.known_tokens - sequence.computed_tokens;
    int32_t wanted = missing == 1 ? std::min(budget_, 1) : std::min(missing, prefill_budget_);
    if (wanted <= 0) return;
    int32_t tokens = Fit(sequence, wanted);
    while (tokens <= 0) {
      // The youngest that is still kept; itself when it is the last.
      const RunningSequence& victim = snapshot_.running[--kept_];
      plan_.preempted.push_back(victim.id);
      if (victim.id == sequence.id) return;
      available_ += victim.own_pages;
      tokens = Fit(sequence, wanted);
    }
    available_ -=
        PagesFor(sequence.computed_tokens + tokens, snapshot_.page_tokens) - sequence.pages;
    budget_ -= tokens;
    if (missing > 1) prefill_budget_ -= tokens;
    plan_.work.push_back({sequence.id, tokens});
  }

  // False: nobody behind it is admitted either.
  bool Admit(const WaitingSequence& sequence) {
    int32_t running = static_cast<int32_t>(kept_ + plan_.admitted.size());
    if (running >= snapshot_.max_running || prefill_budget_ <= 0) return false;
    if (sequence.blocked || (!snapshot_.admit_new && !sequence.started)) return true;
    int32_t cached_pages = sequence.cached_tokens / snapshot_.page_tokens;
    int32_t needed = PagesFor(sequence.known_tokens + 1, snapshot_.page_tokens) - cached_pages;
    if (needed + sequence.unused_pages > available_) return false;
    int32_t tokens = std::min(sequence.known_tokens - sequence.cached_tokens, prefill_budget_);
    available_ -= needed + sequence.unused_pages;
    prefill_budget_ -= tokens;
    plan_.admitted.push_back(sequence.id);
    plan_.work.push_back({sequence.id, tokens});
    return true;
  }

  const EngineSnapshot& snapshot_;
  StepPlan plan_;
  int32_t available_;
  int32_t budget_;
  int32_t prefill_budget_;
  size_t kept_;  // running sequences before this index are not preempted
};

}  // namespace

StepPlan PlanStep(const EngineSnapshot& snapshot) { return Planner(snapshot).Plan(); }

}  // namespace rein::rollout
