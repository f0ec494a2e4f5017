#include "services/reference/score_command.h"

#include <string>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/data/token_lines.h"
#include "common/policy/opened_model.h"
#include "common/policy/sequence_scorer.h"
#include "common/status/status_macros.h"
#include "common/tensor/torch_runtime.h"
#include "services/role/one_shot.h"

namespace rein::services {
namespace {

// Sequences that are scored before they are written.
constexpr size_t kBatch = 64;

nlohmann::ordered_json ToJson(const data::TokenLine& line, const std::vector<float>& logprobs) {
  nlohmann::ordered_json out;
  out["id"] = line.id;
  out["tokens"] = line.tokens;
  out["logprobs"] = nlohmann::ordered_json::array({nullptr});
  for (float logprob : logprobs) out["logprobs"].push_back(logprob);
  return out;
}

absl::Status Run(const OneShotFlags& flags) {
  REIN_ASSIGN_OR_RETURN(std::string device, tensor::StartTorch(flags.device, flags.threads));
  REIN_ASSIGN_OR_RETURN(policy::OpenedModel model, policy::OpenModel({.path = flags.model,
                                                                      .dtype = flags.dtype,
                                                                      .device = device,
                                                                      .keep_idle = false,
                                                                      .load_weights = true}));
  REIN_ASSIGN_OR_RETURN(auto lines,
                        data::ReadTokenLines(flags.input, *model.text, /*complete=*/true));
  for (const data::TokenLine& line : lines) {
    absl::Status status =
        policy::CheckSequence(model.description.spec, {line.tokens, /*prefix=*/1});
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat(line.place, ": ", status.message()));
  }
  REIN_ASSIGN_OR_RETURN(OutputLines out, OutputLines::Create(flags.output));
  for (size_t begin = 0; begin < lines.size(); begin += kBatch) {
    std::vector<policy::ScoredSequence> batch;
    for (size_t i = begin; i < std::min(begin + kBatch, lines.size()); ++i) {
      batch.push_back({lines[i].tokens, /*prefix=*/1});
    }
    REIN_ASSIGN_OR_RETURN(auto logprobs,
                          policy::ScoreSequences(model.slots->decoder(), batch, flags.temperature));
    for (size_t i = 0; i < batch.size(); ++i) {
      out.Add(ToJson(lines[begin + i], logprobs[i]).dump());
    }
  }
  return out.Close();
}

}  // namespace

int ScoreCommand(int argc, char** argv) {
  CLI::App app("Log-probs of the sequences of a JSONL file", "rein-reference score");
  OneShotFlags flags;
  AddOneShotFlags(app, flags);
  return RunOneShot(app, argc, argv, [&flags] { return Run(flags); });
}

}  // namespace rein::services
