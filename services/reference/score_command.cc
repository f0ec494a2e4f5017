#include "services/reference/score_command.h"

#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/data/result_lines.h"
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
  double sum = 0;
  uint64_t tokens = 0;
  for (size_t begin = 0; begin < lines.size(); begin += kBatch) {
    std::vector<policy::ScoredSequence> batch;
    for (size_t i = begin; i < std::min(begin + kBatch, lines.size()); ++i) {
      batch.push_back({lines[i].tokens, /*prefix=*/1});
    }
    REIN_ASSIGN_OR_RETURN(auto logprobs,
                          policy::ScoreSequences(model.slots->decoder(), batch, flags.temperature));
    for (size_t i = 0; i < batch.size(); ++i) {
      const data::TokenLine& line = lines[begin + i];
      out.Add(data::ScoredTokensJson(line.id, line.tokens, logprobs[i]).dump());
      for (float logprob : logprobs[i]) sum += logprob;
      tokens += logprobs[i].size();
    }
  }
  REIN_RETURN_IF_ERROR(out.Close());
  std::cout << data::ScoreSummaryJson(lines.size(), tokens, sum).dump() << std::endl;
  return absl::OkStatus();
}

}  // namespace

int ScoreCommand(int argc, char** argv) {
  CLI::App app("Log-probs of the sequences of a JSONL file", "rein-reference score");
  OneShotFlags flags;
  AddOneShotFlags(app, flags);
  return RunOneShot(app, argc, argv, [&flags] { return Run(flags); });
}

}  // namespace rein::services
