#include "services/controller/run_loop.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/config/corpus_split.h"
#include "common/config/reward_rule.h"
#include "common/status/status_macros.h"
#include "services/controller/memory_text.h"
#include "services/controller/prompt_length.h"

namespace rein::services {
namespace {

constexpr absl::Duration kLoadDeadline = absl::Minutes(30);
// Completions of a generate job that are asked for at a time, and the least number of its prompts.
constexpr uint64_t kInFlight = 1024, kLeastInFlight = 16;

void SetCurrentPlan(const v1::JobConfig& config, uint64_t prompts, Plan& plan) {
  const uint64_t one_pass = plan.groups_per_update == 0
                                ? 0
                                : (prompts + plan.groups_per_update - 1) / plan.groups_per_update;
  if (const v1::GrpoConfig* rl = config::PolicyGradientOf(config)) {
    plan.updates = rl->has_updates() ? rl->updates() : one_pass;
  }
  const std::optional<config::TextJob> text = config::TextJobOf(config);
  if (!text) return;
  if (config.has_pretrain() && !text->updates) {  // the corpus counts its passes itself
    plan.updates = one_pass;
    return;
  }
  const double passes = text->passes * static_cast<double>(prompts);
  plan.updates = text->updates ? *text->updates
                               : static_cast<uint64_t>(std::ceil(
                                     passes / static_cast<double>(plan.groups_per_update)));
}

}  // namespace

Plan PlanOf(const v1::JobConfig& config, uint64_t prompts) {
  Plan plan;
  const bool collects = config.has_generate() || config.has_score();  // then data.eval is what they go through
  const bool held_out = config.data().has_eval() && !collects;
  plan.evaluates = held_out && !config.rewards().empty();
  plan.validates = (held_out && config::LearnsAnswers(config) &&
                    (config.rewards().empty() || config.eval().patience() > 0)) ||
                   config::HoldsOut(config) || config::MeasuresHeldOut(config);
  plan.eval_every = config.eval().every();
  plan.checkpoint_every = config.checkpoint().every();
  if (const v1::GrpoConfig* rl = config::PolicyGradientOf(config)) {
    plan.kind = Plan::Kind::kRollouts;
    plan.one_pass = !rl->has_updates();
    plan.groups_per_update = rl->prompts();
    plan.group_size = rl->group_size();
    plan.greedy_sibling = rl->advantage() == v1::ADVANTAGE_GREEDY_BASELINE;
    plan.needs_signal = rl->dynamic_sampling();
    plan.staleness = rl->staleness();
    plan.out_of_order = rl->when_stale() == v1::STALE_POLICY_DROP || rl->when_stale() == v1::STALE_POLICY_CORRECT;
    plan.drops_stale = rl->when_stale() == v1::STALE_POLICY_DROP;
    plan.drains = config.rollout().in_flight() == v1::IN_FLIGHT_FINISH;
    plan.reference = rl->kl().coefficient() > 0;
    plan.scores = !config.rewards().empty();
  } else if (const std::optional<config::TextJob> text = config::TextJobOf(config)) {
    plan.kind = Plan::Kind::kTexts;
    plan.groups_per_update = text->lines;
    plan.generates = plan.scores = false;
    plan.reference = plan.teacher = config.has_distill();
  } else if (config.has_generate()) {
    plan.kind = Plan::Kind::kCollect;
    plan.one_pass = true;
    plan.group_size = config.generate().samples();
    plan.groups_per_update = std::max<uint64_t>(kLeastInFlight, kInFlight / plan.group_size);
    plan.scores = !config.rewards().empty();
  } else if (config.has_score()) {
    plan.kind = Plan::Kind::kCollect;
    plan.one_pass = true;
    plan.group_size = 1;
    plan.groups_per_update = kInFlight;
    plan.generates = plan.scores = false;
    plan.reference = true;
  } else {
    plan.kind = Plan::Kind::kEvaluate;
  }
  plan.reward_models = config::UsesRewardModels(config);
  SetCurrentPlan(config, prompts, plan);
  return plan;
}

absl::StatusOr<std::unique_ptr<RunLoop>> RunLoop::Begin(RunDependencies deps, JobRecord& job) {
  REIN_ASSIGN_OR_RETURN(auto ledger, Ledger::Open(deps.store, job.name));
  auto run = std::unique_ptr<RunLoop>(new RunLoop(std::move(deps), job, std::move(ledger)));
  REIN_ASSIGN_OR_RETURN(run->state_.checkpoints, run->state_.deps.store.ReadCheckpoints(job.name));
  REIN_ASSIGN_OR_RETURN(auto evals, run->state_.deps.store.ReadEvals(job.name));
  for (v1::EvalResult& eval : evals) {
    run->evaluated_[eval.update()] = std::move(eval);
  }
  run->StopEarly();
  for (const auto& [order, group] : run->ledger_->groups()) run->NotePassRate(group);
  job.max_updates = run->state_.plan.updates;
  REIN_RETURN_IF_ERROR(run->state_.deps.store.UpdateJob(job));
  REIN_RETURN_IF_ERROR(run->state_.deps.store.Commit());
  return run;
}

RunLoop::RunLoop(RunDependencies deps, JobRecord& job, std::unique_ptr<Ledger> ledger)
    : mailbox_(deps.wake),
      ledger_(std::move(ledger)),
      pool_(deps.connector, job.config.placement()),
      state_{.deps = deps,
             .job = job,
             .ledger = *ledger_,
             .pool = pool_,
             .mailbox = mailbox_,
             .plan = PlanOf(job.config, deps.train == nullptr ? 0 : deps.train->size()),
             .times = {.last_update = deps.clock.Now()}},
      order_(deps.train == nullptr ? 1 : deps.train->size(),
             job.config.data().shuffle() && !job.config.has_pretrain() &&
                 state_.plan.kind != Plan::Kind::kCollect,
             job.config.seed()),
      kept_epoch_(job.cursor_epoch),
      episodes_(state_),
      trainer_(state_) {}

RunLoop::~RunLoop() { pool_.Refresh({}); }  // ends every call before the members go

absl::Time RunLoop::Step() {
  mailbox_.Drain();
  absl::Time next_expiry = state_.deps.registry.ExpireLeases();
  RefreshActors();
  while (!state_.outcome.has_value() && !PauseNow()) {
    if (evaluation_.has_value()) {
      // A trainer that was lost may have taken the weights in question with it.
      if (evaluation_->update() != state_.job.updates_done) {
        ForgetEvaluation();
      } else if (evaluation_->Done()) {
        EndEvaluation();
      }
    }
    // An episode that failed is scored when it comes, so that a group may have nothing left to wait for.
    if (plays() || (!state_.plan.scores && !state_.plan.reference)) CloseFinished();
    Snapshot snapshot = TakeSnapshot();
    Action action = NextAction(snapshot);
    if (action.kind == ActionKind::kWait) {
      waits_for_ = WaitsFor(snapshot);
      state_.Commit();
      return std::min(next_expiry, action.deadline);
    }
    Start(action);
    if (action.kind == ActionKind::kWriteResults) break;  // others may want the thread between two parts
  }
  if (!state_.outcome.has_value()) state_.Commit();
  return state_.deps.clock.Now();
}

void RunLoop::Pause() {
  state_.job.pausing = true;
  state_.SaveJob();
  state_.Commit();
}

bool RunLoop::PauseNow() {
  if (!state_.job.pausing || trainer_.View().busy) return false;
  bool saved = state_.job.updates_done == 0 ||
               (!state_.checkpoints.empty() &&
                state_.checkpoints.back().update() >= state_.job.updates_done);
  bool in_place = trainer_.View().loaded && trainer_.View().version == state_.Current();
  if (!saved && in_place) {
    trainer_.Start({.kind = ActionKind::kSave});
    return false;
  }
  state_.job.pausing = false;  // stored with the new state, by whoever asked
  state_.outcome = Outcome{.state = v1::JOB_STATE_PAUSED};
  return true;
}

void RunLoop::RefreshActors() {
  std::string trainer = pool_.trainer() == nullptr ? "" : pool_.trainer()->actor.name();
  std::set<std::string> references;
  for (const ActorView& reference : pool_.Views("reference")) references.insert(reference.name);
  for (const std::string& name : pool_.Refresh(state_.deps.registry.ActorsOf(state_.deps.group))) {
    Forget(generating_, name);
    Forget(scoring_, name);
    Forget(referencing_, name);
    if (name == trainer) trainer_.OnLeft();
    // Calls that went to its reward models are made again, to others.
    if (state_.plan.reward_models && references.count(name) > 0) {
      for (auto work = scoring_.begin(); work != scoring_.end();) {
        const auto [key, item] = *work++;
        Finish(scoring_, key, item.call, absl::OkStatus());
      }
    }
    state_.Tell(absl::StrCat(name, " was lost; its work is given to others"));
  }
  CompareBuilds();
}

void RunLoop::CompareBuilds() {
  const std::string difference = pool_.BuildDifference();
  if (difference == build_difference_) return;
  build_difference_ = difference;
  if (!difference.empty()) state_.Tell(absl::StrCat("WARNING: ", difference));
}

void RunLoop::Forget(std::map<Key, Work>& under_way, const std::string& actor) {
  std::erase_if(under_way, [&](const auto& item) {
    if (item.second.actor != actor) return false;
    episodes_.Forget(item.second.call);
    return true;
  });
}

Snapshot RunLoop::TakeSnapshot() {
  const JobRecord& job = state_.job;
  Snapshot snapshot{.now = state_.deps.clock.Now(), .plan = state_.plan};
  snapshot.current = state_.Current();
  snapshot.open_groups = ledger_->open().size();
  snapshot.more_prompts =
      state_.deps.train != nullptr && (!state_.plan.one_pass || job.cursor_epoch == 0);
  snapshot.has_checkpoint = !state_.checkpoints.empty();
  if (snapshot.has_checkpoint) snapshot.checkpoint_update = state_.checkpoints.back().update();
  snapshot.evaluated = evaluated_.count(job.updates_done) > 0;
  snapshot.evaluating = evaluation_.has_value();
  snapshot.validating = evaluation_.has_value() && evaluation_->validating();
  snapshot.exported = state_.exported;
  snapshot.trainer = trainer_.View();
  snapshot.generators = pool_.Views("rollout");
  for (ActorView& generator : snapshot.generators) generator.waits = !snapshot.trainer.loaded && !pool_.Find(generator.name)->actor.device_id().empty();
  snapshot.references = pool_.Views("reference");
  snapshot.rewarders = pool_.Views("reward");
  AddGroups(snapshot);
  AddHeldOut(snapshot);
  return snapshot;
}

// Rollouts of the group at `position` among the open ones are for update u (out of order: for the next one); they
// may come from the weights of u - 1 - staleness or later.
uint64_t RunLoop::OldestVersion(uint64_t position) const {
  if (state_.plan.out_of_order) position = 0;
  uint64_t behind = state_.job.updates_done + position / state_.plan.groups_per_update;
  return behind - std::min<uint64_t>(behind, state_.plan.staleness);
}

// The next Update takes what was begun by the weights that it trains, or at most `staleness` Updates before.
bool RunLoop::IsStale(const Group& group) const {
  const bool begun = group.state == GroupState::kGenerating || group.state == GroupState::kFinished ||
                     group.state == GroupState::kScored;
  return begun && group.version.number() + state_.plan.staleness < state_.job.updates_done;
}

void RunLoop::AddGroups(Snapshot& snapshot) const {
  snapshot.ready_groups = ledger_->Ready(!state_.plan.out_of_order).size();
  uint64_t position = 0;
  for (const auto& [order, state] : ledger_->open()) {
    const Key key{false, order};
    auto retry = retries_.find(key);
    WaitingGroup waiting{.order = order, .oldest_version = OldestVersion(position++)};
    if (retry != retries_.end()) waiting.not_before = retry->second.not_before;
    if (state == GroupState::kTraining) snapshot.training_pending = true;
    if (state_.plan.drops_stale && IsStale(*ledger_->Find(order))) snapshot.stale.push_back(waiting);
    if (state == GroupState::kIssued || state == GroupState::kGenerating) {
      if (generating_.count(key) == 0) snapshot.to_generate.push_back(waiting);
    } else if (state == GroupState::kFinished) {
      if (scoring_.count(key) == 0 && !SiblingsToScore(key).empty()) {
        snapshot.to_score.push_back(waiting);
      }
      const bool referenced = Referenced(*ledger_->Find(order));
      if (!referenced && referencing_.count(key) == 0) snapshot.to_reference.push_back(waiting);
    }
  }
}

void RunLoop::AddHeldOut(Snapshot& snapshot) const {
  if (!evaluation_.has_value()) return;
  const std::vector<Evaluation::Item>& items = evaluation_->items();
  for (uint64_t i = 0; i < items.size(); ++i) {
    const Key key{true, i};
    if (items[i].done()) continue;
    auto retry = retries_.find(key);
    WaitingGroup waiting{.order = i, .held_out = true};
    if (retry != retries_.end()) waiting.not_before = retry->second.not_before;
    if (!items[i].generated()) {
      if (generating_.count(key) == 0) snapshot.to_generate.push_back(waiting);
    } else if (scoring_.count(key) == 0) {
      snapshot.to_score.push_back(waiting);
    }
  }
}

void RunLoop::Start(const Action& action) {
  switch (action.kind) {
    case ActionKind::kLoadGenerator:
      return LoadGenerator(action.actor);
    case ActionKind::kLoadReference:
      return LoadReference(action.actor);
    case ActionKind::kEvaluate:
      return BeginEvaluation();
    case ActionKind::kValidate:
      return Validate();
    case ActionKind::kCollect:
      return Collect(action.count);
    case ActionKind::kWriteResults:
      return WriteResults();
    case ActionKind::kDropStale:
      return DropStale(action);
    case ActionKind::kIssue:
      return Issue(action.count);
    case ActionKind::kGenerate:
      return Generate(action);
    case ActionKind::kScore:
      return Score(action);
    case ActionKind::kScoreReference:
      return ScoreReference(action);
    case ActionKind::kFinish:
      state_.outcome = Outcome{.state = v1::JOB_STATE_SUCCEEDED};
      return;
    case ActionKind::kWait:
      return;
    default:
      return trainer_.Start(action);
  }
}

void RunLoop::LoadGenerator(const std::string& name) {
  PooledActor& actor = *pool_.Find(name);
  actor.view.busy = true;
  const bool references = state_.plan.reference || state_.plan.reward_models;
  v1::LoadModelRequest request;
  *request.mutable_fence() = state_.FreshFence(actor.actor, "load-rollout");
  *request.mutable_model() = state_.job.config.model();
  *request.mutable_rollout() = state_.job.config.rollout();
  request.set_expert_choices(state_.job.config.trainer().router().replay());
  request.set_reserved_bytes(pool_.ReservedBeside(actor.actor, trainer_.coming_bytes(), references ? trainer_.parameters() : 0));
  actor.generator->Load(
      request, kLoadDeadline, [this, name, epoch = actor.actor.epoch()](auto reply) {
        mailbox_.Post(
            [this, name, epoch, reply = std::move(reply)] { OnLoaded(name, epoch, reply); });
      });
}

void RunLoop::LoadReference(const std::string& name) {
  PooledActor& actor = *pool_.Find(name);
  actor.view.busy = true;
  v1::LoadModelRequest request;
  *request.mutable_fence() = state_.FreshFence(actor.actor, "load-reference");
  if (state_.plan.reference) *request.mutable_model() = state_.job.config.model();
  const v1::GrpoConfig* rl = config::PolicyGradientOf(state_.job.config);
  const std::string teacher = rl != nullptr ? rl->kl().reference() : state_.job.config.distill().teacher();
  if (state_.plan.reference && !teacher.empty()) {
    request.mutable_model()->clear_config();
    request.mutable_model()->clear_lora();
    request.mutable_model()->clear_freeze();
    request.mutable_model()->clear_base();
    request.mutable_model()->set_path(teacher);
    request.set_weights_path(teacher);
  }
  for (const v1::RewardConfig& reward : state_.job.config.rewards()) {
    if (reward.has_model()) *request.add_reward_models() = reward.model();
  }
  actor.reference->Load(
      request, kLoadDeadline, [this, name, epoch = actor.actor.epoch()](auto reply) {
        mailbox_.Post(
            [this, name, epoch, reply = std::move(reply)] { OnLoaded(name, epoch, reply); });
      });
}

template <typename Reply>
void RunLoop::OnLoaded(const std::string& name, uint64_t epoch,
                       const absl::StatusOr<Reply>& reply) {
  PooledActor* actor = pool_.Find(name);
  if (actor == nullptr || actor->actor.epoch() != epoch) return;
  if (!reply.ok()) {
    actor->view.busy = false;
    actor->view.not_before = state_.deps.clock.Now() + RetryPause(++actor->failures);
    if (!IsTransient(reply.status()) || IsFinalRefusal(reply.status(), actor->failures)) {
      state_.Fail(
          absl::StrCat(name, " cannot load the model: ", std::string(reply.status().message())));
    }
    return;
  }
  if (reply->memory_size() > 0) state_.Tell(absl::StrCat(name, " plans ", MemoryText(reply->memory())));
  // Which weights it holds already: after a restart of this process, say.
  auto on_status = [this, name, epoch](absl::StatusOr<v1::ActorStatusReply> status) {
    mailbox_.Post([this, name, epoch, status = std::move(status)]() mutable {
      OnStatus(name, epoch, std::move(status));
    });
  };
  if (actor->generator != nullptr) {
    actor->generator->Status(absl::Seconds(10), on_status);
  } else {
    actor->reference->Status(absl::Seconds(10), on_status);
  }
}

void RunLoop::OnStatus(const std::string& name, uint64_t epoch,
                       absl::StatusOr<v1::ActorStatusReply> reply) {
  PooledActor* actor = pool_.Find(name);
  if (actor == nullptr || actor->actor.epoch() != epoch) return;
  actor->view.busy = false;
  if (!reply.ok()) {
    actor->view.not_before = state_.deps.clock.Now() + RetryPause(++actor->failures);
    return;
  }
  actor->view.loaded = true;
  actor->view.has_weights = reply->has_version();
  actor->view.version = FromProto(reply->version());
}

void RunLoop::BeginEvaluation() {
  absl::StatusOr<Evaluation> evaluation =
      Evaluation::Begin(state_.deps.held_out, state_.job.config, state_.job.updates_done,
                        state_.plan.evaluates, state_.plan.validates);
  if (!state_.Check(evaluation.status())) return;
  evaluation_ = *std::move(evaluation);
}

void RunLoop::EndEvaluation() {
  v1::EvalResult result = evaluation_->Result();
  ForgetEvaluation();
  RecordEval(result);
  StopEarly();
}

void RunLoop::RecordEval(const v1::EvalResult& result) {
  evaluated_[result.update()] = result;
  state_.Check(state_.deps.store.PutEval(state_.job.name, result));
  v1::JobEvent event;
  *event.mutable_eval() = result;
  state_.Emit(std::move(event));
  if (state_.Commit()) state_.deps.recorder.OnEval(state_.job, result);
}

void RunLoop::StopEarly() {
  std::vector<v1::EvalResult> evals;
  for (const auto& [update, eval] : evaluated_) evals.push_back(eval);
  const uint64_t patience = state_.job.config.eval().patience();
  if (!OutOfPatience(evals, patience) || state_.plan.updates <= state_.job.updates_done) return;
  state_.plan.updates = state_.job.updates_done;
  state_.Tell(absl::StrCat("stops early at update ", state_.job.updates_done,
                           ": the held-out loss has not fallen in ", patience, " evaluations"));
}

void RunLoop::Validate() {
  trainer_.Validate(*state_.deps.held_out.front().prompts, evaluation_->next_line(),
                    [this](uint64_t lines, const v1::ScorePolicyReply& scores) {
                      if (evaluation_.has_value()) evaluation_->AddScores(lines, scores);
                    });
}

void RunLoop::ForgetEvaluation() {
  for (uint64_t i = 0; i < evaluation_->items().size(); ++i) Abandon({true, i});
  evaluation_.reset();
}

void RunLoop::Issue(uint64_t count) {
  JobRecord& job = state_.job;
  for (uint64_t i = 0; i < count; ++i) {
    if (state_.plan.one_pass && job.cursor_epoch > 0) break;
    uint64_t open = ledger_->open().size();
    if (!state_.Check(IssueNext())) return;
    if (ledger_->open().size() > open) kept_epoch_ = job.cursor_epoch;
    if (job.cursor_epoch > kept_epoch_ + 1) {
      return state_.Fail("every prompt of a whole pass over the data was dropped; see describe");
    }
  }
  state_.SaveJob();
  state_.Commit();
}

absl::Status RunLoop::IssueNext() {
  JobRecord& job = state_.job;
  const data::Cursor cursor{.data_epoch = job.cursor_epoch, .position = job.cursor_position};
  v1::GroupId id;
  id.set_data_epoch(cursor.data_epoch);
  id.set_prompt(order_.PromptAt(cursor));
  const data::Cursor next = order_.Next(cursor);
  job.cursor_epoch = next.data_epoch;
  job.cursor_position = next.position;
  const uint32_t siblings = state_.plan.group_size + (state_.plan.greedy_sibling ? 1 : 0);
  REIN_ASSIGN_OR_RETURN(uint64_t order, ledger_->Issue(id, siblings));
  if (state_.job.config.has_score()) REIN_RETURN_IF_ERROR(StoreText(order, id.prompt()));
  if (ledger_->Find(order)->state == GroupState::kDropped) return absl::OkStatus();
  if (std::string skipped = TooEasyOrHard(id.prompt()); !skipped.empty()) {
    return ledger_->Drop(order, skipped);
  }
  REIN_ASSIGN_OR_RETURN(ItemLength length, LengthOf(*state_.deps.train, id.prompt(), job.config));
  if (length.fault.empty()) return absl::OkStatus();
  REIN_RETURN_IF_ERROR(LeavesOut(job.config, length.fault));
  return ledger_->Drop(order, length.fault);
}

}  // namespace rein::services
