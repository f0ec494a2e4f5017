#include "services/role/one_shot.h"

#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

namespace rein::services {
namespace {

constexpr int kExitUsage = 2, kExitInput = 3;

}  // namespace

void AddOneShotFlags(CLI::App& app, OneShotFlags& flags) {
  app.add_option("--model", flags.model, "Hugging Face folder")->required();
  app.add_option("--input", flags.input,
                 R"(JSONL: {"id", "tokens": [ids]}, or "messages", or "prompt")")
      ->required();
  app.add_option("--output", flags.output, "JSONL, in the input's order")->required();
  app.add_option("--temperature", flags.temperature, "Divides the logits; generation: 0 is greedy")
      ->capture_default_str();
  app.add_option("--dtype", flags.dtype, "float32 or bfloat16; default: float32 on a CPU");
  app.add_option("--device", flags.device, "cpu or gpu:N")->capture_default_str();
  app.add_option("--threads", flags.threads, "0: one per core");
}

int RunOneShot(CLI::App& app, int argc, char** argv, const std::function<absl::Status()>& run) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  absl::Status status = run();
  if (status.ok()) return 0;
  std::cerr << "error: " << status.message() << "\n";
  const bool input = absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
                     absl::IsFailedPrecondition(status);
  return input ? kExitInput : 1;
}

absl::StatusOr<OutputLines> OutputLines::Create(const std::string& path, bool append) {
  std::ofstream file(path, append ? std::ios::app : std::ios::trunc);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot write ", path));
  return OutputLines(path, std::move(file));
}

absl::Status OutputLines::Flush() {
  file_.flush();
  if (file_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("cannot write all of ", path_));
}

absl::Status OutputLines::Close() {
  file_.close();
  if (file_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("cannot write all of ", path_));
}

}  // namespace rein::services
