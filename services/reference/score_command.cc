#include "services/reference/score_command.h"

#include <fstream>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/data/token_lines.h"
#include "common/policy/opened_model.h"
#include "common/policy/sequence_scorer.h"
#include "common/status/status_macros.h"
#include "common/tensor/torch_runtime.h"

namespace rein::services {
namespace {

constexpr int kExitUsage = 2, kExitInput = 3;
// Sequences that are scored before they are written.
constexpr size_t kBatch = 64;

struct Flags {
  std::string model, input, output, dtype, device = "cpu";
  int threads = 0;
  double temperature = 1.0;
};

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model, "Hugging Face folder")->required();
  app.add_option("--input", flags.input,
                 R"(JSONL: {"id", "tokens": [ids]}, or "messages", or "prompt")")
      ->required();
  app.add_option("--output", flags.output, "JSONL: {id, tokens, logprobs}; the first is null")
      ->required();
  app.add_option("--temperature", flags.temperature, "Divides the logits")->capture_default_str();
  app.add_option("--dtype", flags.dtype, "float32 or bfloat16; default: float32 on a CPU");
  app.add_option("--device", flags.device, "cpu or gpu:N")->capture_default_str();
  app.add_option("--threads", flags.threads, "0: one per core");
}

nlohmann::ordered_json ToJson(const data::TokenLine& line, const std::vector<float>& logprobs) {
  nlohmann::ordered_json out;
  out["id"] = line.id;
  out["tokens"] = line.tokens;
  out["logprobs"] = nlohmann::ordered_json::array({nullptr});
  for (float logprob : logprobs) out["logprobs"].push_back(logprob);
  return out;
}

absl::Status Run(const Flags& flags) {
  REIN_ASSIGN_OR_RETURN(std::string device, tensor::StartTorch(flags.device, flags.threads));
  REIN_ASSIGN_OR_RETURN(
      policy::OpenedModel model,
      policy::OpenModel(
          {.path = flags.model, .dtype = flags.dtype, .device = device, .keep_idle = false}));
  REIN_RETURN_IF_ERROR(model.slots->LoadFolder(flags.model, model.description));
  REIN_ASSIGN_OR_RETURN(auto lines,
                        data::ReadTokenLines(flags.input, *model.text, /*complete=*/true));
  for (const data::TokenLine& line : lines) {
    absl::Status status =
        policy::CheckSequence(model.description.spec, {line.tokens, /*prefix=*/1});
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat(line.place, ": ", status.message()));
  }
  std::ofstream out(flags.output);
  if (!out) return absl::InvalidArgumentError(absl::StrCat("cannot write ", flags.output));
  for (size_t begin = 0; begin < lines.size(); begin += kBatch) {
    std::vector<policy::ScoredSequence> batch;
    for (size_t i = begin; i < std::min(begin + kBatch, lines.size()); ++i) {
      batch.push_back({lines[i].tokens, /*prefix=*/1});
    }
    REIN_ASSIGN_OR_RETURN(auto logprobs,
                          policy::ScoreSequences(model.slots->decoder(), batch, flags.temperature));
    for (size_t i = 0; i < batch.size(); ++i) {
      out << ToJson(lines[begin + i], logprobs[i]).dump() << "\n";
    }
  }
  out.flush();
  if (!out) return absl::ResourceExhaustedError(absl::StrCat("cannot write all of ", flags.output));
  return absl::OkStatus();
}

}  // namespace

int ScoreCommand(int argc, char** argv) {
  CLI::App app("Log-probs of the sequences of a JSONL file", "rein-reference score");
  Flags flags;
  AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::cerr << "error: " << status.message() << "\n";
  const bool input = absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
                     absl::IsFailedPrecondition(status);
  return input ? kExitInput : 1;
}

}  // namespace rein::services
