#include "services/controller/training_batch.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"

#include "common/config/schema.h"
#include "common/status/status_macros.h"
#include "services/controller/episodes.h"

namespace rein::services {
namespace {

// Sums of one batch, for its metrics.
struct BatchSums {
  std::vector<double> rewards;
  struct Part {
    double sum = 0;
    uint64_t rollouts = 0;  // that this reward was for
  };
  std::map<std::string, Part> parts;  // by reward name
  uint64_t completion_tokens = 0;
  uint64_t tokens = 0;
  uint64_t truncated = 0;
  uint64_t groups = 0;
  uint64_t zero_signal_groups = 0;
  double lag = 0;  // of all completion tokens
  std::map<uint64_t, uint64_t> lags;  // completion tokens by the Updates that they are behind
  double logprob = 0;
  uint64_t episodes = 0, turns = 0, observation_tokens = 0;
  uint64_t failed = 0;  // siblings that are not in the batch
  std::map<v1::FinishReason, uint64_t> ends;  // of episodes
};

void AddMetric(std::vector<v1::Metric>& metrics, const std::string& name, double value) {
  v1::Metric& metric = metrics.emplace_back();
  metric.set_name(name);
  metric.set_value(value);
}

std::vector<v1::Metric> ToMetrics(const BatchSums& sums) {
  std::vector<v1::Metric> metrics;
  double count = std::max<double>(1, static_cast<double>(sums.rewards.size()));
  double tokens = std::max<double>(1, static_cast<double>(sums.completion_tokens));
  double mean = 0, variance = 0;
  for (double reward : sums.rewards) mean += reward / count;
  for (double reward : sums.rewards) variance += (reward - mean) * (reward - mean) / count;
  AddMetric(metrics, "reward", mean);
  AddMetric(metrics, "reward_std", std::sqrt(variance));
  if (!sums.rewards.empty()) {
    auto [low, high] = std::minmax_element(sums.rewards.begin(), sums.rewards.end());
    AddMetric(metrics, "reward_min", *low);
    AddMetric(metrics, "reward_max", *high);
  }
  for (const auto& [name, part] : sums.parts) {
    AddMetric(metrics, "reward/" + name, part.sum / static_cast<double>(part.rollouts));
  }
  AddMetric(metrics, "zero_signal_ratio",
            static_cast<double>(sums.zero_signal_groups) /
                std::max<double>(1, static_cast<double>(sums.groups)));
  AddMetric(metrics, "completion_tokens", static_cast<double>(sums.completion_tokens) / count);
  AddMetric(metrics, "truncated_ratio", static_cast<double>(sums.truncated) / count);
  AddMetric(metrics, "tokens", static_cast<double>(sums.tokens));
  AddMetric(metrics, "rollouts", static_cast<double>(sums.rewards.size()));
  AddMetric(metrics, "lag", sums.lag / tokens);
  for (const auto& [lag, count] : sums.lags) {  // a histogram of shares
    AddMetric(metrics, absl::StrCat("lag/", lag), static_cast<double>(count) / tokens);
  }
  AddMetric(metrics, "behaviour_logprob", sums.logprob / tokens);
  if (sums.episodes == 0) return metrics;
  const auto episodes = static_cast<double>(sums.episodes);
  AddMetric(metrics, "turns", static_cast<double>(sums.turns) / episodes);
  AddMetric(metrics, "observation_tokens", static_cast<double>(sums.observation_tokens) / episodes);
  AddMetric(metrics, "failed_episodes", static_cast<double>(sums.failed));
  for (const auto& [reason, count] : sums.ends) {
    AddMetric(metrics, absl::StrCat("end/", config::NameOf(*v1::FinishReason_descriptor()->FindValueByNumber(reason))),
              static_cast<double>(count) / episodes);
  }
  return metrics;
}

// Whether a limit ended it, and not the policy or its environment.
bool IsTruncated(const v1::Completion& completion) {
  switch (completion.finish_reason()) {
    case v1::FINISH_REASON_LENGTH:
    case v1::FINISH_REASON_MAX_TURNS:
    case v1::FINISH_REASON_MAX_TOKENS:
    case v1::FINISH_REASON_TIMEOUT:
      return true;
    default:
      return false;
  }
}

void Count(const v1::Rollout& rollout, uint64_t update, BatchSums& sums) {
  const v1::Completion& completion = rollout.completion();
  sums.rewards.push_back(rollout.reward().reward());
  for (const v1::RewardPart& part : rollout.reward().parts()) {
    sums.parts[part.name()].sum += part.score();
    ++sums.parts[part.name()].rollouts;
  }
  uint64_t observed = 0;
  for (const v1::Turn& turn : rollout.turns()) observed += turn.observation_tokens();
  if (!rollout.turns().empty()) {
    ++sums.episodes;
    sums.turns += static_cast<uint64_t>(rollout.turns_size());
    sums.observation_tokens += observed;
    ++sums.ends[completion.finish_reason()];
  }
  sums.completion_tokens += static_cast<uint64_t>(completion.token_ids_size()) - observed;
  sums.tokens +=
      static_cast<uint64_t>(rollout.prompt_token_ids_size() + completion.token_ids_size());
  sums.truncated += IsTruncated(completion) ? 1 : 0;
  for (float logprob : completion.behaviour_logprobs()) sums.logprob += logprob;
  for (const v1::VersionSpan& span : completion.versions()) {
    double behind = static_cast<double>(update) - 1 - static_cast<double>(span.version().number());
    sums.lag += std::max(0.0, behind) * span.tokens();
    sums.lags[static_cast<uint64_t>(std::max(0.0, behind))] += span.tokens();
  }
}

// What each turn earned, with the environment's weight; the rest of the reward is the last turn's. None where the reward
// is another than the sum of its parts, or of their turns: a clip or a gate has no turns.
std::vector<double> RewardsOfTurns(const v1::Rollout& rollout, const std::string& name) {
  double sum = 0, parts = 0;
  for (const v1::Turn& turn : rollout.turns()) sum += turn.reward();
  const v1::RewardPart* environment = nullptr;
  for (const v1::RewardPart& part : rollout.reward().parts()) {
    parts += part.weight() * part.score();
    if (part.name() == name) environment = &part;
  }
  const bool plain = environment != nullptr && environment->score() == sum && rollout.reward().gated_by().empty() &&
                     rollout.reward().reward() == parts;
  if (!plain || rollout.turns_size() < 2) return {};
  std::vector<double> rewards;
  double left = parts;
  for (int i = 0; i + 1 < rollout.turns_size(); ++i) {
    rewards.push_back(environment->weight() * rollout.turns(i).reward());
    left -= rewards.back();
  }
  rewards.push_back(left);
  return rewards;
}

// What each token of a completion earned, where scorers judged its steps; the rest of the reward is the last token's.
// None where the reward is another than the sum of its parts.
absl::StatusOr<std::vector<double>> RewardsOfTokens(const v1::Rollout& rollout, PromptSource* prompts) {
  double parts = 0;
  bool steps = false;
  for (const v1::RewardPart& part : rollout.reward().parts()) {
    parts += part.weight() * part.score();
    steps = steps || part.steps_size() > 0;
  }
  const bool plain = rollout.reward().gated_by().empty() && rollout.reward().reward() == parts;
  const auto& ids = rollout.completion().token_ids();
  if (!steps || !plain || prompts == nullptr || ids.empty() || rollout.turns_size() > 0) return std::vector<double>();
  REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> ends, prompts->TextEnds({ids.begin(), ids.end()}));
  std::vector<double> earned(ends.size(), 0.0);
  double left = rollout.reward().reward();
  for (const v1::RewardPart& part : rollout.reward().parts()) {
    for (const v1::StepReward& step : part.steps()) {
      const auto token = std::lower_bound(ends.begin(), ends.end(), step.end());
      if (token == ends.end()) continue;
      earned[static_cast<size_t>(token - ends.begin())] += part.weight() * step.reward();
      left -= part.weight() * step.reward();
    }
  }
  earned.back() += left;
  return earned;
}

bool SampledBy(const Version& version, const v1::Completion& completion) {
  if (completion.versions_size() != 1) return false;
  const v1::PolicyVersion& sampler = completion.versions(0).version();
  return sampler.lineage() == version.lineage && sampler.number() == version.number;
}

v1::TrainingSequence ToSequence(const v1::Rollout& rollout, uint32_t group_index, const std::string& environment) {
  v1::TrainingSequence sequence;
  const v1::Completion& completion = rollout.completion();
  *sequence.mutable_token_ids() = rollout.prompt_token_ids();
  sequence.mutable_token_ids()->MergeFrom(completion.token_ids());
  sequence.set_loss_mask(std::string(static_cast<size_t>(rollout.prompt_token_ids_size()), '\0') +
                         SampledMask(rollout));
  *sequence.mutable_behaviour_logprobs() = completion.behaviour_logprobs();
  *sequence.mutable_reference_logprobs() = rollout.reference_logprobs();
  sequence.set_group(group_index);
  sequence.set_reward(rollout.reward().reward());
  for (const v1::RewardPart& part : rollout.reward().parts()) {
    sequence.add_reward_parts(part.score());
  }
  sequence.set_id(absl::StrCat(rollout.group().prompt(), "/", rollout.sibling()));
  sequence.set_truncated(IsTruncated(completion));
  sequence.set_expert_choices(completion.expert_choices());
  for (double reward : RewardsOfTurns(rollout, environment)) sequence.add_turn_rewards(reward);
  return sequence;
}

}  // namespace

bool DrawsFromAll(const v1::GrpoConfig& rl) {
  const bool penalised = rl.repetition_penalty() != 1 || rl.presence_penalty() != 0 || rl.frequency_penalty() != 0;
  return rl.temperature() > 0 && rl.top_k() == 0 && rl.top_p() == 1 && !penalised;
}

absl::StatusOr<TrainingBatch> BatchOfRollouts(Ledger& ledger, const std::vector<uint64_t>& orders, uint64_t update,
                                              const RolloutBatchOptions& options) {
  TrainingBatch batch;
  BatchSums sums;
  for (uint32_t index = 0; index < orders.size(); ++index) {
    const Group* group = ledger.Find(orders[index]);
    if (group == nullptr) return absl::InternalError(absl::StrCat("no group ", orders[index]));
    bool first = true, equal = true;
    double reward = 0;
    const size_t trained = group->siblings.size() - (options.greedy_sibling ? 1 : 0);
    for (uint32_t i = 0; i < trained; ++i) {
      if (group->siblings[i].failed) {
        ++sums.failed;
        continue;
      }
      REIN_ASSIGN_OR_RETURN(v1::StoredRollout stored, ledger.Read(orders[index], i));
      const v1::Rollout& rollout = stored.rollout();
      if (first) reward = rollout.reward().reward();
      equal = equal && rollout.reward().reward() == reward;
      first = false;
      Count(rollout, update, sums);
      batch.sequences.push_back(ToSequence(rollout, index, options.environment));
      REIN_ASSIGN_OR_RETURN(std::vector<double> earned, RewardsOfTokens(rollout, options.prompts));
      batch.sequences.back().mutable_target_rewards()->Add(earned.begin(), earned.end());
      batch.sequences.back().set_on_policy(options.current.has_value() && SampledBy(*options.current, rollout.completion()));
      if (!options.greedy_sibling) continue;
      const double baseline = group->siblings.back().reward;
      batch.sequences.back().set_greedy_reward(baseline);
      equal = equal && reward == baseline;
    }
    ++sums.groups;
    // A completion that was meant to be alone is compared with the whole batch.
    if (equal && (trained > 1 || options.greedy_sibling)) ++sums.zero_signal_groups;
  }
  batch.metrics = ToMetrics(sums);
  return batch;
}

absl::StatusOr<std::vector<v1::TrainingSequence>> SequencesOfLine(PromptSource& prompts,
                                                                  uint64_t line, uint32_t group,
                                                                  bool train_on_prompt) {
  std::vector<v1::TrainingSequence> sequences;
  REIN_ASSIGN_OR_RETURN(std::vector<LearnedText> texts, prompts.ReadTexts(line));
  for (const LearnedText& text : texts) {
    v1::TrainingSequence& sequence = sequences.emplace_back();
    sequence.mutable_token_ids()->Add(text.token_ids.begin(), text.token_ids.end());
    std::string mask(text.loss_mask.begin(), text.loss_mask.end());
    if (train_on_prompt) {
      if (!text.target_rewards.empty()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "prompt ", line, " has turns with a weight, and train_on_prompt learns every token: leave out one of the two"));
      }
      mask.assign(text.token_ids.size(), '\1');
    }
    mask[0] = '\0';  // nothing predicts the first token
    sequence.set_loss_mask(std::move(mask));
    sequence.set_group(group);
    sequence.set_reward(text.reward);
    sequence.mutable_target_rewards()->Add(text.target_rewards.begin(), text.target_rewards.end());
    sequence.set_first_position(text.first_position);
    sequence.set_id(absl::StrCat(line, sequences.size() == 1 ? "" : absl::StrCat("/", sequences.size() - 1)));
  }
  return sequences;
}

absl::StatusOr<TrainingBatch> BatchOfTexts(const Ledger& ledger, PromptSource& prompts,
                                           const std::vector<uint64_t>& orders,
                                           bool train_on_prompt) {
  TrainingBatch batch;
  uint64_t tokens = 0, targets = 0;
  uint32_t line = 0;
  for (uint64_t order : orders) {
    const Group* group = ledger.Find(order);
    if (group == nullptr) return absl::InternalError(absl::StrCat("no group ", order));
    REIN_ASSIGN_OR_RETURN(std::vector<v1::TrainingSequence> sequences,
                          SequencesOfLine(prompts, group->id.prompt(), line, train_on_prompt));
    for (v1::TrainingSequence& sequence : sequences) {
      const std::string& mask = sequence.loss_mask();
      targets += static_cast<uint64_t>(std::count(mask.begin(), mask.end(), '\1'));
      tokens += mask.size();
      batch.sequences.push_back(std::move(sequence));
    }
    ++line;
  }
  AddMetric(batch.metrics, "tokens", static_cast<double>(tokens));
  AddMetric(batch.metrics, "target_tokens", static_cast<double>(targets));
  return batch;
}

}  // namespace rein::services
