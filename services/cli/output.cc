#include "services/cli/output.h"

#include <cstdlib>
#include <cstring>
#include <iostream>

#include <google/protobuf/util/json_util.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include "services/cli/exit_code.h"

namespace rein::cli {
namespace {

// JSON text reads as YAML in flow style; blocks are easier on the eye.
void UseBlocks(YAML::Node node) {
  node.SetStyle(YAML::EmitterStyle::Block);
  if (node.IsMap()) {
    for (auto entry : node) UseBlocks(entry.second);
  } else if (node.IsSequence()) {
    for (auto item : node) UseBlocks(item);
  }
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}\n";
}

std::string ToYamlText(const google::protobuf::Message& message) {
  YAML::Node node = YAML::Load(ToJson(message));
  UseBlocks(node);
  YAML::Emitter emitter;
  emitter << node;
  return std::string(emitter.c_str()) + "\n";
}

void Print(const std::string& text) { std::cout << text << std::flush; }

int PrintError(const absl::Status& status) {
  std::cerr << "error: " << status.message() << std::endl;
  return ExitCodeOf(status);
}

void Hint(const std::string& text) { std::cerr << text << std::flush; }

bool Confirmed(const std::string& question, bool yes) {
  if (yes) return true;
  if (isatty(STDIN_FILENO) == 0) return false;
  Hint(question + " [y/N] ");
  std::string answer;
  return std::getline(std::cin, answer) && (answer == "y" || answer == "yes");
}

bool IsLiveTerminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

int TerminalWidth() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 100;
}

size_t TableWidth() { return isatty(STDOUT_FILENO) == 1 ? static_cast<size_t>(TerminalWidth()) : 0; }

}  // namespace rein::cli
