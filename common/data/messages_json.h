// Reads a list of chat messages from JSON.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "common/text/model_text.h"

namespace rein::data {

// `value` must be a list, not empty, of {role, content}; content is a text, or a list of parts of
// which all are {"type": "text", "text": ...}. ShareGPT's {from, value} is read too: human is the user, gpt
// the assistant. What else a message holds (name, tool_calls, tool_call_id, ...) goes to the chat template; a message with
// tool_calls may have no content. `weight` (OpenAI's 0 or 1, here any number from 0) is what the turn counts in training.
// INVALID_ARGUMENT names `column` and the message; so does a system message that is not the first, and a result of a tool
// without a turn of the assistant before it.
absl::StatusOr<std::vector<text::ChatMessage>> MessagesFromJson(const std::string& column,
                                                                const nlohmann::ordered_json& value);

// Schemas of tools for a chat template, each a JSON object: from a list of them, or such a list as JSON in a text, as tables
// hold it. INVALID_ARGUMENT names `column`.
absl::StatusOr<std::vector<std::string>> ToolsFromJson(const std::string& column,
                                                       const nlohmann::ordered_json& value);

// The name of a function that a schema describes or a call calls: {"name": ...} or {"function": {"name": ...}}; "" is none.
std::string FunctionName(const nlohmann::ordered_json& tool);

// The function of the first of the messages' calls that `rendered` does not show: the chat template has left it out. "" is
// none.
std::string HiddenCall(const std::vector<text::ChatMessage>& messages, const std::string& rendered);

// Arguments of a call, which OpenAI writes as JSON in a text, become the object that chat templates want.
// INVALID_ARGUMENT where they are none.
absl::Status ReadArguments(nlohmann::ordered_json& function);

}  // namespace rein::data
