#include "services/reference/reward_model.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "services/reference/step_scores.h"

namespace rein::services {

absl::StatusOr<std::unique_ptr<RewardModel>> RewardModel::Open(const v1::ModelReward& config,
                                                               const std::string& device) {
  absl::StatusOr<policy::OpenedModel> model = policy::OpenModel({.path = config.path(),
                                                                 .dtype = config.dtype(),
                                                                 .device = device,
                                                                 .keep_idle = false,
                                                                 .load_weights = true});
  absl::Status status = model.status();
  if (status.ok() && !model->description.spec.scalar_head) {
    status = absl::InvalidArgumentError(absl::StrCat(
        config.path(), " is a causal language model, want ...ForSequenceClassification with one label"));
  }
  if (status.ok() && !model->text->has_tokenizer()) {
    status = absl::InvalidArgumentError(absl::StrCat("there is no tokenizer.json in ", config.path()));
  }
  if (status.ok() && config.chat_template() && !model->text->has_chat_template()) {
    status = absl::InvalidArgumentError(absl::StrCat(
        config.path(), " has no chat template: set chat_template: false, as its training data did"));
  }
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("reward model: ", status.message()));
  }
  return std::unique_ptr<RewardModel>(new RewardModel(*std::move(model), config));
}

RewardModel::RewardModel(policy::OpenedModel model, const v1::ModelReward& config)
    : model_(std::move(model)),
      config_(config),
      encoder_(*model_.text, {.chat_template = config.chat_template()}) {}

absl::StatusOr<RewardModel::Encoded> RewardModel::Encode(const v1::RewardItem& item) const {
  const std::string& completion = item.completion().text();
  data::PromptRow row{.is_text = !config_.chat_template() && item.prompt_size() == 1,
                      .answer = completion,
                      .has_answer = true};
  for (const v1::Message& message : item.prompt()) {
    row.messages.push_back({message.role(), message.content()});
  }
  if (row.messages.empty()) return absl::InvalidArgumentError("the item has no prompt");
  Encoded encoded;
  data::AnsweredPrompt answered;
  if (config_.has_steps()) {
    std::vector<std::string> steps;
    for (const StepText& step : SplitSteps(completion, config_.steps().separator())) {
      steps.emplace_back(step.text);
      encoded.ends.push_back(static_cast<uint32_t>(step.end));
    }
    REIN_ASSIGN_OR_RETURN(answered, encoder_.EncodeSteps(row, steps, config_.steps().separator()));
    for (uint32_t t = 0; t < answered.loss_mask.size(); ++t) {
      if (answered.loss_mask[t] == 1) encoded.places.push_back(t);
    }
  } else {
    REIN_ASSIGN_OR_RETURN(answered, encoder_.EncodeAnswer(row));
    encoded.places.push_back(static_cast<uint32_t>(answered.token_ids.size()) - 1);
  }
  encoded.sequence = {std::move(answered.token_ids), 1};
  REIN_RETURN_IF_ERROR(policy::CheckSequence(model_.description.spec, encoded.sequence));
  return encoded;
}

std::vector<absl::StatusOr<v1::RewardResult>> RewardModel::Score(const std::vector<v1::RewardItem>& items) {
  std::vector<absl::StatusOr<Encoded>> encoded;
  auto own = std::make_shared<Waiting>();
  for (const v1::RewardItem& item : items) {
    encoded.push_back(Encode(item));
    if (!encoded.back().ok()) continue;
    own->sequences.push_back(std::move(encoded.back()->sequence));
    own->places.push_back(encoded.back()->places);
  }
  {
    std::lock_guard<std::mutex> lock(waiting_mutex_);
    waiting_.push_back(own);
  }
  {
    std::lock_guard<std::mutex> no_other(forward_mutex_);
    if (!own->done) {
      std::vector<std::shared_ptr<Waiting>> calls;
      {
        std::lock_guard<std::mutex> lock(waiting_mutex_);
        calls.assign(waiting_.begin(), waiting_.end());
        waiting_.clear();
      }
      Compute(std::move(calls));
    }
  }
  std::vector<absl::StatusOr<v1::RewardResult>> results;
  size_t next = 0;
  for (const absl::StatusOr<Encoded>& item : encoded) {
    if (!item.ok()) {
      results.push_back(item.status());
    } else if (!own->scores.ok()) {
      results.push_back(own->scores.status());
    } else if (config_.has_steps()) {
      results.push_back(ResultOfSteps((*own->scores)[next++], item->ends, config_.steps().reduce()));
    } else {
      results.emplace_back(v1::RewardResult()).value().set_reward((*own->scores)[next++].front());
    }
  }
  return results;
}

// Under forward_mutex_.
void RewardModel::Compute(std::vector<std::shared_ptr<Waiting>> calls) {
  std::vector<policy::ScoredSequence> all;
  std::vector<std::vector<uint32_t>> places;
  for (const auto& call : calls) {
    for (policy::ScoredSequence& sequence : call->sequences) all.push_back(std::move(sequence));
    places.insert(places.end(), call->places.begin(), call->places.end());
  }
  absl::StatusOr<std::vector<std::vector<float>>> scores = policy::ScorePlaces(model_.slots->decoder(), all, places);
  size_t next = 0;
  for (const auto& call : calls) {
    call->done = true;
    if (!scores.ok()) {
      call->scores = scores.status();
      continue;
    }
    const auto first = scores->begin() + static_cast<std::ptrdiff_t>(next);
    next += call->sequences.size();
    call->scores = std::vector<std::vector<float>>(first, scores->begin() + static_cast<std::ptrdiff_t>(next));
  }
}

}  // namespace rein::services
