#include "services/controller/decision.h"

#include <algorithm>
#include <optional>

namespace rein::services {
namespace {

// Groups on one scorer at a time; the others wait in the ledger.
constexpr uint64_t kMaxScoringGroups = 32;

using MaybeAction = std::optional<Action>;

class Decider {
 public:
  explicit Decider(const Snapshot& s) : s_(s) {}

  Action Decide() const {
    for (auto rule :
         {&Decider::Load, &Decider::Evaluate, &Decider::Collect, &Decider::DropStale, &Decider::Issue, &Decider::Generate,
          &Decider::Score, &Decider::ScoreReference, &Decider::UseTrainer, &Decider::Finish}) {
      if (MaybeAction action = (this->*rule)()) return *action;
    }
    return {.kind = ActionKind::kWait, .deadline = NextRetry()};
  }

 private:
  bool Ready(absl::Time not_before) const { return not_before <= s_.now; }
  bool Final() const { return s_.plan.kind == Plan::Kind::kEvaluate || NothingLeft(); }

  // No update will be made any more.
  bool NothingLeft() const {
    if (!Collects() && s_.current.number >= s_.plan.updates) return true;
    return s_.open_groups == 0 && !s_.more_prompts;
  }

  bool Collects() const { return s_.plan.kind == Plan::Kind::kCollect; }

  bool EvalDue() const {
    if (!(s_.plan.evaluates || s_.plan.validates) || s_.evaluated) return false;
    uint64_t number = s_.current.number;
    bool regular = s_.plan.eval_every > 0 && number % s_.plan.eval_every == 0;
    return number == 0 || regular || Final();
  }

  bool SaveDue() const {
    uint64_t number = s_.current.number;
    if (number == 0 || (s_.has_checkpoint && s_.checkpoint_update >= number)) return false;
    bool regular = s_.plan.checkpoint_every > 0 && number % s_.plan.checkpoint_every == 0;
    return regular || Final();
  }

  bool NeedsGenerators() const {
    if (s_.plan.evaluates && (EvalDue() || s_.evaluating)) return true;
    if (s_.plan.kind != Plan::Kind::kRollouts && !Collects()) return false;
    return s_.plan.generates && !NothingLeft();
  }

  bool BatchReady() const {
    if (s_.training_pending) return true;
    if (s_.current.number >= s_.plan.updates || s_.ready_groups == 0) return false;
    if (s_.ready_groups >= s_.plan.groups_per_update) return true;
    return !s_.more_prompts && s_.ready_groups == s_.open_groups;  // the last, smaller one
  }

  // The trainer holds what the ledger says, or one update more whose answer was lost.
  bool TrainerInPlace() const {
    const TrainerView& t = s_.trainer;
    if (!t.loaded || t.version.lineage != s_.current.lineage) return false;
    return t.version == s_.current ||
           (s_.training_pending && t.version.number == s_.current.number + 1);
  }

  MaybeAction Load() const {
    if (NeedsGenerators()) {
      if (auto name = FirstUnloaded(s_.generators)) {
        return Action{.kind = ActionKind::kLoadGenerator, .actor = *name};
      }
    }
    if ((s_.plan.reference && !NothingLeft()) || (s_.plan.reward_models && NeedsGenerators())) {
      if (auto name = FirstUnloaded(s_.references)) {
        return Action{.kind = ActionKind::kLoadReference, .actor = *name};
      }
    }
    return std::nullopt;
  }

  std::optional<std::string> FirstUnloaded(const std::vector<ActorView>& actors) const {
    for (const ActorView& actor : actors) {
      if (!actor.loaded && !actor.busy && !actor.waits && Ready(actor.not_before)) return actor.name;
    }
    return std::nullopt;
  }

  MaybeAction Evaluate() const {
    if (!EvalDue() || s_.evaluating || s_.training_pending) return std::nullopt;
    bool somewhere =
        std::any_of(s_.generators.begin(), s_.generators.end(), [this](const ActorView& generator) {
          return generator.has_weights && generator.version == s_.current;
        });
    if (s_.plan.evaluates ? !somewhere : !TrainerInPlace()) return std::nullopt;
    return Action{.kind = ActionKind::kEvaluate};
  }

  MaybeAction Collect() const {
    if (!Collects() || s_.ready_groups == 0) return std::nullopt;
    return Action{.kind = ActionKind::kCollect, .count = s_.ready_groups};
  }

  MaybeAction DropStale() const {
    if (s_.stale.empty()) return std::nullopt;
    return Action{.kind = ActionKind::kDropStale, .groups = s_.stale};
  }

  // Rollouts for update u are begun once the weights of update u - 1 - staleness are in use.
  MaybeAction Issue() const {
    if (s_.plan.kind == Plan::Kind::kEvaluate || !s_.more_prompts) return std::nullopt;
    if (Collects()) {
      if (s_.plan.generates && !NewestWeights().has_value()) return std::nullopt;
      if (s_.open_groups >= s_.plan.groups_per_update) return std::nullopt;
      return Action{.kind = ActionKind::kIssue, .count = s_.plan.groups_per_update - s_.open_groups};
    }
    uint64_t ahead = 1;  // texts wait for nothing, but there is no use in being far ahead
    if (s_.plan.kind == Plan::Kind::kRollouts) {
      std::optional<uint64_t> newest = NewestWeights();
      if (!newest.has_value()) return std::nullopt;
      if (*newest + 1 + s_.plan.staleness <= s_.current.number) return std::nullopt;
      ahead = *newest + 1 + s_.plan.staleness - s_.current.number;
    }
    ahead = std::min(ahead, s_.plan.updates - std::min(s_.plan.updates, s_.current.number));
    uint64_t wanted = ahead * s_.plan.groups_per_update;
    if (s_.open_groups >= wanted) return std::nullopt;
    return Action{.kind = ActionKind::kIssue, .count = wanted - s_.open_groups};
  }

  std::optional<uint64_t> NewestWeights() const {
    std::optional<uint64_t> newest;
    for (const ActorView& generator : s_.generators) {
      if (!generator.has_weights || generator.version.lineage != s_.current.lineage) continue;
      newest = std::max(newest.value_or(0), generator.version.number);
    }
    return newest;
  }

  bool MayGenerate(const ActorView& generator, const WaitingGroup& group) const {
    if (!generator.loaded || !generator.has_weights || !Ready(generator.not_before)) return false;
    if (group.held_out) return generator.version == s_.current;
    if (s_.plan.drains && generator.version.number < s_.current.number) return false;
    return generator.version.number >= group.oldest_version;
  }

  // All waiting groups that fit the least loaded generator, in equal shares.
  MaybeAction Generate() const {
    const ActorView* best = nullptr;
    uint64_t able = 0;
    for (const ActorView& generator : s_.generators) {
      bool fits = std::any_of(s_.to_generate.begin(), s_.to_generate.end(), [&](const auto& group) {
        return Ready(group.not_before) && MayGenerate(generator, group);
      });
      if (!fits) continue;
      ++able;
      if (best == nullptr || generator.in_flight < best->in_flight) best = &generator;
    }
    if (best == nullptr) return std::nullopt;
    Action action{.kind = ActionKind::kGenerate, .actor = best->name};
    uint64_t share = (s_.to_generate.size() + able - 1) / able;
    for (const WaitingGroup& group : s_.to_generate) {
      if (action.groups.size() >= share) break;
      if (Ready(group.not_before) && MayGenerate(*best, group)) action.groups.push_back(group);
    }
    return action;
  }

  MaybeAction ScoreOn(const std::vector<ActorView>& actors, const std::vector<WaitingGroup>& groups,
                      ActionKind kind) const {
    const ActorView* best = nullptr;
    for (const ActorView& actor : actors) {
      if (!actor.loaded || !actor.has_weights || !Ready(actor.not_before)) continue;
      if (actor.in_flight >= kMaxScoringGroups) continue;
      if (best == nullptr || actor.in_flight < best->in_flight) best = &actor;
    }
    if (best == nullptr) return std::nullopt;
    Action action{.kind = kind, .actor = best->name};
    for (const WaitingGroup& group : groups) {
      if (best->in_flight + action.groups.size() >= kMaxScoringGroups) break;
      if (Ready(group.not_before)) action.groups.push_back(group);
    }
    if (action.groups.empty()) return std::nullopt;
    return action;
  }

  MaybeAction Score() const {
    const bool served = std::any_of(s_.references.begin(), s_.references.end(),
                                    [](const ActorView& reference) { return reference.loaded; });
    if (s_.plan.reward_models && !served) return std::nullopt;
    return ScoreOn(s_.rewarders, s_.to_score, ActionKind::kScore);
  }

  MaybeAction ScoreReference() const {
    return ScoreOn(s_.references, s_.to_reference, ActionKind::kScoreReference);
  }

  MaybeAction UseTrainer() const {
    const TrainerView& trainer = s_.trainer;
    if (!trainer.present || trainer.busy || !Ready(trainer.not_before)) return std::nullopt;
    if (!trainer.known) return Action{.kind = ActionKind::kAskTrainer};
    if (MaybeAction action = ServeReferences()) return action;
    if (!TrainerInPlace()) return Action{.kind = ActionKind::kLoadTrainer};
    if (s_.training_pending) return TrainIfTaught();
    if (MaybeAction action = Publish()) return action;
    if (SaveDue()) return Action{.kind = ActionKind::kSave};
    if (s_.validating) return Action{.kind = ActionKind::kValidate};
    if (s_.evaluating || EvalDue()) return std::nullopt;
    if (BatchReady()) return TrainIfTaught();
    if (Final() && s_.plan.kind != Plan::Kind::kEvaluate && !Collects() && !s_.exported) {
      return Action{.kind = ActionKind::kExport};
    }
    return std::nullopt;
  }

  // A teacher has to be there first.
  MaybeAction TrainIfTaught() const {
    const bool there = std::any_of(s_.references.begin(), s_.references.end(), [this](const ActorView& reference) {
      return reference.loaded && reference.has_weights && Ready(reference.not_before);
    });
    if (s_.plan.teacher && !there) return std::nullopt;
    return Train();
  }

  Action Train() const {
    return {.kind = ActionKind::kTrain,
            .count = std::min(s_.ready_groups, s_.plan.groups_per_update)};
  }

  // A reference needs the weights of number 0. Later than that the trainer goes back for them, and
  // then to the newest checkpoint.
  MaybeAction ServeReferences() const {
    if (!s_.plan.reference || NothingLeft()) return std::nullopt;
    Action publish{.kind = ActionKind::kPublish};
    for (const ActorView& reference : s_.references) {
      if (reference.loaded && !reference.has_weights && Ready(reference.not_before)) {
        publish.actors.push_back(reference.name);
      }
    }
    if (publish.actors.empty()) return std::nullopt;
    const TrainerView& trainer = s_.trainer;
    if (trainer.loaded && trainer.version.number == 0) return publish;
    if (!TrainerInPlace()) {
      return Action{.kind = s_.current.number == 0 ? ActionKind::kLoadTrainer
                                                   : ActionKind::kLoadInitial};
    }
    if (s_.training_pending) return Train();
    bool saved = s_.has_checkpoint && s_.checkpoint_update >= s_.current.number;
    return Action{.kind = saved ? ActionKind::kLoadInitial : ActionKind::kSave};
  }

  MaybeAction Publish() const {
    if (!NeedsGenerators()) return std::nullopt;
    bool retraining = BatchReady() && !EvalDue();
    Action action{.kind = ActionKind::kPublish};
    for (const ActorView& generator : s_.generators) {
      if (!generator.loaded || generator.busy || !Ready(generator.not_before)) continue;
      if (generator.has_weights && generator.version == s_.current) continue;
      // Groups that are stored are trained on first: nothing new is generated for them.
      if (retraining && s_.plan.staleness == 0) continue;
      if (retraining && generator.version.number > s_.current.number) continue;
      if (s_.plan.drains && generator.in_flight > 0) continue;
      action.actors.push_back(generator.name);
    }
    if (action.actors.empty()) return std::nullopt;
    return action;
  }

  MaybeAction Finish() const {
    if (!Final() || EvalDue() || s_.evaluating || s_.trainer.busy) return std::nullopt;
    if (s_.plan.kind == Plan::Kind::kEvaluate) return Action{.kind = ActionKind::kFinish};
    if (Collects() && !s_.exported) return Action{.kind = ActionKind::kWriteResults};
    bool saved = s_.current.number == 0 || !SaveDue();
    if (!saved || !s_.exported) return std::nullopt;
    return Action{.kind = ActionKind::kFinish};
  }

  absl::Time NextRetry() const {
    absl::Time next = absl::InfiniteFuture();
    auto consider = [&](absl::Time time) {
      if (time > s_.now) next = std::min(next, time);
    };
    consider(s_.trainer.not_before);
    for (const auto* actors : {&s_.generators, &s_.references, &s_.rewarders}) {
      for (const ActorView& actor : *actors) consider(actor.not_before);
    }
    for (const auto* groups : {&s_.to_generate, &s_.to_score, &s_.to_reference}) {
      for (const WaitingGroup& group : *groups) consider(group.not_before);
    }
    return next;
  }

  const Snapshot& s_;
};

}  // namespace

Action NextAction(const Snapshot& snapshot) { return Decider(snapshot).Decide(); }

std::string WaitsFor(const Snapshot& snapshot) {
  if (!snapshot.trainer.present) return "waits for a trainer";
  const Plan& plan = snapshot.plan;
  const bool generates = plan.evaluates || (plan.generates && plan.kind != Plan::Kind::kTexts);
  if (generates && snapshot.generators.empty()) return "waits for a rollout service";
  if ((snapshot.plan.reference || snapshot.plan.reward_models) && snapshot.references.empty())
    return "waits for a reference service";
  if (generates && plan.scores && snapshot.rewarders.empty()) return "waits for a reward service";
  return "";
}

}  // namespace rein::services
