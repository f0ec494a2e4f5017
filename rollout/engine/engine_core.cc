#include "rollout/engine/engine_core.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "rollout/sampling/draw_key.h"

namespace rein::rollout {
namespace {

// Waiting sequences that one step looks at.
constexpr size_t kMaxPlannedWaiting = 512;
// A sibling forks only while one page is available for so many running sequences.
constexpr int32_t kForkReserve = 8;

// What may come from remembered pages: all but the last token, whose logits are wanted.
absl::Span<const uint32_t> Reusable(const Sequence& sequence) {
  return absl::MakeConstSpan(sequence.tokens).first(sequence.tokens.size() - 1);
}

RowDraw MakeDraw(const Sequence& sequence) {
  const SamplingSettings& sampling = sequence.request->spec.sampling;
  const bool penalised = sampling.penalties.any();
  return {.temperature = sampling.temperature,
          .top_k = sampling.top_k,
          .top_p = sampling.top_p,
          .min_p = sampling.min_p,
          .noise = {sequence.noise_key, sequence.completion_tokens()},
          .banned = sequence.stop.banned(sequence.completion_tokens()),
          .untempered = sampling.untempered_logprobs,
          .penalties = sampling.penalties,
          .seen = penalised ? sequence.tokens : std::vector<uint32_t>(),
          .prompt_tokens = sequence.prompt_tokens};
}

}  // namespace

EngineCore::EngineCore(EngineOptions options, StepModel& model, const text::ModelText& text,
                       const sync::Clock& clock, SiblingObserver observer)
    : options_(options),
      model_(model),
      text_(text),
      clock_(clock),
      observer_(std::move(observer)),
      pool_(model.limits().pages, model.limits().page_tokens, options.prefix_cache) {}

void EngineCore::Add(std::shared_ptr<Request> request) {
  const GenerateSpec& spec = request->spec;
  for (uint32_t sibling : spec.siblings) {
    DrawKey key = {.seed = spec.sampling.seed,
                   .data_epoch = spec.group.data_epoch,
                   .prompt = spec.group.prompt,
                   .attempt = spec.group.attempt,
                   .sibling = sibling,
                   .turn = spec.turn};
    waiting_.push_back(std::make_shared<Sequence>(
        Sequence{.id = next_id_++,
                 .request = request,
                 .sibling = sibling,
                 .noise_key = PhiloxKey(key),
                 .stop = request->fresh_check,
                 .tokens = spec.prompt,
                 .prompt_tokens = static_cast<uint32_t>(spec.prompt.size())}));
    ++request->unstarted;
  }
}

absl::StatusOr<bool> EngineCore::Step() {
  const StepPlan plan = PlanStep(Snapshot());
  if (under_way_.has_value() && (plan.work.empty() || !plan.preempted.empty())) {
    // What it gives back may be enough.
    REIN_RETURN_IF_ERROR(Settle());
    return true;
  }
  Apply(plan);
  if (plan.work.empty()) return false;
  UnderWay step{.version = version_};
  REIN_ASSIGN_OR_RETURN(StepBatch batch, BuildBatch(plan, step.drawing));
  REIN_RETURN_IF_ERROR(model_.Begin(batch));
  ++totals_.steps;
  totals_.computed_tokens += batch.tokens.size();
  std::optional<UnderWay> before = std::exchange(under_way_, std::move(step));
  if (before.has_value()) REIN_RETURN_IF_ERROR(CollectEarliest(*before));
  if (!model_.limits().ahead) REIN_RETURN_IF_ERROR(Settle());
  return true;
}

absl::Status EngineCore::Settle() {
  if (!under_way_.has_value()) return absl::OkStatus();
  return CollectEarliest(*std::exchange(under_way_, std::nullopt));
}

absl::Status EngineCore::CollectEarliest(const UnderWay& step) {
  REIN_ASSIGN_OR_RETURN(Draws draws, model_.Collect());
  return Commit(draws, step);
}

EngineSnapshot EngineCore::Snapshot() const {
  EngineSnapshot snapshot = {.available_pages = pool_.available(),
                             .page_tokens = pool_.page_tokens(),
                             .max_running = options_.max_running,
                             .step_tokens = options_.step_tokens,
                             .admit_new = admit_new_};
  for (const SequencePtr& sequence : running_) {
    if (sequence->ending()) {
      --snapshot.max_running;
      continue;
    }
    snapshot.running.push_back({.id = sequence->id,
                                .known_tokens = static_cast<int32_t>(sequence->known_tokens()),
                                .computed_tokens = static_cast<int32_t>(sequence->computed_tokens),
                                .pages = static_cast<int32_t>(sequence->pages.size()),
                                .own_pages = pool_.CountOwn(sequence->pages)});
  }
  if (running_.size() >= static_cast<size_t>(options_.max_running)) return snapshot;
  // Whose prompt is being computed, or is about to be: siblings that need it too wait for its pages.
  std::unordered_set<const Request*> computing, seen;
  for (const SequencePtr& sequence : running_) {
    if (sequence->computed_tokens < sequence->prompt_tokens) computing.insert(sequence->request.get());
  }
  for (size_t i = 0; i < std::min(waiting_.size(), kMaxPlannedWaiting); ++i) {
    const Sequence& sequence = *waiting_[i];
    const Request* request = sequence.request.get();
    WaitingSequence view = {.id = sequence.id,
                            .known_tokens = static_cast<int32_t>(sequence.known_tokens()),
                            .started = sequence.started()};
    // One sibling at a time computes the prompt.
    if (!view.started) {
      view.blocked = request->leader.has_value() || !seen.insert(request).second;
    }
    if (!view.blocked) {
      std::vector<int32_t> pages = pool_.Match(version_, Reusable(sequence));
      view.cached_tokens = static_cast<int32_t>(pages.size()) * pool_.page_tokens();
      view.unused_pages = pool_.CountUnused(pages);
      const int32_t whole = static_cast<int32_t>(sequence.prompt_tokens) / pool_.page_tokens();
      if (view.started && options_.prefix_cache && static_cast<int32_t>(pages.size()) < whole) {
        view.blocked = !computing.insert(request).second;
      }
    }
    snapshot.waiting.push_back(view);
  }
  return snapshot;
}

void EngineCore::Apply(const StepPlan& plan) {
  for (uint64_t id : plan.preempted) {
    auto it = std::find_if(running_.begin(), running_.end(),
                           [id](const SequencePtr& sequence) { return sequence->id == id; });
    PutBack(static_cast<size_t>(it - running_.begin()));
    ++totals_.preemptions;
  }
  for (uint64_t id : plan.admitted) Admit(id);
}

// Back to the front of the line, without its pages.
void EngineCore::PutBack(size_t running_index) {
  SequencePtr sequence = std::move(running_[running_index]);
  running_.erase(running_.begin() + static_cast<ptrdiff_t>(running_index));
  ReleasePages(*sequence);
  if (sequence->request->leader == sequence->id) sequence->request->leader.reset();
  if (!sequence->started()) ++sequence->request->unstarted;
  waiting_.push_front(std::move(sequence));
}

void EngineCore::Admit(uint64_t id) {
  auto it = std::find_if(waiting_.begin(), waiting_.end(),
                         [id](const SequencePtr& sequence) { return sequence->id == id; });
  SequencePtr sequence = std::move(*it);
  waiting_.erase(it);
  sequence->pages = pool_.Match(version_, Reusable(*sequence));
  for (int32_t page : sequence->pages) pool_.Share(page);
  sequence->remembered_pages = static_cast<uint32_t>(sequence->pages.size());
  sequence->computed_tokens =
      sequence->remembered_pages * static_cast<uint32_t>(pool_.page_tokens());
  sequence->computed_under = version_;
  totals_.prefix_queries_tokens += sequence->known_tokens();
  totals_.prefix_hits_tokens += sequence->computed_tokens;
  if (sequence->admitted == absl::InfinitePast()) sequence->admitted = clock_.Now();
  if (!sequence->started()) {
    sequence->request->leader = sequence->id;
    --sequence->request->unstarted;
  }
  running_.push_back(std::move(sequence));
}

absl::StatusOr<StepBatch> EngineCore::BuildBatch(const StepPlan& plan,
                                                 std::vector<SequencePtr>& drawing) {
  StepBatch batch;
  size_t at = 0;  // the plan has the order of running_
  for (const StepWork& work : plan.work) {
    while (running_[at]->id != work.id) ++at;
    const SequencePtr& sequence = running_[at];
    REIN_RETURN_IF_ERROR(AddWork(*sequence, static_cast<uint32_t>(work.tokens), batch));
    if (sequence->computed_tokens < sequence->known_tokens()) continue;
    const int64_t last = static_cast<int64_t>(batch.tokens.size()) - 1;
    batch.draws.push_back({last, MakeDraw(*sequence)});
    drawing.push_back(sequence);
  }
  // Only now: the plan's own work has its pages.
  const size_t planned = drawing.size();
  for (size_t i = 0; i < planned; ++i) {
    if (!drawing[i]->started()) ForkSiblings(*drawing[i], batch.draws[i].at_token, batch, drawing);
  }
  for (size_t i = 0; i < drawing.size(); ++i) {
    ++drawing[i]->awaited;
    drawing[i]->draw_index = i;
  }
  return batch;
}

absl::Status EngineCore::AddWork(Sequence& sequence, uint32_t tokens, StepBatch& batch) {
  const uint32_t page_tokens = static_cast<uint32_t>(pool_.page_tokens());
  const uint32_t end = sequence.computed_tokens + tokens;
  while (sequence.pages.size() * page_tokens < end) {
    std::optional<int32_t> page = pool_.Take();
    if (!page.has_value()) return absl::InternalError("a step was planned beyond the free pages");
    sequence.pages.push_back(*page);
  }
  for (uint32_t i = sequence.computed_tokens; i < end; ++i) {
    batch.tokens.push_back(i < sequence.tokens.size() ? int64_t{sequence.tokens[i]}
                                                      : DrawnBefore(sequence.draw_index));
    batch.positions.push_back(i);
    batch.slots.push_back(int64_t{sequence.pages[i / page_tokens]} * page_tokens + i % page_tokens);
    if (i < sequence.prompt_tokens) ++totals_.prompt_tokens;
  }
  batch.offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
  batch.pages.push_back(sequence.pages);
  batch.contexts.push_back(end);
  sequence.computed_tokens = end;
  return absl::OkStatus();
}

// The leader's prompt is computed in this step: the siblings that fit begin from it.
void EngineCore::ForkSiblings(Sequence& leader, int64_t last_token, StepBatch& batch,
                              std::vector<SequencePtr>& drawing) {
  leader.request->leader.reset();
  for (size_t i = 0; leader.request->unstarted > 0;) {
    Sequence& follower = *waiting_[i];
    if (follower.request != leader.request || follower.started()) {
      ++i;
      continue;
    }
    if (!Fork(leader, follower, batch)) return;
    batch.draws.push_back({last_token, MakeDraw(follower)});
    drawing.push_back(waiting_[i]);
    --leader.request->unstarted;
    running_.push_back(std::move(waiting_[i]));
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
  }
}

bool EngineCore::Fork(const Sequence& leader, Sequence& follower, StepBatch& batch) {
  const int32_t running = static_cast<int32_t>(running_.size());
  // Some pages are left for the ones that run, lest they are preempted at once.
  if (running >= options_.max_running || pool_.available() < 1 + running / kForkReserve) {
    return false;
  }
  const uint32_t page_tokens = static_cast<uint32_t>(pool_.page_tokens());
  const uint32_t whole = leader.prompt_tokens / page_tokens;
  follower.pages.assign(leader.pages.begin(), leader.pages.begin() + whole);
  for (int32_t page : follower.pages) pool_.Share(page);
  if (leader.prompt_tokens % page_tokens != 0) {
    int32_t copy = *pool_.Take();
    batch.copies.push_back({leader.pages[whole], copy});
    follower.pages.push_back(copy);
  }
  follower.remembered_pages = whole;  // by the leader
  follower.computed_tokens = leader.prompt_tokens;
  follower.computed_under = leader.computed_under;
  follower.admitted = clock_.Now();
  totals_.prefix_queries_tokens += leader.prompt_tokens;
  totals_.prefix_hits_tokens += leader.prompt_tokens;
  return true;
}

absl::Status EngineCore::Commit(const Draws& draws, const UnderWay& step) {
  if (draws.token.size() != step.drawing.size() || draws.logprob.size() != step.drawing.size()) {
    return absl::InternalError(
        absl::StrCat("the model drew ", draws.token.size(), " tokens, want ", step.drawing.size()));
  }
  for (const SequencePtr& sequence : running_) RememberPages(*sequence);
  const absl::Time now = clock_.Now();
  for (size_t i = 0; i < step.drawing.size(); ++i) {
    Sequence& sequence = *step.drawing[i];
    if (sequence.finished) continue;
    if (sequence.logprobs.empty()) sequence.first_token = now;
    --sequence.awaited;
    sequence.tokens.push_back(draws.token[i]);
    sequence.logprobs.push_back(draws.logprob[i]);
    if (sequence.request->spec.sampling.untempered_logprobs) {
      sequence.untempered_logprobs.push_back(draws.untempered_logprob[i]);
    }
    if (sequence.versions.empty() || sequence.versions.back().version != step.version) {
      sequence.versions.push_back({step.version, 0});
    }
    ++sequence.versions.back().tokens;
    ++totals_.generated_tokens;
    REIN_ASSIGN_OR_RETURN(std::optional<FinishReason> reason, sequence.stop.Append(draws.token[i]));
    if (sequence.request->callbacks.on_token) {
      sequence.request->callbacks.on_token(sequence.sibling, draws.token[i], draws.logprob[i]);
    }
    if (reason.has_value()) Finish(sequence, *reason);
  }
  RemoveFinished();
  return absl::OkStatus();
}

// Its own tokens name a page: one that ends with an awaited token is remembered later.
void EngineCore::RememberPages(Sequence& sequence) {
  if (sequence.computed_under != version_) return;
  const auto here = static_cast<uint32_t>(sequence.tokens.size());
  const uint32_t full =
      std::min(sequence.computed_tokens, here) / static_cast<uint32_t>(pool_.page_tokens());
  for (; sequence.remembered_pages < full; ++sequence.remembered_pages) {
    pool_.Remember(sequence.pages[sequence.remembered_pages], version_, sequence.tokens,
                   static_cast<int32_t>(sequence.remembered_pages));
  }
}

void EngineCore::ReleasePages(Sequence& sequence) {
  // From the end, so that the beginning of a prompt is remembered longest.
  std::for_each(sequence.pages.rbegin(), sequence.pages.rend(),
                [this](int32_t page) { pool_.Release(page); });
  sequence.pages.clear();
  sequence.computed_tokens = 0;
  sequence.remembered_pages = 0;
  sequence.computed_under.reset();
}

void EngineCore::Finish(Sequence& sequence, FinishReason reason) {
  sequence.finished = true;
  sequence.awaited = 0;
  std::string expert_choices;
  if (reason != FinishReason::kAbort && !sequence.pages.empty()) {  // before others write to its pages
    absl::StatusOr<std::string> choices = model_.ExpertChoices(sequence.pages, sequence.tokens.size() - 1);
    if (choices.ok()) expert_choices = *std::move(choices);
  }
  RememberPages(sequence);
  ReleasePages(sequence);
  Request& request = *sequence.request;
  if (request.leader == sequence.id) request.leader.reset();
  const absl::Time now = clock_.Now();
  const uint32_t tokens = sequence.completion_tokens();
  if (observer_) {
    observer_({.prompt_tokens = sequence.prompt_tokens,
               .completion_tokens = tokens,
               .reason = reason,
               .queued = std::max(sequence.admitted, request.submitted) - request.submitted,
               .first_token = std::max(sequence.first_token, request.submitted) - request.submitted,
               .total = now - request.submitted,
               .between_tokens = tokens > 1 ? (now - sequence.first_token) / (tokens - 1.0)
                                            : absl::ZeroDuration()});
  }
  FinishedSibling result = {
      .sibling = sequence.sibling,
      .tokens = {sequence.tokens.begin() + sequence.prompt_tokens, sequence.tokens.end()},
      .logprobs = std::move(sequence.logprobs),
      .untempered_logprobs = std::move(sequence.untempered_logprobs),
      .versions = std::move(sequence.versions),
      .reason = reason};
  result.expert_choices = std::move(expert_choices);
  if (text_.has_tokenizer()) result.text = text_.Decode(result.tokens).value_or("");
  request.callbacks.on_sibling(std::move(result));
  if (--request.unfinished == 0) request.callbacks.on_end(absl::OkStatus());
}

void EngineCore::RemoveFinished() {
  auto finished = [](const SequencePtr& sequence) { return sequence->finished; };
  running_.erase(std::remove_if(running_.begin(), running_.end(), finished), running_.end());
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), finished), waiting_.end());
}

uint32_t EngineCore::Abort(const std::function<bool(const Request&)>& which) {
  uint32_t aborted = 0;
  auto abort = [&](const SequencePtr& sequence) {
    if (!which(*sequence->request)) return;
    Finish(*sequence, FinishReason::kAbort);
    ++aborted;
  };
  std::for_each(running_.begin(), running_.end(), abort);
  for (const SequencePtr& sequence : waiting_) {
    if (which(*sequence->request) && !sequence->started()) --sequence->request->unstarted;
    abort(sequence);
  }
  RemoveFinished();
  return aborted;
}

void EngineCore::FailAll(const absl::Status& status) {
  if (std::exchange(under_way_, std::nullopt).has_value()) (void)model_.Collect();
  std::unordered_set<Request*> requests;
  for (const SequencePtr& sequence : running_) {
    ReleasePages(*sequence);
    requests.insert(sequence->request.get());
  }
  for (const SequencePtr& sequence : waiting_) requests.insert(sequence->request.get());
  for (Request* request : requests) request->callbacks.on_end(status);
  running_.clear();
  waiting_.clear();
  pool_.Forget();
}

void EngineCore::UseVersion(const PolicyVersion& version, bool recompute) {
  version_ = version;
  for (size_t i = running_.size(); i > 0; --i) {
    running_[i - 1]->computed_under.reset();
    if (recompute || !running_[i - 1]->started()) PutBack(i - 1);
  }
  pool_.Forget();
}

bool EngineCore::in_flight() const {
  return !running_.empty() ||
         std::any_of(waiting_.begin(), waiting_.end(),
                     [](const SequencePtr& sequence) { return sequence->started(); });
}

EngineStats EngineCore::stats() const {
  EngineStats stats = totals_;
  stats.version = version_;
  stats.running = static_cast<uint32_t>(running_.size());
  stats.waiting = static_cast<uint32_t>(waiting_.size());
  stats.kv_usage = 1.0 - static_cast<double>(pool_.available()) / pool_.capacity();
  return stats;
}

}  // namespace rein::rollout
