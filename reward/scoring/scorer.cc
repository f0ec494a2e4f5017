#include "reward/scoring/scorer.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/config/reward_rule.h"
#include "common/status/status_macros.h"
#include "reward/rules/registry.h"

namespace rein::reward {
namespace {

// What a remote scorer may say about one item that it could not score.
constexpr size_t kMaxErrorBytes = 1024;

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
    if (result.error().empty()) {
      scores.push_back(result.reward());
    } else {
      scores.push_back(absl::InternalError(result.error().substr(0, kMaxErrorBytes)));
    }
  }
  return scores;
}

void Add(const NamedRule& rule, const absl::StatusOr<double>& score, v1::RewardResult& result) {
  std::string error;
  if (!score.ok()) {
    error = std::string(score.status().message());
  } else if (!std::isfinite(*score)) {
    error = absl::StrCat("gave ", *score, ", want a finite number");
  }
  if (!error.empty()) {
    absl::StrAppend(result.mutable_error(), result.error().empty() ? "" : "; ", rule.name, ": ",
                    error);
    return;
  }
  v1::RewardPart* part = result.add_parts();
  part->set_name(rule.name);
  part->set_score(*score);
  part->set_weight(rule.weight);
  result.set_reward(result.reward() + rule.weight * *score);
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

  auto items =
      std::make_shared<std::vector<v1::RewardItem>>(request.items().begin(), request.items().end());
  std::vector<RuleScores> scores = RunRules(rules, items, deadline, clock_, pool_);
  v1::ScoreRewardsReply reply;
  for (size_t item = 0; item < items->size(); ++item) {
    v1::RewardResult* result = reply.add_results();
    for (size_t rule = 0; rule < rules.size(); ++rule) {
      Add(rules[rule], scores[rule].scores[item], *result);
    }
    if (result->error().empty() && !std::isfinite(result->reward())) {
      result->set_error("the sum of the parts is not finite");
    }
    if (!result->error().empty()) result->set_reward(0);
  }
  if (options_.observer) {
    for (size_t rule = 0; rule < rules.size(); ++rule) {
      options_.observer(rules[rule].name, scores[rule]);
    }
  }
  return reply;
}

}  // namespace rein::reward
