// ParseToolCalls finds the tool calls in what a policy wrote, in the forms that models are trained on; ToolCallReader
// does while the text grows.
//
//   hermes   <tool_call>{"name": "calculator", "arguments": {"expression": "2+2"}}</tool_call>, any number, text around
//            them; Hermes 2 Pro, Qwen 2.5 and 3 (vLLM's parser `hermes`)
//   llama    {"name": "calculator", "parameters": {"expression": "2+2"}} as the whole turn, several separated by `;`,
//            <|python_tag|> before it; Llama 3.1 and later (vLLM's `llama3_json`; `arguments` is taken too)

#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "rein/v1/job.pb.h"

namespace rein::rollout {

struct ToolCall {
  std::string name;
  nlohmann::ordered_json arguments;  // an object, in the order that was written
  // Not empty: this call cannot be read, and why; name and arguments are empty.
  std::string error;
};

// In the order of the text; empty: the turn calls nothing. A call that is begun but cannot be read is there with its
// error, so that the policy is told. Nesting and size of the JSON are bounded.
std::vector<ToolCall> ParseToolCalls(v1::ToolFormat format, std::string_view text);

// Parts what a turn says from what it calls, as the text comes. A call is known when it is whole, for what cannot be
// read stays text; a text that may yet become a call is held back. White space between calls belongs to nobody.
//
//   ToolCallReader reader(v1::TOOL_FORMAT_HERMES);
//   reader.Append("Let me see. <tool_c");                                          // .content "Let me see."
//   reader.Append("all>{\"name\": \"a\", \"arguments\": {}}</tool_call>");           // .calls: a
//   reader.Finish();
class ToolCallReader {
 public:
  struct Part {
    std::string content;
    std::vector<ToolCall> calls;  // readable ones
  };

  // `accepts`: whether a call that can be read is one; else it stays text. Empty: all are.
  explicit ToolCallReader(v1::ToolFormat format, std::function<bool(const ToolCall&)> accepts = nullptr)
      : format_(format), accepts_(std::move(accepts)) {}

  // What became final with this piece.
  Part Append(std::string_view piece);
  // What was held back.
  Part Finish();

 private:
  void ReadHermes(Part& part);
  // The calls of `text` if all of it is calls that are accepted; else it is said.
  void ReadOrSay(std::string_view text, Part& part);
  void Say(std::string_view text, Part& part);

  const v1::ToolFormat format_;
  const std::function<bool(const ToolCall&)> accepts_;
  std::string held_;   // not yet decided
  std::string space_;  // white space that ends what was said so far
  bool said_ = false, called_ = false;
};

}  // namespace rein::rollout
