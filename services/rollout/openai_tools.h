// Tools in OpenAI's requests: what may be called, how this model writes a call, and conversations that have calls in
// them. Pure.
//
// `tools` are functions; tool_choice is "auto" (the policy calls what it likes) or "none" (it is shown no tools). A call
// is read as the policy wrote it, never forced: "required" and a named function are refused. A function with `strict`
// is called with arguments that fit its parameters; a call that does not fit, like one that cannot be read, stays
// content. `tool_format` (hermes, llama; beyond OpenAI's) says how calls are written where the chat template does not.

#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "common/json/json_schema.h"
#include "common/text/model_text.h"
#include "rollout/environments/tool_calls.h"

namespace rein::services {

struct OpenAiTools {
  v1::ToolFormat format = v1::TOOL_FORMAT_UNSPECIFIED;
  std::vector<std::string> schemas;                   // as the request has them, for the chat template
  std::map<std::string, json::JsonSchema> strict;     // parameters of strict functions by name
  bool parallel = true;                               // more than one call in a turn

  // Whether a call that can be read fits what was asked for.
  bool Accepts(const rollout::ToolCall& call) const;
};

// Absent: no tools, or tool_choice none. INVALID_ARGUMENT begins with the field that is wrong, also for a model whose
// chat template shows no tools.
absl::StatusOr<std::optional<OpenAiTools>> ReadTools(const nlohmann::ordered_json& body, const text::ModelText& text);

// `messages` as the chat template wants them: a call's arguments are an object there, and JSON in a text here.
absl::StatusOr<std::vector<text::ChatMessage>> ReadMessages(const nlohmann::ordered_json& body);

// INVALID_ARGUMENT when the prompt that was rendered of `messages` leaves out a call that is in them.
absl::Status CheckCallsAreShown(const std::vector<text::ChatMessage>& messages, const std::string& rendered);

}  // namespace rein::services
