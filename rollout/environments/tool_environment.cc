#include "rollout/environments/tool_environment.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

#include "common/status/status_macros.h"
#include "rollout/environments/calculator.h"
#include "rollout/environments/tool_calls.h"

namespace rein::rollout {
namespace {

// One parameter, a text: all that these tools need.
struct Tool {
  const char* name;
  const char* description;
  const char* parameter;
  const char* meaning;
};

constexpr Tool kCalculator = {"calculator", "Evaluates an arithmetic expression and returns the result.", "expression",
                              "The expression, such as (3 + 4) * 2 / 7 or sqrt(2)."};
constexpr Tool kPython = {"python", "Runs a Python 3 program and returns what it prints.", "code",
                          "The program. It has no network, no files, and prints its result."};

std::string SchemaOf(const Tool& tool) {
  nlohmann::ordered_json parameters = {
      {"type", "object"},
      {"properties", {{tool.parameter, {{"type", "string"}, {"description", tool.meaning}}}}},
      {"required", {tool.parameter}}};
  return nlohmann::ordered_json({{"type", "function"},
                                 {"function",
                                  {{"name", tool.name},
                                   {"description", tool.description},
                                   {"parameters", std::move(parameters)}}}})
      .dump();
}

std::vector<Tool> ToolsOf(const v1::ToolEnvironment& settings) {
  std::vector<Tool> tools;
  if (settings.has_calculator()) tools.push_back(kCalculator);
  if (settings.has_code()) tools.push_back(kPython);
  return tools;
}

// Cut between characters of UTF-8, and says so.
std::string Cut(std::string text, size_t most) {
  if (text.size() <= most) return text;
  const size_t bytes = text.size();
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), "\n[cut here: ", bytes, " bytes in all]");
}

absl::Status CheckSettings(const v1::EnvironmentConfig& config) {
  if (!config.has_tools()) {
    return absl::InvalidArgumentError("environment: want `tools`: other environments are not served here");
  }
  if (ToolsOf(config.tools()).empty()) {
    return absl::InvalidArgumentError("environment.tools: want at least one of calculator, code");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::EnvironmentResetReply> ToolEnvironment::Reset(const v1::EnvironmentResetRequest& request,
                                                                 absl::Time) {
  REIN_RETURN_IF_ERROR(CheckSettings(request.settings()));
  v1::EnvironmentResetReply reply;
  for (const Tool& tool : ToolsOf(request.settings().tools())) reply.add_tools(SchemaOf(tool));
  return reply;
}

absl::StatusOr<v1::EnvironmentStepReply> ToolEnvironment::Step(const v1::EnvironmentStepRequest& request,
                                                               absl::Time deadline) {
  REIN_RETURN_IF_ERROR(CheckSettings(request.settings()));
  const v1::ToolEnvironment& settings = request.settings().tools();
  v1::EnvironmentStepReply reply;
  const std::vector<ToolCall> calls = ParseToolCalls(settings.format(), request.text());
  if (calls.empty() || request.truncated()) {
    reply.set_done(true);
    return reply;
  }
  std::vector<std::string> names;
  for (size_t i = 0; i < calls.size(); ++i) {
    const ToolCall& call = calls[i];
    // What the tool says; an error of the call is told the same way.
    auto answer = [&]() -> absl::StatusOr<std::string> {
      if (i >= settings.max_calls()) {
        return absl::StrCat("error: at most ", settings.max_calls(), " calls in one turn");
      }
      if (!call.error.empty()) return absl::StrCat("error: ", call.error);
      std::vector<std::string> known;
      for (const Tool& tool : ToolsOf(settings)) {
        known.push_back(tool.name);
        if (call.name != tool.name) continue;
        auto argument = call.arguments.find(tool.parameter);
        if (argument == call.arguments.end() || !argument->is_string()) {
          return absl::StrCat("error: ", call.name, " wants a text \"", tool.parameter, "\"");
        }
        const std::string text = argument->get<std::string>();
        if (call.name == kPython.name) return run_program_(settings.code(), text, deadline - absl::Now());
        absl::StatusOr<std::string> result = Calculate(text);
        return result.ok() ? *result : absl::StrCat("error: ", std::string(result.status().message()));
      }
      return absl::StrCat("error: there is no tool ", call.name, ", there are: ", absl::StrJoin(known, ", "));
    };
    REIN_ASSIGN_OR_RETURN(std::string said, answer());
    v1::Message* message = reply.add_messages();
    message->set_role("tool");
    message->set_content(Cut(std::move(said), settings.max_result_bytes()));
    names.push_back(call.error.empty() ? call.name : "unreadable call");
  }
  reply.set_note(absl::StrCat("called ", absl::StrJoin(names, ", ")));
  return reply;
}

}  // namespace rein::rollout
