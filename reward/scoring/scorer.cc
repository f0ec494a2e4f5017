#include "reward/scoring/scorer.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/config/reward_rule.h"
#include "common/status/status_macros.h"
#include "reward/rules/columns.h"
#include "reward/rules/registry.h"

namespace rein::reward {
namespace {

// What a scorer may say about one item that it could not score, and about a score.
constexpr size_t kMaxErrorBytes = 1024;
constexpr size_t kMaxNoteBytes = 512;

// By how much the rewards of steps may miss the score, relative to it.
constexpr double kStepsTolerance = 1e-6;

// Cut between characters of UTF-8.
std::string Short(std::string text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (text[max_bytes] & 0xC0) == 0x80) --max_bytes;
  return text.substr(0, max_bytes);
}

// `rule`: what the scorer is asked for; null: it knows.
Scores AskRemote(const RemoteScorer& remote, const std::string& address,
                 const v1::RewardConfig* rule, const std::vector<v1::RewardItem>& items,
                 absl::Duration timeout) {
  v1::ScoreRewardsRequest request;
  if (rule != nullptr) *request.add_rules() = *rule;
  for (const v1::RewardItem& item : items) *request.add_items() = item;
  absl::StatusOr<v1::ScoreRewardsReply> reply = remote(address, request, timeout);
  if (!reply.ok()) return Scores(items.size(), reply.status());
  Scores scores;
  for (const v1::RewardResult& result : reply->results()) {
    if (!result.error().empty()) {
      scores.push_back(absl::InternalError(Short(result.error(), kMaxErrorBytes)));
      continue;
    }
    std::vector<std::string> notes;
    for (const v1::RewardPart& part : result.parts()) {
      if (!part.note().empty()) notes.push_back(part.note());
    }
    Verdict verdict(result.reward(), absl::StrJoin(notes, "; "));
    verdict.steps.assign(result.steps().begin(), result.steps().end());
    scores.push_back(std::move(verdict));
  }
  return scores;
}

// "[0, 1]", "[0, infinity)".
std::string RangeText(const v1::RewardRange& range) {
  return absl::StrCat(range.has_min() ? absl::StrCat("[", range.min()) : "(-infinity", ", ",
                      range.has_max() ? absl::StrCat(range.max(), "]") : "infinity)");
}

double Clip(double value, const v1::RewardRange& range) {
  if (range.has_min()) value = std::max(value, range.min());
  if (range.has_max()) value = std::min(value, range.max());
  return value;
}

// Why a verdict is no score; "" when it is one.
std::string Fault(const absl::StatusOr<Verdict>& verdict, const v1::RewardConfig& config) {
  if (!verdict.ok()) return std::string(verdict.status().message());
  if (!std::isfinite(verdict->score)) {
    return absl::StrCat("gave ", verdict->score, ", want a finite number");
  }
  double steps = 0;
  for (const v1::StepReward& step : verdict->steps) steps += step.reward();
  if (!verdict->steps.empty() && !(std::abs(steps - verdict->score) <= kStepsTolerance * std::max(1.0, std::abs(steps)))) {
    return absl::StrCat("gave ", verdict->score, ", but its steps add up to ", steps);
  }
  if (config.has_range() && Clip(verdict->score, config.range()) != verdict->score) {
    return absl::StrCat("gave ", verdict->score, ", outside its declared range ",
                        RangeText(config.range()));
  }
  return "";
}

void Add(const NamedRule& rule, const v1::RewardConfig& config,
         const absl::StatusOr<Verdict>& verdict, v1::RewardResult& result) {
  if (verdict.ok() && verdict->skipped) return;
  if (std::string fault = Fault(verdict, config); !fault.empty()) {
    absl::StrAppend(result.mutable_error(), result.error().empty() ? "" : "; ", rule.name, ": ",
                    fault);
    return;
  }
  v1::RewardPart* part = result.add_parts();
  part->set_name(rule.name);
  part->set_score(config.has_clip() ? Clip(verdict->score, config.clip()) : verdict->score);
  part->set_weight(rule.weight);
  part->set_note(Short(verdict->note, kMaxNoteBytes));
  // Bounds leave no step its own.
  if (part->score() == verdict->score) part->mutable_steps()->Assign(verdict->steps.begin(), verdict->steps.end());
  result.set_reward(result.reward() + rule.weight * part->score());
  if (config.has_gate() && part->score() < config.gate().at_least() && result.gated_by().empty()) {
    result.set_gated_by(rule.name);
  }
}

// The sum's bounds and gates, once every rule has spoken.
void Finish(const v1::ScoreRewardsRequest& request, const std::vector<NamedRule>& rules,
            const v1::RewardItem& item, v1::RewardResult& result) {
  if (result.error().empty() && result.parts().empty()) {
    std::set<std::string> columns;
    for (const v1::RewardConfig& config : request.rules()) columns.insert(config.when().column());
    std::vector<std::string> values;
    for (const std::string& column : columns) {
      const google::protobuf::Value* value = FindColumn(item.columns(), column);
      values.push_back(absl::StrCat(column, value == nullptr ? " is absent" : " is ",
                                    value == nullptr ? "" : Short(ColumnText(*value), 100)));
    }
    result.set_error(absl::StrCat("no reward is for this prompt: ", absl::StrJoin(values, ", ")));
  }
  if (request.has_clip()) result.set_reward(Clip(result.reward(), request.clip()));
  for (size_t i = 0; i < rules.size(); ++i) {
    if (!result.gated_by().empty() && rules[i].name == result.gated_by()) {
      result.set_reward(request.rules(static_cast<int>(i)).gate().otherwise());
    }
  }
  if (result.error().empty() && !std::isfinite(result.reward())) {
    result.set_error("the sum of the parts is not finite");
  }
  if (result.error().empty()) return;
  result.set_reward(0);
  result.clear_gated_by();
}

// INVALID_ARGUMENT for bounds that leave nothing.
absl::Status CheckRange(const char* name, const v1::RewardRange& range) {
  if (std::isnan(range.min()) || std::isnan(range.max()) ||
      (range.has_min() && range.has_max() && range.min() > range.max())) {
    return absl::InvalidArgumentError(absl::StrCat(name, " ", RangeText(range), " is empty"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::function<bool(const v1::RewardItem&)>> Applies(const v1::WhenConfig& when) {
  if (when.column().empty()) return absl::InvalidArgumentError("when.column is empty");
  if (when.is().empty()) return absl::InvalidArgumentError("when.is names no value");
  std::set<std::string> values(when.is().begin(), when.is().end());
  return [column = when.column(), values](const v1::RewardItem& item) {
    const google::protobuf::Value* value = FindColumn(item.columns(), column);
    return value != nullptr && values.count(ColumnText(*value)) > 0;
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<Scorer>> Scorer::Create(ScorerOptions options,
                                                       const sync::Clock& clock) {
  if (options.threads < 1 || options.max_stuck < 0) {
    return absl::InvalidArgumentError(absl::StrCat("want at least 1 thread and 0 stuck ones, got ",
                                                   options.threads, " and ", options.max_stuck));
  }
  return std::unique_ptr<Scorer>(new Scorer(std::move(options), clock));
}

absl::StatusOr<NamedRule> Scorer::MakeNamedRule(
    const v1::RewardConfig& config, const std::vector<std::string>& model_scorers) const {
  NamedRule rule;
  rule.timeout = absl::Seconds(config::TimeoutSeconds(config));
  rule.name = RuleName(config);
  if (config.has_weight()) rule.weight = config.weight();
  if (!std::isfinite(rule.weight)) {
    return absl::InvalidArgumentError(absl::StrCat("weight ", rule.weight, " is not finite"));
  }
  if (config.has_timeout_seconds()) {
    if (!(config.timeout_seconds() > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("timeout_seconds ", config.timeout_seconds(), " is not above 0"));
    }
  }
  REIN_RETURN_IF_ERROR(CheckRange("range", config.range()));
  REIN_RETURN_IF_ERROR(CheckRange("clip", config.clip()));
  if (config.has_gate() &&
      !(std::isfinite(config.gate().at_least()) && std::isfinite(config.gate().otherwise()))) {
    return absl::InvalidArgumentError("gate wants finite numbers");
  }
  if (config.has_when()) {
    REIN_ASSIGN_OR_RETURN(rule.applies, Applies(config.when()));
  }
  const bool remote = config.has_remote();
  if (!remote && !config.has_model()) {
    REIN_ASSIGN_OR_RETURN(rule.item, MakeRule(config));
    return rule;
  }
  if (!options_.remote) return absl::InvalidArgumentError("remote scorers are not served here");
  if (remote && config.remote().address().empty()) {
    return absl::InvalidArgumentError("address must be host:port");
  }
  if (remote) {
    rule.batch = [this, address = config.remote().address()](
                     const std::vector<v1::RewardItem>& items, absl::Duration timeout) {
      return AskRemote(options_.remote, address, nullptr, items, timeout);
    };
    return rule;
  }
  if (model_scorers.empty()) {
    return absl::InvalidArgumentError("a reward model is served by a reference, and none is named");
  }
  rule.batch = [this, config, address = model_scorers[next_model_scorer_++ % model_scorers.size()]](
                   const std::vector<v1::RewardItem>& items, absl::Duration timeout) {
    return AskRemote(options_.remote, address, &config, items, timeout);
  };
  return rule;
}

absl::StatusOr<v1::ScoreRewardsReply> Scorer::Score(const v1::ScoreRewardsRequest& request,
                                                    absl::Time deadline) {
  std::vector<NamedRule> rules;
  std::vector<std::string> errors;
  const std::vector<std::string> model_scorers(request.model_scorers().begin(),
                                               request.model_scorers().end());
  for (int i = 0; i < request.rules_size(); ++i) {
    absl::StatusOr<NamedRule> rule = MakeNamedRule(request.rules(i), model_scorers);
    if (rule.ok()) {
      rules.push_back(*std::move(rule));
    } else {
      errors.push_back(absl::StrCat("rewards[", i, "] (", RuleName(request.rules(i)),
                                    "): ", rule.status().message()));
    }
  }
  if (!errors.empty()) return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
  if (rules.empty()) return absl::InvalidArgumentError("no rules: a job needs at least one reward");

  REIN_RETURN_IF_ERROR(CheckRange("clip of the sum", request.clip()));

  auto items =
      std::make_shared<std::vector<v1::RewardItem>>(request.items().begin(), request.items().end());
  std::vector<RuleScores> scores = RunRules(rules, items, deadline, clock_, pool_);
  v1::ScoreRewardsReply reply;
  for (size_t item = 0; item < items->size(); ++item) {
    v1::RewardResult* result = reply.add_results();
    for (size_t rule = 0; rule < rules.size(); ++rule) {
      Add(rules[rule], request.rules(static_cast<int>(rule)), scores[rule].scores[item], *result);
    }
    Finish(request, rules, (*items)[item], *result);
  }
  if (options_.observer) {
    for (size_t rule = 0; rule < rules.size(); ++rule) {
      options_.observer(rules[rule].name, scores[rule]);
    }
  }
  return reply;
}

}  // namespace rein::reward
