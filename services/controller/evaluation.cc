#include "services/controller/evaluation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

constexpr uint64_t kHeldOutAttempt = uint64_t{1} << 32;
constexpr size_t kExamples = 5;

// Of a prompt that the named reward is not for: the first that is for it.
double ScoreOf(const Evaluation::Item& item, const std::string& name) {
  if (!item.result.has_value() || item.result->parts().empty()) return 0;
  for (const v1::RewardPart& part : item.result->parts()) {
    if (part.name() == name) return part.score();
  }
  return item.result->parts(0).score();
}

std::string LastUserMessage(const Prompt& prompt) {
  for (auto message = prompt.messages.rbegin(); message != prompt.messages.rend(); ++message) {
    if (message->role() == "user") return message->content();
  }
  return prompt.messages.empty() ? "" : prompt.messages.back().content();
}

}  // namespace

absl::StatusOr<Evaluation> Evaluation::Begin(PromptSource& prompts, uint64_t update) {
  Evaluation evaluation(update);
  for (uint64_t i = 0; i < prompts.size(); ++i) {
    REIN_ASSIGN_OR_RETURN(Prompt prompt, prompts.Read(i));
    evaluation.items_.push_back({.prompt = std::move(prompt)});
  }
  return evaluation;
}

bool Evaluation::Done() const {
  return std::all_of(items_.begin(), items_.end(), [](const Item& item) {
    return item.result.has_value() || !item.given_up.empty();
  });
}

v1::GroupId Evaluation::GroupOf(uint64_t item) const {
  v1::GroupId group;
  group.set_data_epoch(update_);
  group.set_prompt(item);
  group.set_attempt(kHeldOutAttempt);
  return group;
}

v1::EvalResult Evaluation::Result(const std::string& accuracy) const {
  v1::EvalResult result;
  result.set_update(update_);
  result.set_prompts(static_cast<uint32_t>(items_.size()));
  std::map<std::string, std::pair<double, double>> parts;  // sum, prompts that it is for
  double unscored = 0;
  double count = static_cast<double>(items_.size()), mean = 0, squares = 0;
  for (const Item& item : items_) {
    double score = ScoreOf(item, accuracy);
    mean += score / count;
    squares += score * score / count;
    if (!item.result.has_value()) {
      ++unscored;  // 0 for each reward
      continue;
    }
    for (const v1::RewardPart& part : item.result->parts()) {
      parts[part.name()].first += part.score();
      ++parts[part.name()].second;
    }
  }
  result.set_accuracy(mean);
  // Of the mean, from the unbiased variance.
  double variance = count > 1 ? std::max(0.0, squares - mean * mean) * count / (count - 1) : 0;
  result.set_standard_error(std::sqrt(variance / count));
  for (const auto& [name, sum] : parts) {
    v1::Metric* part = result.add_parts();
    part->set_name(name);
    part->set_value(sum.first / (sum.second + unscored));
  }
  for (size_t i = 0; i < std::min(kExamples, items_.size()); ++i) {
    v1::EvalExample* example = result.add_examples();
    example->set_prompt(LastUserMessage(items_[i].prompt));
    if (items_[i].rollout.has_value()) {
      example->set_completion(items_[i].rollout->completion().text());
    }
    example->set_answer(items_[i].prompt.answer);
    example->set_score(ScoreOf(items_[i], accuracy));
  }
  return result;
}

}  // namespace rein::services
