#include "common/data/prompt_encoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::data {

std::vector<text::ChatMessage> PromptEncoder::Messages(const PromptRow& row) const {
  std::vector<text::ChatMessage> messages = row.messages;
  if (!options_.system.empty() && messages.front().role != "system") {
    messages.insert(messages.begin(), {"system", options_.system});
  }
  return messages;
}

absl::StatusOr<std::vector<uint32_t>> PromptEncoder::EncodePrompt(const PromptRow& row) const {
  std::vector<uint32_t> ids;
  if (options_.chat_template) {
    REIN_ASSIGN_OR_RETURN(ids, text_->EncodePrompt(Messages(row)));
  } else if (row.is_text) {
    REIN_ASSIGN_OR_RETURN(ids, text_->Encode(row.messages[0].content, /*add_special_tokens=*/true));
  } else {
    return absl::InvalidArgumentError(
        "the prompt is a list of messages, which needs chat_template: true");
  }
  if (ids.empty()) return absl::InvalidArgumentError("the prompt has no token");
  return ids;
}

absl::StatusOr<AnsweredPrompt> PromptEncoder::EncodeAnswer(const PromptRow& row) const {
  if (!row.has_answer) return absl::InvalidArgumentError("the line has no answer to learn");
  AnsweredPrompt result;
  REIN_ASSIGN_OR_RETURN(result.token_ids, EncodePrompt(row));
  result.prompt_tokens = static_cast<uint32_t>(result.token_ids.size());
  std::vector<uint32_t> answer;
  if (options_.chat_template) {
    REIN_ASSIGN_OR_RETURN(answer, ChatAnswer(row));
  } else {
    REIN_ASSIGN_OR_RETURN(answer, text_->Encode(row.answer, /*add_special_tokens=*/false));
    if (std::optional<uint32_t> eos = text_->eos_token_id()) answer.push_back(*eos);
  }
  if (answer.empty()) return absl::InvalidArgumentError("the answer has no token");
  result.token_ids.insert(result.token_ids.end(), answer.begin(), answer.end());
  return result;
}

// What the template writes after the prompt once the answer is there. It is tokenised apart from
// the prompt, as it is when a model writes it.
absl::StatusOr<std::vector<uint32_t>> PromptEncoder::ChatAnswer(const PromptRow& row) const {
  std::vector<text::ChatMessage> messages = Messages(row);
  REIN_ASSIGN_OR_RETURN(std::string prompt, text_->RenderChat(messages, true));
  messages.push_back({"assistant", row.answer});
  REIN_ASSIGN_OR_RETURN(std::string whole, text_->RenderChat(messages, false));
  if (whole.compare(0, prompt.size(), prompt) != 0) {
    return absl::InvalidArgumentError(
        "the chat template changes the prompt once the answer follows it, so the answer cannot be "
        "learned in the context that generation has; use chat_template: false or another template");
  }
  REIN_ASSIGN_OR_RETURN(
      std::vector<uint32_t> answer,
      text_->Encode(std::string_view(whole).substr(prompt.size()), /*add_special_tokens=*/false));
  EndWithStopToken(answer);
  return answer;
}

// Templates write more after the end of a turn (a line break, say), which is never generated; a
// template without stop token would teach a model never to stop.
void PromptEncoder::EndWithStopToken(std::vector<uint32_t>& answer) const {
  const std::vector<uint32_t>& stops = text_->stop_token_ids();
  auto is_stop = [&](uint32_t id) {
    return std::find(stops.begin(), stops.end(), id) != stops.end();
  };
  auto last = std::find_if(answer.rbegin(), answer.rend(), is_stop);
  if (last != answer.rend()) {
    answer.erase(last.base(), answer.end());
  } else if (std::optional<uint32_t> eos = text_->eos_token_id()) {
    answer.push_back(*eos);
  }
}

}  // namespace rein::data
