// Engine runs an EngineCore on a thread of its own: requests come from any thread, completions go
// to their callbacks, and new weights are taken into use between two steps.
//
//   REIN_ASSIGN_OR_RETURN(auto engine, Engine::Create({}, model, text, clock, {}));
//   REIN_RETURN_IF_ERROR(engine->SwapWeights({1, 0}, InFlight::kContinue, absl::Seconds(60),
//   load)); REIN_ASSIGN_OR_RETURN(uint64_t id, engine->Submit(spec, callbacks));
//
// Destruction ends every request with CANCELLED. Thread-safe; calls from callbacks are not allowed.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rollout/engine/engine_core.h"

namespace rein::rollout {

// All are called from the engine's thread, and must be quick; any may be empty.
struct EngineObserver {
  SiblingObserver on_sibling;
  std::function<void(const EngineStats&)> on_stats;  // after every step
  std::function<void(const absl::Status&)> on_failure;  // of a step; every request ended with it
};

class Engine {
 public:
  // The model, the text and the clock must outlive the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options, StepModel& model,
                                                        const text::ModelText& text,
                                                        const sync::Clock& clock,
                                                        EngineObserver observer);
  ~Engine();

  // Queues a request; its id is for AbortRequest(). Errors as MakeRequest(); FAILED_PRECONDITION
  // before the first weights, or when spec.version is not in use; RESOURCE_EXHAUSTED when too many
  // siblings wait.
  absl::StatusOr<uint64_t> Submit(GenerateSpec spec, RequestCallbacks callbacks);

  // Ends the requests of these groups, of all when there are none; returns how many siblings.
  uint32_t Abort(const std::vector<GroupId>& groups);
  void AbortRequest(uint64_t id);

  // Runs `call` on the engine's thread while no step computes, and waits for it.
  void BetweenSteps(const std::function<void()>& call);

  // No step begins after Pause() until Resume(); requests queue meanwhile.
  void Pause();
  void Resume();

  // kContinue: sequences under way go on under the new weights, each token's version is kept.
  // kRecompute: the same, once their keys and values were computed anew.
  // kFinish: they end under the old ones first, and new ones wait.
  // Calls `swap` on the engine's thread between two steps, and counts tokens to `version` once it
  // returned OK. DEADLINE_EXCEEDED when sequences that should finish first did not in time: then
  // nothing changed. One swap at a time.
  absl::Status SwapWeights(const PolicyVersion& version, InFlight in_flight,
                           absl::Duration patience, std::function<absl::Status()> swap);
  // Whether a swap waits for its turn.
  bool swap_pending() const;

  EngineStats stats() const;
  // Weights in use; nothing before the first swap.
  std::optional<PolicyVersion> version() const;

 private:
  struct Swap {
    PolicyVersion version;
    InFlight in_flight;
    std::function<absl::Status()> call;
    std::optional<absl::Status> result;
  };
  using Command = std::function<void(EngineCore&)>;

  Engine(EngineOptions options, StepModel& model, const text::ModelText& text,
         const sync::Clock& clock, EngineObserver observer);

  void Run();
  void RunCommands(std::unique_lock<std::mutex>& lock);
  void RunSwap(std::unique_lock<std::mutex>& lock);
  void Settle(std::unique_lock<std::mutex>& lock);
  void Fail(const absl::Status& status);
  void Post(Command command);
  void NoteStats();

  StepModel& model_;
  const text::ModelText& text_;
  const sync::Clock& clock_;
  const std::function<void(const EngineStats&)> on_stats_;
  const std::function<void(const absl::Status&)> on_failure_;
  EngineCore core_;  // touched by the thread only

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable swapped_;
  std::vector<Command> commands_;
  std::shared_ptr<Swap> swap_;  // null: none is wanted
  std::optional<PolicyVersion> version_;
  EngineStats stats_;
  size_t posted_siblings_ = 0;  // in commands_
  uint64_t next_request_ = 1;
  bool paused_ = false;
  bool stopping_ = false;
  std::mutex one_swap_;
  std::thread thread_;
};

}  // namespace rein::rollout
