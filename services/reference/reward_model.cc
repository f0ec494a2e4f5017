#include "services/reference/reward_model.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

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
      chat_template_(config.chat_template()),
      encoder_(*model_.text, {.chat_template = config.chat_template()}) {}

absl::StatusOr<policy::ScoredSequence> RewardModel::Encode(const v1::RewardItem& item) const {
  data::PromptRow row{.is_text = !chat_template_ && item.prompt_size() == 1,
                      .answer = item.completion().text(),
                      .has_answer = true};
  for (const v1::Message& message : item.prompt()) {
    row.messages.push_back({message.role(), message.content()});
  }
  if (row.messages.empty()) return absl::InvalidArgumentError("the item has no prompt");
  REIN_ASSIGN_OR_RETURN(data::AnsweredPrompt answered, encoder_.EncodeAnswer(row));
  policy::ScoredSequence sequence{std::move(answered.token_ids), 1};
  REIN_RETURN_IF_ERROR(policy::CheckSequence(model_.description.spec, sequence));
  return sequence;
}

std::vector<absl::StatusOr<double>> RewardModel::Score(const std::vector<v1::RewardItem>& items) {
  std::vector<absl::StatusOr<double>> result;
  auto own = std::make_shared<Waiting>();
  for (const v1::RewardItem& item : items) {
    absl::StatusOr<policy::ScoredSequence> sequence = Encode(item);
    result.emplace_back(sequence.ok() ? absl::StatusOr<double>(0.0) : sequence.status());
    if (sequence.ok()) own->sequences.push_back(*std::move(sequence));
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
  size_t next = 0;
  for (absl::StatusOr<double>& score : result) {
    if (!score.ok()) continue;
    if (own->scores.ok()) {
      score = (*own->scores)[next++];
    } else {
      score = own->scores.status();
    }
  }
  return result;
}

// Under forward_mutex_.
void RewardModel::Compute(std::vector<std::shared_ptr<Waiting>> calls) {
  std::vector<policy::ScoredSequence> all;
  for (const auto& call : calls) {
    for (policy::ScoredSequence& sequence : call->sequences) all.push_back(std::move(sequence));
  }
  absl::StatusOr<std::vector<float>> scores =
      policy::ScoreLastTokens(model_.slots->decoder(), all);
  size_t next = 0;
  for (const auto& call : calls) {
    call->done = true;
    if (!scores.ok()) {
      call->scores = scores.status();
      continue;
    }
    const auto first = scores->begin() + static_cast<std::ptrdiff_t>(next);
    next += call->sequences.size();
    call->scores = std::vector<float>(first, scores->begin() + static_cast<std::ptrdiff_t>(next));
  }
}

}  // namespace rein::services
