// Tools at the OpenAI-compatible door: what templates are shown, and how calls are found in what a policy wrote.

#include "services/rollout/openai_tools.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/rollout/openai_request.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

// As Qwen's templates and Llama's write tools and calls.
constexpr char kHermes[] =
    "{%- if tools %}{{- '# Tools' }}{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}{{- '\\n' }}{%- endif %}"
    "{%- for m in messages %}{{- '<|user|>' + m.role + ': ' + m.content }}{%- if m.tool_calls %}{%- for call in m.tool_calls %}"
    "{{- '<tool_call>{\"name\": \"' + call.function.name + '\", \"arguments\": ' + (call.function.arguments | tojson) + '}</tool_call>' }}"
    "{%- endfor %}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}";
constexpr char kLlama[] =
    "{%- for tool in tools or [] %}{{- tool.function.name }}{%- endfor %}{%- for m in messages %}"
    "{%- if 'tool_calls' in m %}{{- '{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": ' }}"
    "{{- m.tool_calls[0].function.arguments | tojson }}{{- '}' }}{%- else %}{{- m.content }}{%- endif %}{%- endfor %}";
constexpr char kNeither[] =
    "{%- for tool in tools or [] %}{{- tool.function.name }}{%- endfor %}{%- for m in messages %}{{- m.content }}{%- endfor %}";

constexpr char kTool[] = R"({"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters":
  {"type": "object", "properties": {"word": {"type": "string"}, "at": {"type": "integer"}}, "required": ["word"]}}})";

class OpenAiToolsTest : public ::testing::Test {
 protected:
  std::unique_ptr<text::ModelText> With(const std::string& jinja) {
    const std::string folder = ::testing::TempDir() + "/openai_tools_" + std::to_string(++folders_);
    std::filesystem::create_directories(folder);
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "config.json"}) {
      std::filesystem::copy_file(std::string("configs/models/digits/") + name, folder + "/" + name,
                                 std::filesystem::copy_options::overwrite_existing);
    }
    std::ofstream(folder + "/chat_template.jinja") << jinja;
    auto text = text::ModelText::Load(folder);
    EXPECT_TRUE(text.ok()) << text.status();
    return *std::move(text);
  }
  static absl::StatusOr<OpenAiRequest> Ask(const text::ModelText& text, const std::string& fields,
                                           const std::string& messages = R"([{"role": "user", "content": "?"}])") {
    return ParseOpenAiRequest(R"({"messages": )" + messages + (fields.empty() ? "" : ", ") + fields + "}", true, text, 7);
  }
  static std::string Error(const absl::StatusOr<OpenAiRequest>& request) {
    EXPECT_TRUE(absl::IsInvalidArgument(request.status())) << request.status();
    return std::string(request.status().message());
  }

  int folders_ = 0;
};

TEST_F(OpenAiToolsTest, TheFormIsThatOfTheModelsTemplate) {
  const std::string tools = std::string("\"tools\": [") + kTool + "]";
  auto hermes = With(kHermes), llama = With(kLlama), neither = With(kNeither);
  EXPECT_EQ(Ask(*hermes, tools)->tools->format, v1::TOOL_FORMAT_HERMES);
  EXPECT_EQ(Ask(*llama, tools)->tools->format, v1::TOOL_FORMAT_LLAMA);
  EXPECT_EQ(Ask(*llama, tools + R"(, "tool_format": "hermes")")->tools->format, v1::TOOL_FORMAT_HERMES);
  EXPECT_THAT(Error(Ask(*neither, tools)), HasSubstr("tools: the model's chat template writes calls in no form that is read here"));
  EXPECT_EQ(Ask(*neither, tools + R"(, "tool_format": "llama")")->tools->format, v1::TOOL_FORMAT_LLAMA);
}

TEST_F(OpenAiToolsTest, TheTemplateIsShownToolsAsTheRequestHasThem) {
  auto text = With(kHermes);
  auto request = Ask(*text, std::string("\"tools\": [") + kTool + "], \"tool_choice\": \"auto\"");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompts[0], *text->EncodePrompt({{"user", "?"}}, {kTool}));
  const std::string shown = *text->RenderChat({{"user", "?"}}, true, request->tools->schemas);
  EXPECT_THAT(shown, HasSubstr(R"("properties": {"word": {"type": "string"}, "at": {"type": "integer"}})")) << "in its order";
  auto none = Ask(*text, std::string("\"tools\": [") + kTool + "], \"tool_choice\": \"none\"");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->tools.has_value());
  EXPECT_EQ(none->prompts[0], *text->EncodePrompt({{"user", "?"}}));
}

TEST_F(OpenAiToolsTest, CallsAndTheirResultsAreShownAgain) {
  auto text = With(kHermes);
  const std::string messages = R"([{"role": "user", "content": "?"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
      "function": {"name": "look_up", "arguments": "{\"word\": \"x\", \"at\": 1}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "12"}])";
  auto request = Ask(*text, std::string("\"tools\": [") + kTool + "]", messages);
  ASSERT_TRUE(request.ok()) << request.status();
  const std::vector<text::ChatMessage> chat = *ReadMessages(nlohmann::ordered_json::parse("{\"messages\": " + messages + "}"));
  EXPECT_THAT(*text->RenderChat(chat, true),
              HasSubstr(R"(<tool_call>{"name": "look_up", "arguments": {"word": "x", "at": 1}}</tool_call><|user|>tool: 12)"));
  EXPECT_EQ(request->prompts[0], *text->EncodePrompt(chat, {kTool}));
}

TEST_F(OpenAiToolsTest, MistakesNameTheField) {
  auto text = With(kHermes);
  const std::string tools = std::string("\"tools\": [") + kTool + "]";
  for (const auto& [fields, wanted] : std::vector<std::pair<std::string, std::string>>{
           {R"("tools": {})", "tools: wants a list"},
           {R"("tools": [{"type": "web_search"}])", "tools: wants {\"type\": \"function\""},
           {R"("tools": [{"type": "function", "function": {}}])", "tools.function: wants an object with a name"},
           {R"("tools": [{"type": "function", "function": {"name": "a b"}}])", "tools.function.name: wants letters, digits"},
           {R"("tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}])", "tools.function.parameters: wants a JSON schema"},
           {R"("tools": [{"type": "function", "function": {"name": "a", "strict": true, "parameters": {"$ref": "#"}}}])",
            "tools.function.parameters: a strict function's are checked"},
           {tools + R"(, "tool_choice": "required")", R"(tool_choice: wants "auto" or "none" (a policy's words are its own here: no call is forced), got "required")"},
           {tools + R"(, "tool_choice": {"type": "function", "function": {"name": "look_up"}})", "tool_choice: wants \"auto\" or \"none\""},
           {tools + R"(, "tool_format": "mistral")", "tool_format: wants hermes or llama"},
           {tools + R"(, "parallel_tool_calls": 1)", "parallel_tool_calls: wants true or false"}}) {
    EXPECT_THAT(Error(Ask(*text, fields)), HasSubstr(wanted)) << fields;
  }
  auto call = [](const std::string& one) { return R"([{"role": "assistant", "tool_calls": [)" + one + "]}]"; };
  for (const auto& [messages, wanted] : std::vector<std::pair<std::string, std::string>>{
           {call("3"), "messages.tool_calls: wants {\"id\""},
           {call(R"({"type": "custom"})"), "messages.tool_calls: wants {\"id\""},
           {call(R"({"type": 3, "function": {"name": "f", "arguments": "{}"}})"), "messages.tool_calls: wants {\"id\""},
           {R"([{"role": "user", "content": [{"type": 3, "text": ""}]}])", "messages.content: wants parts of type text"},
           {call(R"({"function": {"name": "f", "arguments": "{"}})"), "messages.tool_calls.function.arguments: wants a JSON object in a text, got \"{\""},
           {call(R"({"function": {"name": "f", "arguments": "[1]"}})"), "messages.tool_calls.function.arguments: wants a JSON object"},
           {R"([{"role": "user", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}])",
            "messages.tool_calls: wants a message of the assistant, got \"user\""},
           {R"([{"role": "tool", "content": "", "tool_call_id": 3}])", "tool_call_id: wants a text"}}) {
    EXPECT_THAT(Error(Ask(*text, "", messages)), HasSubstr(wanted)) << messages;
  }
  EXPECT_THAT(Error(Ask(*With(kNeither), "", call(R"({"function": {"name": "f", "arguments": "{}"}})"))),
              HasSubstr("messages.tool_calls: the model's chat template does not show calls"));
}

TEST_F(OpenAiToolsTest, AStrictFunctionIsCalledWithWhatFits) {
  auto text = With(kHermes);
  std::string strict = kTool;
  strict.insert(strict.find("\"name\""), "\"strict\": true, ");
  auto request = Ask(*text, "\"tools\": [" + strict + "]");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->tools->Accepts({.name = "look_up", .arguments = {{"word", "x"}}}));
  EXPECT_FALSE(request->tools->Accepts({.name = "look_up", .arguments = {{"word", 3}}}));
  EXPECT_FALSE(request->tools->Accepts({.name = "look_up", .arguments = nlohmann::ordered_json::object()}));
  EXPECT_TRUE(request->tools->Accepts({.name = "another", .arguments = nlohmann::ordered_json::object()})) << "who asked is told";
  auto loose = Ask(*text, std::string("\"tools\": [") + kTool + "]");
  EXPECT_TRUE(loose->tools->Accepts({.name = "look_up", .arguments = {{"word", 3}}}));
}

}  // namespace
}  // namespace rein::services
