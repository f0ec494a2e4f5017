// EngineCore is continuous batching without threads: it holds the sequences and their pages, and
// each Step() begins what PlanStep() decided. Where the model can, a step begins before the tokens of the
// one before it are here: they are put in on the device, and read while it computes. A sequence that they end
// has then one row too many under way, which is thrown away.
//
//   EngineCore core({}, model, text, clock, {});
//   core.Add(*MakeRequest(...));
//   while (core.has_work()) REIN_RETURN_IF_ERROR(core.Step());
//
// A request's prompt is computed once, by its first sibling; when that is done the others fork:
// they share its full pages, get a copy of the last one, and draw their first tokens from the same
// logits. Not thread-safe: see Engine.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "common/text/model_text.h"
#include "rollout/engine/page_pool.h"
#include "rollout/engine/policy_version.h"
#include "rollout/engine/request.h"
#include "rollout/engine/sequence.h"
#include "rollout/engine/step_model.h"
#include "rollout/engine/step_plan.h"

namespace rein::rollout {

struct EngineOptions {
  int32_t max_running = 256;      // sequences that are computed at once
  int32_t step_tokens = 2048;     // most tokens in one step
  bool prefix_cache = true;       // reuse what was computed for equal beginnings
  int32_t max_waiting = 100'000;  // siblings that may wait; more are refused
};

// What became of one sibling, for metrics.
struct SiblingFigures {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  FinishReason reason = FinishReason::kAbort;
  absl::Duration queued;          // until it was first admitted
  absl::Duration first_token;     // from the submit
  absl::Duration total;           // from the submit
  absl::Duration between_tokens;  // mean; zero for one token
};

using SiblingObserver = std::function<void(const SiblingFigures&)>;

// Totals since the start, and where things stand.
struct EngineStats {
  PolicyVersion version;
  uint32_t running = 0;
  uint32_t waiting = 0;
  double kv_usage = 0;  // share of pages in use, in [0, 1]
  uint64_t steps = 0;
  uint64_t computed_tokens = 0;  // by the model, padding excluded
  uint64_t prompt_tokens = 0;    // of the computed ones
  uint64_t generated_tokens = 0;
  uint64_t preemptions = 0;
  uint64_t prefix_queries_tokens = 0;
  uint64_t prefix_hits_tokens = 0;
};

class EngineCore {
 public:
  // The model, the text and the clock must outlive the core.
  EngineCore(EngineOptions options, StepModel& model, const text::ModelText& text,
             const sync::Clock& clock, SiblingObserver observer);

  // Queues all siblings of a request.
  void Add(std::shared_ptr<Request> request);
  // Ends requests: their unfinished siblings come with kAbort. Returns how many siblings that were.
  uint32_t Abort(const std::function<bool(const Request&)>& which);
  // Ends every request with this error.
  void FailAll(const absl::Status& status);

  // One step; false when nothing could be computed. An error is the model's: every request should
  // be failed then.
  absl::StatusOr<bool> Step();
  // Waits for the step under way; the errors of Step().
  absl::Status Settle();

  // From now on tokens are sampled by this version; called after Settle() and the change of weights. Prompts that
  // were being computed are begun anew. Sequences with tokens go on with the keys and values they have, or, with
  // `recompute`, after theirs were computed anew: then each later token has the log-prob that these weights give it.
  void UseVersion(const PolicyVersion& version, bool recompute = false);
  // False: sequences that have no token yet wait.
  void AdmitNew(bool admit) { admit_new_ = admit; }

  bool has_work() const { return !running_.empty() || !waiting_.empty() || under_way_.has_value(); }
  // Whether a sequence is being computed, or was and will be again.
  bool in_flight() const;
  EngineStats stats() const;
  const EngineOptions& options() const { return options_; }

 private:
  using SequencePtr = std::shared_ptr<Sequence>;
  // A step that was begun.
  struct UnderWay {
    PolicyVersion version;
    std::vector<SequencePtr> drawing;  // one for each draw; some may have ended since
  };

  EngineSnapshot Snapshot() const;
  void Apply(const StepPlan& plan);
  void PutBack(size_t running_index);
  void Admit(uint64_t id);
  absl::StatusOr<StepBatch> BuildBatch(const StepPlan& plan, std::vector<SequencePtr>& drawing);
  absl::Status AddWork(Sequence& sequence, uint32_t tokens, StepBatch& batch);
  void ForkSiblings(Sequence& leader, int64_t last_token, StepBatch& batch,
                    std::vector<SequencePtr>& drawing);
  bool Fork(const Sequence& leader, Sequence& follower, StepBatch& batch);
  absl::Status CollectEarliest(const UnderWay& step);
  absl::Status Commit(const Draws& draws, const UnderWay& step);
  void RememberPages(Sequence& sequence);
  void ReleasePages(Sequence& sequence);
  void Finish(Sequence& sequence, FinishReason reason);
  void RemoveFinished();

  const EngineOptions options_;
  StepModel& model_;
  const text::ModelText& text_;
  const sync::Clock& clock_;
  const SiblingObserver observer_;
  PagePool pool_;
  std::vector<SequencePtr> running_;  // oldest first
  std::deque<SequencePtr> waiting_;
  uint64_t next_id_ = 1;
  bool admit_new_ = true;
  PolicyVersion version_;
  EngineStats totals_;
  std::optional<UnderWay> under_way_;
};

}  // namespace rein::rollout
