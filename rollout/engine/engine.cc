#include "rollout/engine/engine.h"

#include <algorithm>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::rollout {
namespace {

// When nothing can be computed the thread looks again after so long.
constexpr auto kIdlePause = std::chrono::milliseconds(200);

std::string ToText(const PolicyVersion& version) {
  return absl::StrCat(version.lineage, ".", version.number);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options, StepModel& model,
                                                       const text::ModelText& text,
                                                       const sync::Clock& clock,
                                                       EngineObserver observer) {
  const StepModelLimits limits = model.limits();
  if (limits.pages < 2 || limits.page_tokens < 1 || options.max_running < 1 ||
      options.step_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "engine: want 2 pages of 1 token, 1 running sequence and 1 token per step at least, got ",
        limits.pages, ", ", limits.page_tokens, ", ", options.max_running, ", ",
        options.step_tokens));
  }
  return std::unique_ptr<Engine>(new Engine(options, model, text, clock, std::move(observer)));
}

Engine::Engine(EngineOptions options, StepModel& model, const text::ModelText& text,
               const sync::Clock& clock, EngineObserver observer)
    : model_(model),
      text_(text),
      clock_(clock),
      on_stats_(std::move(observer.on_stats)),
      on_failure_(std::move(observer.on_failure)),
      core_(options, model, text, clock, std::move(observer.on_sibling)),
      thread_([this] { Run(); }) {}

Engine::~Engine() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

absl::StatusOr<uint64_t> Engine::Submit(GenerateSpec spec, RequestCallbacks callbacks) {
  REIN_ASSIGN_OR_RETURN(std::shared_ptr<Request> request,
                        MakeRequest(std::move(spec), std::move(callbacks), model_.limits(), text_));
  request->submitted = clock_.Now();
  std::lock_guard<std::mutex> lock(mutex_);
  if (!version_.has_value()) return absl::FailedPreconditionError("no weights have come yet");
  const std::optional<PolicyVersion>& wanted = request->spec.version;
  if (wanted.has_value() && *wanted != *version_) {
    return absl::FailedPreconditionError(
        absl::StrCat("policy version ", ToText(*version_), " is in use, want ", ToText(*wanted)));
  }
  const size_t siblings = request->spec.siblings.size();
  const size_t waiting = stats_.waiting + posted_siblings_;
  if (waiting + siblings > static_cast<size_t>(core_.options().max_waiting)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(waiting, " siblings wait, at most ", core_.options().max_waiting, " may"));
  }
  request->id = next_request_++;
  posted_siblings_ += siblings;
  const uint64_t id = request->id;
  commands_.push_back([request](EngineCore& core) { core.Add(request); });
  wake_.notify_all();
  return id;
}

void Engine::Post(Command command) {
  std::lock_guard<std::mutex> lock(mutex_);
  commands_.push_back(std::move(command));
  wake_.notify_all();
}

uint32_t Engine::Abort(const std::vector<GroupId>& groups) {
  auto aborted = std::make_shared<std::promise<uint32_t>>();
  Post([groups, aborted](EngineCore& core) {
    aborted->set_value(core.Abort([&groups](const Request& request) {
      return groups.empty() ||
             std::find(groups.begin(), groups.end(), request.spec.group) != groups.end();
    }));
  });
  return aborted->get_future().get();
}

void Engine::AbortRequest(uint64_t id) {
  Post([id](EngineCore& core) {
    core.Abort([id](const Request& request) { return request.id == id; });
  });
}

void Engine::BetweenSteps(const std::function<void()>& call) {
  std::promise<void> done;
  Post([&](EngineCore&) {
    call();
    done.set_value();
  });
  done.get_future().get();
}

void Engine::Pause() {
  // Waits for the step that runs.
  std::promise<void> between_steps;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    paused_ = true;
    commands_.push_back([&between_steps](EngineCore&) { between_steps.set_value(); });
    wake_.notify_all();
  }
  between_steps.get_future().get();
}

void Engine::Resume() {
  std::lock_guard<std::mutex> lock(mutex_);
  paused_ = false;
  commands_.push_back([](EngineCore&) {});
  wake_.notify_all();
}

absl::Status Engine::SwapWeights(const PolicyVersion& version, InFlight in_flight,
                                 absl::Duration patience, std::function<absl::Status()> swap) {
  std::lock_guard<std::mutex> one(one_swap_);
  auto request = std::make_shared<Swap>(Swap{version, in_flight, std::move(swap), std::nullopt});
  std::unique_lock<std::mutex> lock(mutex_);
  swap_ = request;
  wake_.notify_all();
  bool done = swapped_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                                [&] { return request->result.has_value(); });
  if (!done && swap_ == request) {
    swap_ = nullptr;
    wake_.notify_all();
    return absl::DeadlineExceededError(
        absl::StrCat("sequences under way did not end within ", absl::FormatDuration(patience)));
  }
  // The thread is inside the call: its result comes soon.
  swapped_.wait(lock, [&] { return request->result.has_value(); });
  return *request->result;
}

bool Engine::swap_pending() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return swap_ != nullptr;
}

EngineStats Engine::stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

std::optional<PolicyVersion> Engine::version() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return version_;
}

void Engine::NoteStats() {
  stats_ = core_.stats();
  if (on_stats_) on_stats_(stats_);
}

void Engine::RunCommands(std::unique_lock<std::mutex>& lock) {
  if (commands_.empty()) return;
  std::vector<Command> commands;
  commands.swap(commands_);
  const size_t posted = posted_siblings_;
  lock.unlock();
  for (Command& command : commands) command(core_);
  lock.lock();
  NoteStats();
  posted_siblings_ -= posted;
}

void Engine::RunSwap(std::unique_lock<std::mutex>& lock) {
  core_.AdmitNew(swap_ == nullptr || swap_->in_flight != InFlight::kFinish);
  if (swap_ == nullptr) return;
  if (swap_->in_flight == InFlight::kFinish && core_.in_flight()) return;
  Settle(lock);
  if (swap_ == nullptr) return;  // given up meanwhile
  std::shared_ptr<Swap> swap = std::move(swap_);
  lock.unlock();
  absl::Status status = swap->call();
  if (status.ok()) core_.UseVersion(swap->version, swap->in_flight == InFlight::kRecompute);
  core_.AdmitNew(true);
  lock.lock();
  if (status.ok()) version_ = swap->version;
  NoteStats();
  swap->result = status;
  swapped_.notify_all();
}

// Waits for the step under way.
void Engine::Settle(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  absl::Status status = core_.Settle();
  if (!status.ok()) Fail(status);
  lock.lock();
  NoteStats();
}

void Engine::Fail(const absl::Status& status) {
  core_.FailAll(status);
  if (on_failure_) on_failure_(status);
}

void Engine::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    if (paused_) Settle(lock);  // before the command that tells it
    RunCommands(lock);
    RunSwap(lock);
    const std::shared_ptr<Swap> seen = swap_;
    bool progress = false;
    if (!paused_ && !stopping_ && core_.has_work()) {
      lock.unlock();
      absl::StatusOr<bool> stepped = core_.Step();
      if (!stepped.ok()) Fail(stepped.status());
      progress = stepped.value_or(false);
      lock.lock();
      NoteStats();
    }
    if (progress) continue;
    wake_.wait_for(lock, kIdlePause,
                   [&] { return stopping_ || !commands_.empty() || swap_ != seen; });
  }
  RunCommands(lock);
  if (swap_ != nullptr) swap_->result = absl::CancelledError("the engine stops");
  swap_ = nullptr;
  swapped_.notify_all();
  lock.unlock();
  core_.FailAll(absl::CancelledError("the engine stops"));
}

}  // namespace rein::rollout
