#include "common/data/prompt_encoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "absl/strings/match.h"
#include <nlohmann/json.hpp>

#include "common/data/messages_json.h"
#include "common/status/status_macros.h"

namespace rein::data {
namespace {

text::ChatMessage AnswerOf(const PromptRow& row) {
  return {"assistant", row.answer, row.answer_fields, row.answer_weight};
}

}  // namespace

absl::Status PromptEncoder::CheckTurn(const text::ChatMessage& turn, const std::string& which) const {
  const bool blank = turn.content.find_first_not_of(" \t\r\n") == std::string::npos;
  if (!options_.refuse_empty || !blank || !turn.fields.empty() || turn.weight == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      which, " of the assistant is empty, which would teach to say nothing; leave the line out, or give the turn weight 0"));
}

// What the template makes of `messages`, which are of `row`, and of its tools. One that knows no tools would leave them out
// without a word.
absl::StatusOr<std::string> PromptEncoder::Render(const PromptRow& row, const std::vector<text::ChatMessage>& messages,
                                                  bool prompt) const {
  REIN_ASSIGN_OR_RETURN(std::string rendered, text_->RenderChat(messages, prompt, row.tools));
  auto hidden = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template does not show ", what, " to the model"));
  };
  for (const std::string& tool : row.tools) {
    const std::string name = FunctionName(nlohmann::ordered_json::parse(tool));
    if (!absl::StrContains(rendered, name)) return hidden(absl::StrCat("the tool ", name));
  }
  const std::string call = HiddenCall(messages, rendered);
  if (!call.empty()) return hidden(absl::StrCat("calls such as of ", call));
  return rendered;
}

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
    REIN_ASSIGN_OR_RETURN(std::string prompt, Render(row, Messages(row), /*prompt=*/true));
    REIN_ASSIGN_OR_RETURN(ids, text_->Encode(prompt, /*add_special_tokens=*/false));
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
  REIN_RETURN_IF_ERROR(CheckTurn(AnswerOf(row), "the last turn"));
  const bool earlier_turns =
      std::any_of(row.messages.begin(), row.messages.end(),
                  [](const text::ChatMessage& m) { return m.role == "assistant"; });
  if (options_.chat_template && options_.all_turns && earlier_turns) return EncodeTurns(row);
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
  result.loss_mask.assign(result.token_ids.size(), 0);
  result.loss_mask.insert(result.loss_mask.end(), answer.size(), row.answer_weight == 0 ? 0 : 1);
  if (row.answer_weight != 0 && row.answer_weight != 1) result.weights.assign(answer.size(), row.answer_weight);
  result.token_ids.insert(result.token_ids.end(), answer.begin(), answer.end());
  return result;
}

absl::StatusOr<AnsweredPrompt> PromptEncoder::EncodeSteps(const PromptRow& row, const std::vector<std::string>& steps,
                                                          const std::string& separator) const {
  if (steps.empty()) return absl::InvalidArgumentError("the answer has no steps");
  AnsweredPrompt result;
  REIN_ASSIGN_OR_RETURN(result.token_ids, EncodePrompt(row));
  result.prompt_tokens = static_cast<uint32_t>(result.token_ids.size());
  result.loss_mask.assign(result.token_ids.size(), 0);
  for (size_t i = 0; i < steps.size(); ++i) {
    REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> step,
                          text_->Encode(absl::StrCat(steps[i], separator), /*add_special_tokens=*/false));
    if (step.empty()) return absl::InvalidArgumentError(absl::StrCat("step ", i, " of the answer has no token"));
    result.token_ids.insert(result.token_ids.end(), step.begin(), step.end());
    result.loss_mask.resize(result.token_ids.size(), 0);
    result.loss_mask.back() = 1;
  }
  return result;
}

// The template itself says where a turn begins (where generation would) and ends (at its stop token).
absl::StatusOr<AnsweredPrompt> PromptEncoder::EncodeTurns(const PromptRow& row) const {
  std::vector<text::ChatMessage> messages = Messages(row);
  messages.push_back(AnswerOf(row));
  AnsweredPrompt result;
  std::string written;  // as text, of what has been encoded
  std::vector<text::ChatMessage> so_far;
  // Appends what the template writes after `written`.
  auto append = [&](bool prompt, size_t message) -> absl::Status {
    REIN_ASSIGN_OR_RETURN(std::string text, Render(row, so_far, prompt));
    if (text.compare(0, written.size(), written) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the chat template changes what came before once message ", message + 1,
          " follows, so that turn cannot be learned in the context that generation has; use turns: last"));
    }
    REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> ids,
                          text_->Encode(std::string_view(text).substr(written.size()), false));
    const size_t targets = prompt ? 0 : TokensOfTurn(ids);
    if (prompt) result.prompt_tokens = static_cast<uint32_t>(result.token_ids.size() + ids.size());
    const double weight = messages[message].weight;
    for (size_t i = 0; i < ids.size(); ++i) result.loss_mask.push_back(i < targets && weight > 0 ? 1 : 0);
    if (weight > 0) result.weights.insert(result.weights.end(), targets, weight);
    result.token_ids.insert(result.token_ids.end(), ids.begin(), ids.end());
    written = std::move(text);
    return absl::OkStatus();
  };
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == "assistant") {
      REIN_RETURN_IF_ERROR(CheckTurn(messages[i], absl::StrCat("turn ", i + 1)));
      REIN_RETURN_IF_ERROR(append(/*prompt=*/true, i));
    }
    so_far.push_back(messages[i]);
    if (messages[i].role == "assistant") REIN_RETURN_IF_ERROR(append(/*prompt=*/false, i));
  }
  // As for a single answer, nothing stands after the last token that is learned.
  while (!result.loss_mask.empty() && result.loss_mask.back() == 0) {
    result.loss_mask.pop_back();
    result.token_ids.pop_back();
  }
  if (std::all_of(result.weights.begin(), result.weights.end(), [](double w) { return w == 1; })) result.weights.clear();
  return result;
}

// Up to and with the stop token; all of them where there is none.
size_t PromptEncoder::TokensOfTurn(const std::vector<uint32_t>& turn) const {
  const std::vector<uint32_t>& stops = text_->stop_token_ids();
  for (size_t n = turn.size(); n > 0; --n) {
    if (std::find(stops.begin(), stops.end(), turn[n - 1]) != stops.end()) return n;
  }
  return turn.size();
}

// What the template writes after the prompt once the answer is there. It is tokenised apart from
// the prompt, as it is when a model writes it.
absl::StatusOr<std::vector<uint32_t>> PromptEncoder::ChatAnswer(const PromptRow& row) const {
  std::vector<text::ChatMessage> messages = Messages(row);
  REIN_ASSIGN_OR_RETURN(std::string prompt, Render(row, messages, true));
  messages.push_back(AnswerOf(row));
  REIN_ASSIGN_OR_RETURN(std::string whole, Render(row, messages, false));
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
  answer.resize(TokensOfTurn(answer));
  const bool stopped =
      !answer.empty() && std::find(stops.begin(), stops.end(), answer.back()) != stops.end();
  std::optional<uint32_t> eos = text_->eos_token_id();
  if (!stopped && eos) answer.push_back(*eos);
}

}  // namespace rein::data
