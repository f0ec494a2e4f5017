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
// the assistant. INVALID_ARGUMENT names `column` and the message.
absl::StatusOr<std::vector<text::ChatMessage>> MessagesFromJson(const std::string& column,
                                                                const nlohmann::json& value);

}  // namespace rein::data
