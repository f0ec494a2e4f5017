// ParseToolCalls finds the tool calls in what a policy wrote, in the forms that models are trained on.
//
//   hermes   <tool_call>{"name": "calculator", "arguments": {"expression": "2+2"}}</tool_call>, any number, text around
//            them; Hermes 2 Pro, Qwen 2.5 and 3 (vLLM's parser `hermes`)
//   llama    {"name": "calculator", "parameters": {"expression": "2+2"}} as the whole turn, several separated by `;`,
//            <|python_tag|> before it; Llama 3.1 and later (vLLM's `llama3_json`; `arguments` is taken too)

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "rein/v1/job.pb.h"

namespace rein::rollout {

struct ToolCall {
  std::string name;
  nlohmann::json arguments;  // an object
  // Not empty: this call cannot be read, and why; name and arguments are empty.
  std::string error;
};

// In the order of the text; empty: the turn calls nothing. A call that is begun but cannot be read is there with its
// error, so that the policy is told. Nesting and size of the JSON are bounded.
std::vector<ToolCall> ParseToolCalls(v1::ToolFormat format, std::string_view text);

}  // namespace rein::rollout
