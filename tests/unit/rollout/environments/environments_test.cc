// The built-in tools: what they compute, how their calls are read, and what a policy is told when a call is wrong.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rollout/environments/calculator.h"
#include "rollout/environments/tool_calls.h"
#include "rollout/environments/tool_environment.h"

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Result(const std::string& expression) {
  absl::StatusOr<std::string> result = Calculate(expression);
  return result.ok() ? *result : "error: " + std::string(result.status().message());
}

TEST(CalculatorTest, IsExactWhereItCanBe) {
  for (const auto& [expression, result] : std::vector<std::pair<std::string, std::string>>{
           {"2 + 3*4", "14"},
           {"(1+2)*-3", "-9"},
           {"2^3^2", "512"},
           {"-2**2", "-4"},
           {"123456789 * 987654321", "121932631112635269"},
           {"1/3 + 1/6", "0.5"},
           {"1/3", "1/3 = 0.3333333333333333"},
           {"7 // 2", "3"},
           {"-7 // 2", "-4"},
           {"-7 % 3", "2"},
           {"0.1 + 0.2", "0.3"},
           {"1,234,567 + 1", "1234568"},
           {"1e3 - 1", "999"},
           {"2**-2", "0.25"},
           {"sqrt(16/9)", "4/3 = 1.3333333333333333"},
           {"sqrt(2)", "1.4142135623730951"},
           {"factorial(20)", "2432902008176640000"},
           {"max(1,200, 3)", "200"},
           {"min(3, 1/2)", "0.5"},
           {"round(2.675, 2)", "2.68"},
           {"round(-2.5)", "-3"},
           {"floor(-0.5) + ceil(0.5)", "0"},
           {"gcd(12, 18)", "6"},
           {"abs(-3/4)", "0.75"},
           {"log(8, 2)", "3"},
           {"cos(0) + ln(e)", "2"},
           {"6 × 7 ÷ 2", "21"}}) {
    EXPECT_EQ(Result(expression), result) << expression;
  }
}

TEST(CalculatorTest, SaysWhatIsWrong) {
  EXPECT_EQ(Result("1/0"), "error: division by zero");
  EXPECT_EQ(Result("0**-1"), "error: division by zero");
  EXPECT_EQ(Result("2 +"), "error: the expression ends too early");
  EXPECT_EQ(Result("2 2"), "error: '2' at 3 is not understood");
  EXPECT_EQ(Result("(1"), "error: a ) is missing at 3");
  EXPECT_EQ(Result("x + 1"), "error: there is no number x");
  EXPECT_EQ(Result("__import__('os')"), "error: ''os')' at 12 is not understood");
  EXPECT_EQ(Result("sqrt(1, 2)"), "error: sqrt got 2 numbers, wants 1");
  EXPECT_EQ(Result("factorial(200)"), "error: factorial of more than 170");
  EXPECT_EQ(Result("sqrt(-1)"), "error: the result is no finite number");
  EXPECT_EQ(Result("9**9**9**9"), "error: the result is no finite number");
  EXPECT_THAT(Result(std::string(500, '(')), HasSubstr("deep"));
  EXPECT_THAT(Result(std::string(500, '-') + "1"), HasSubstr("deep"));
  EXPECT_THAT(Result(std::string(2000, '1')), HasSubstr("at most 1000"));
}

TEST(ToolCallsTest, HermesCallsAreFoundAmongText) {
  auto calls = ParseToolCalls(v1::TOOL_FORMAT_HERMES,
                              "I think.\n<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"2+2\"}}\n"
                              "</tool_call> and <tool_call>{\"name\": \"b\", \"arguments\": \"{\\\"x\\\": 1}\"}</tool_call>");
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].name, "calculator");
  EXPECT_EQ(calls[0].arguments["expression"], "2+2");
  EXPECT_EQ(calls[1].name, "b");
  EXPECT_EQ(calls[1].arguments["x"], 1) << "arguments written as text, as OpenAI's API has them";
  EXPECT_TRUE(ParseToolCalls(v1::TOOL_FORMAT_HERMES, "The answer is 4.").empty());
  EXPECT_TRUE(ParseToolCalls(v1::TOOL_FORMAT_HERMES, "{\"name\": \"calculator\"}").empty());
}

TEST(ToolCallsTest, LlamaCallsAreTheWholeTurn) {
  auto calls = ParseToolCalls(v1::TOOL_FORMAT_LLAMA,
                              "<|python_tag|>{\"name\": \"a\", \"parameters\": {\"x\": \"};{\"}}; {\"name\": \"b\", \"parameters\": {}}");
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].name, "a");
  EXPECT_EQ(calls[0].arguments["x"], "};{");
  EXPECT_EQ(calls[1].name, "b");
  EXPECT_TRUE(ParseToolCalls(v1::TOOL_FORMAT_LLAMA, "It is {\"name\": \"a\"}").empty());
}

TEST(ToolCallsTest, WhatCannotBeReadIsToldAndNotLost) {
  auto error = [](v1::ToolFormat format, const std::string& text) {
    auto calls = ParseToolCalls(format, text);
    return calls.size() == 1 ? calls[0].error : "there are " + std::to_string(calls.size()) + " calls";
  };
  EXPECT_EQ(error(v1::TOOL_FORMAT_HERMES, "<tool_call>{\"name\": \"a\"}"), "</tool_call> is missing");
  EXPECT_THAT(error(v1::TOOL_FORMAT_HERMES, "<tool_call>{name: a}</tool_call>"), HasSubstr("the call is no JSON"));
  EXPECT_THAT(error(v1::TOOL_FORMAT_HERMES, "<tool_call>[1]</tool_call>"), HasSubstr("wants a JSON object"));
  EXPECT_THAT(error(v1::TOOL_FORMAT_HERMES, "<tool_call>{\"name\": \"a\", \"arguments\": 3}</tool_call>"),
              HasSubstr("\"arguments\" is no JSON object"));
  EXPECT_EQ(error(v1::TOOL_FORMAT_LLAMA, "{\"name\": \"a\""), "the JSON object does not end");
  EXPECT_THAT(error(v1::TOOL_FORMAT_LLAMA, "{\"name\": 7}"), HasSubstr("wants a JSON object"));
  for (const char* text : {"{\"name\": \"a\"} so there", "{\"name\": \"a\"}; so there"}) {
    auto calls = ParseToolCalls(v1::TOOL_FORMAT_LLAMA, text);
    ASSERT_EQ(calls.size(), 2u) << text;
    EXPECT_THAT(calls[1].error, HasSubstr("text follows the call")) << text;
  }
}

// What a reader of the stream has at the end: the text, then the calls as [name{arguments}].
std::string Read(v1::ToolFormat format, const std::string& text, size_t piece_bytes,
                 std::function<bool(const ToolCall&)> accepts = nullptr) {
  ToolCallReader reader(format, std::move(accepts));
  std::string content, calls;
  auto see = [&](const ToolCallReader::Part& part) {
    content += part.content;
    for (const ToolCall& call : part.calls) calls += "[" + call.name + call.arguments.dump() + "]";
  };
  for (size_t i = 0; i < text.size(); i += piece_bytes) see(reader.Append(std::string_view(text).substr(i, piece_bytes)));
  see(reader.Finish());
  return content + calls;
}

TEST(ToolCallReaderTest, PartsTextFromCallsWhereverThePiecesEnd) {
  const std::string a = R"(<tool_call>
{"name": "a", "arguments": {"z": 1, "b": [2]}}
</tool_call>)", bad = "<tool_call>{\"name\": }</tool_call>";
  for (size_t piece : {1, 2, 3, 7, 1000}) {
    auto hermes = [&](const std::string& text) { return Read(v1::TOOL_FORMAT_HERMES, text, piece); };
    EXPECT_EQ(hermes("No call <tool, <tool_call, 3 < 4. \n"), "No call <tool, <tool_call, 3 < 4. \n");
    EXPECT_EQ(hermes(a), R"([a{"z":1,"b":[2]}])");
    EXPECT_EQ(hermes("\nI see.\n" + a + "\n" + a + "\n"), "\nI see." + std::string(R"([a{"z":1,"b":[2]}][a{"z":1,"b":[2]}])"));
    EXPECT_EQ(hermes(a + "\n\nDone. "), R"(Done.[a{"z":1,"b":[2]}])");
    EXPECT_EQ(hermes("x " + a + " y"), "x  y" + std::string(R"([a{"z":1,"b":[2]}])"));
    EXPECT_EQ(hermes(bad + " and " + a), bad + " and" + R"([a{"z":1,"b":[2]}])") << "what cannot be read stays text";
    EXPECT_EQ(hermes("So: <tool_call>{\"name\": \"a\""), "So: <tool_call>{\"name\": \"a\"") << "it never ends";
    auto llama = [&](const std::string& text) { return Read(v1::TOOL_FORMAT_LLAMA, text, piece); };
    EXPECT_EQ(llama(R"({"name": "a", "parameters": {"x": "{"}}; {"name": "b", "parameters": {}})"), R"([a{"x":"{"}][b{}])");
    EXPECT_EQ(llama(R"( <|python_tag|>{"name": "a", "parameters": {}})"), "[a{}]");
    EXPECT_EQ(llama(R"( It is {"name": "a", "parameters": {}})"), R"( It is {"name": "a", "parameters": {}})");
    EXPECT_EQ(llama(R"({"answer": 4})"), R"({"answer": 4})");
    EXPECT_EQ(llama(R"({"name": "a", "parameters": {}}; so there)"), R"({"name": "a", "parameters": {}}; so there)");
    EXPECT_EQ(llama("<| {"), "<| {");
    EXPECT_EQ(Read(v1::TOOL_FORMAT_HERMES, a, piece, [](const ToolCall& call) { return call.name != "a"; }), a);
  }
}

TEST(ToolCallReaderTest, HoldsBackOnlyWhatMayBeACall) {
  ToolCallReader reader(v1::TOOL_FORMAT_HERMES);
  EXPECT_EQ(reader.Append("I think ").content, "I think");
  EXPECT_EQ(reader.Append("<").content, "");
  EXPECT_EQ(reader.Append("3").content, " <3");
  ToolCallReader llama(v1::TOOL_FORMAT_LLAMA);
  EXPECT_EQ(llama.Append("{").content, "");
  EXPECT_TRUE(llama.Append("\"name\": \"a\"}").calls.empty()) << "more calls may follow, or text";
  EXPECT_EQ(llama.Finish().calls.size(), 1u);
}

class ToolEnvironmentTest : public ::testing::Test {
 protected:
  ToolEnvironmentTest() {
    settings_.mutable_tools()->mutable_calculator();
    settings_.mutable_tools()->mutable_code();
    settings_.mutable_tools()->set_format(v1::TOOL_FORMAT_HERMES);
    settings_.mutable_tools()->set_max_calls(2);
    settings_.mutable_tools()->set_max_result_bytes(20);
  }

  v1::EnvironmentStepReply Step(const std::string& text, bool truncated = false) {
    v1::EnvironmentStepRequest request;
    *request.mutable_settings() = settings_;
    request.set_text(text);
    request.set_truncated(truncated);
    auto reply = environment_.Step(request, absl::InfiniteFuture());
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : v1::EnvironmentStepReply();
  }

  std::string Said(const std::string& call) {
    v1::EnvironmentStepReply reply = Step("<tool_call>" + call + "</tool_call>");
    EXPECT_FALSE(reply.done());
    EXPECT_EQ(reply.messages_size(), 1);
    EXPECT_EQ(reply.messages(0).role(), "tool");
    return reply.messages(0).content();
  }

  v1::EnvironmentConfig settings_;
  std::vector<std::string> programs_;
  ToolEnvironment environment_{[this](const v1::CodeTool&, const std::string& program, absl::Duration) {
    programs_.push_back(program);
    return absl::StatusOr<std::string>("printed");
  }};
};

TEST_F(ToolEnvironmentTest, TellsOfItsToolsAndRunsThem) {
  v1::EnvironmentResetRequest reset;
  *reset.mutable_settings() = settings_;
  auto begun = environment_.Reset(reset, absl::InfiniteFuture());
  ASSERT_TRUE(begun.ok()) << begun.status();
  ASSERT_EQ(begun->tools_size(), 2);
  nlohmann::json schema = nlohmann::json::parse(begun->tools(0));
  EXPECT_EQ(schema["function"]["name"], "calculator");
  EXPECT_EQ(schema["function"]["parameters"]["required"], nlohmann::json({"expression"}));
  EXPECT_EQ(Said(R"({"name": "calculator", "arguments": {"expression": "2*21"}})"), "42");
  EXPECT_EQ(Said(R"j({"name": "python", "arguments": {"code": "print(1)"}})j"), "printed");
  EXPECT_THAT(programs_, ElementsAre("print(1)"));
}

TEST_F(ToolEnvironmentTest, ATurnWithoutACallIsTheAnswer) {
  EXPECT_TRUE(Step("It is 42.").done());
  EXPECT_TRUE(Step("<tool_call>{\"name\"", /*truncated=*/true).done()) << "a turn that was cut calls nothing";
}

TEST_F(ToolEnvironmentTest, TellsThePolicyWhatIsWrong) {
  settings_.mutable_tools()->set_max_result_bytes(200);
  EXPECT_EQ(Said(R"({"name": "calculator", "arguments": {"expression": "1/0"}})"), "error: division by zero");
  EXPECT_EQ(Said(R"({"name": "google", "arguments": {}})"), "error: there is no tool google, there are: calculator, python");
  EXPECT_EQ(Said(R"({"name": "calculator", "arguments": {"x": 1}})"), "error: calculator wants a text \"expression\"");
  EXPECT_THAT(Said("{"), HasSubstr("error: the call is no JSON"));
  const std::string call = R"(<tool_call>{"name": "calculator", "arguments": {"expression": "1"}}</tool_call>)";
  v1::EnvironmentStepReply three = Step(call + call + call);
  ASSERT_EQ(three.messages_size(), 3);
  EXPECT_EQ(three.messages(1).content(), "1");
  EXPECT_EQ(three.messages(2).content(), "error: at most 2 calls in one turn");
}

TEST_F(ToolEnvironmentTest, LongAnswersAreCutAndSaySo) {
  EXPECT_EQ(Said(R"({"name": "calculator", "arguments": {"expression": "1/7"}})"), "1/7 = 0.142857142857\n[cut here: 25 bytes in all]");
}

TEST_F(ToolEnvironmentTest, RefusesSettingsOfOthers) {
  v1::EnvironmentResetRequest reset;
  EXPECT_THAT(std::string(environment_.Reset(reset, absl::InfiniteFuture()).status().message()), HasSubstr("want `tools`"));
  reset.mutable_settings()->mutable_tools();
  EXPECT_THAT(std::string(environment_.Reset(reset, absl::InfiniteFuture()).status().message()),
              HasSubstr("at least one of calculator, code"));
}

}  // namespace
}  // namespace rein::rollout
