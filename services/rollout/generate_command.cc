#include "services/rollout/generate_command.h"

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/data/result_lines.h"
#include "common/data/token_lines.h"
#include "common/policy/opened_model.h"
#include "common/status/status_macros.h"
#include "common/tensor/torch_runtime.h"
#include "rollout/engine/decoder_step_model.h"
#include "rollout/engine/engine.h"
#include "services/role/one_shot.h"
#include "services/rollout/line_settings.h"

namespace rein::services {
namespace {

constexpr weights::Version kOnlyVersion = {1, 0};
// Prompts that are handed to the engine ahead of what is written.
constexpr size_t kMaxAhead = 4096;

struct Flags : OneShotFlags {
  double top_p = 1.0, min_p = 0.0, repetition_penalty = 1.0, presence_penalty = 0.0, frequency_penalty = 0.0;
  uint32_t top_k = 0, max_tokens = 16, min_tokens = 0, n = 1;
  uint64_t seed = 0;
  bool ignore_eos = false, no_prefix_cache = false, resume = false;
  std::vector<std::string> stop;
  int32_t max_running = 256, step_tokens = 2048;
  uint64_t kv_tokens = 0;
  uint32_t max_length = 0;
};

void AddFlags(CLI::App& app, Flags& flags) {
  AddOneShotFlags(app, flags);
  app.add_option("--top-k", flags.top_k, "Only the k likeliest tokens; 0: all");
  app.add_option("--top-p", flags.top_p, "Only the likeliest tokens of this mass");
  app.add_option("--min-p", flags.min_p, "Only tokens this likely, relative to the likeliest");
  app.add_option("--repetition-penalty", flags.repetition_penalty, "Divides positive logits of tokens that were seen, multiplies others");
  app.add_option("--presence-penalty", flags.presence_penalty, "Taken from the logits of tokens that were written");
  app.add_option("--frequency-penalty", flags.frequency_penalty, "The same for each time that they were written");
  app.add_option("--max-tokens", flags.max_tokens, "Longest completion")->capture_default_str();
  app.add_option("--min-tokens", flags.min_tokens, "No stop before so many tokens");
  app.add_option("--n", flags.n, "Completions of each prompt");
  app.add_option("--seed", flags.seed, "Keys every draw")->capture_default_str();
  app.add_option("--stop", flags.stop, "End at this text; may be repeated");
  app.add_flag("--ignore-eos", flags.ignore_eos, "Only --max-tokens ends a completion");
  app.add_option("--max-running", flags.max_running, "Most completions at once")
      ->capture_default_str();
  app.add_option("--step-tokens", flags.step_tokens, "Most tokens in one step")
      ->capture_default_str();
  app.add_option("--kv-tokens", flags.kv_tokens,
                 "Tokens in the KV pages; 0: what suits the device");
  app.add_option("--max-length", flags.max_length,
                 "Longest prompt plus completion; 0: the model's");
  app.add_flag("--resume", flags.resume, "Keep the whole completions that --output holds, and go on behind them");
  app.add_flag("--no-prefix-cache", flags.no_prefix_cache, "Compute equal beginnings again");
}

LineSettings Defaults(const Flags& flags) {
  LineSettings settings;
  settings.completions = flags.n;
  settings.sampling.set_temperature(flags.temperature);
  settings.sampling.set_top_k(flags.top_k);
  settings.sampling.set_top_p(flags.top_p);
  settings.sampling.set_min_p(flags.min_p);
  settings.sampling.set_repetition_penalty(flags.repetition_penalty);
  settings.sampling.set_presence_penalty(flags.presence_penalty);
  settings.sampling.set_frequency_penalty(flags.frequency_penalty);
  settings.sampling.set_max_tokens(flags.max_tokens);
  settings.sampling.set_min_tokens(flags.min_tokens);
  settings.sampling.set_seed(flags.seed);
  settings.sampling.set_ignore_eos(flags.ignore_eos);
  for (const std::string& text : flags.stop) settings.sampling.add_stop_strings(text);
  return settings;
}

absl::StatusOr<rollout::GenerateSpec> SpecOf(const data::TokenLine& line, uint64_t index,
                                             const LineSettings& defaults) {
  REIN_ASSIGN_OR_RETURN(LineSettings settings, SettingsOfLine(line.fields, defaults));
  rollout::GenerateSpec spec = {.group = {0, index, 0}, .prompt = line.tokens};
  REIN_ASSIGN_OR_RETURN(spec.sampling, rollout::MakeSettings(settings.sampling));
  for (uint32_t s = 0; s < settings.completions; ++s) spec.siblings.push_back(s);
  return spec;
}

const char* Name(rollout::FinishReason reason) {
  switch (reason) {
    case rollout::FinishReason::kStop:
      return "stop";
    case rollout::FinishReason::kLength:
      return "length";
    case rollout::FinishReason::kAbort:
      return "abort";
  }
  return "";
}

nlohmann::ordered_json ToJson(const data::TokenLine& line, const rollout::FinishedSibling& done,
                              bool several) {
  data::CompletionLine completion{.id = line.id,
                                  .prompt_tokens = line.tokens,
                                  .tokens = done.tokens,
                                  .logprobs = done.logprobs,
                                  .text = done.text,
                                  .finish_reason = Name(done.reason)};
  if (several) completion.sibling = done.sibling;
  return data::ToJson(completion);
}

// Prompts whose completions all stand in `path` from an earlier run, in the order of the input; what follows them there
// is cut off.
absl::StatusOr<size_t> KeepWhole(const std::vector<data::TokenLine>& lines,
                                 const std::vector<rollout::GenerateSpec>& specs,
                                 const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return 0;
  std::ifstream file(path, std::ios::binary);
  std::string row;
  size_t prompt = 0, siblings = 0;
  uint64_t end = 0, kept = 0;  // bytes
  while (prompt < lines.size() && std::getline(file, row) && !file.eof()) {
    end += row.size() + 1;
    const nlohmann::json done = nlohmann::json::parse(row, nullptr, false);
    if (!done.is_object() || done.value("prompt_tokens", nlohmann::json()) != nlohmann::json(lines[prompt].tokens) ||
        done.value("id", nlohmann::json()) != lines[prompt].id) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, " is no output of this input: its completion ", prompt, "/", siblings, " is of another prompt"));
    }
    if (++siblings < specs[prompt].siblings.size()) continue;
    kept = end;
    siblings = 0;
    ++prompt;
  }
  file.close();
  std::filesystem::resize_file(path, kept, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("cannot cut ", path, ": ", error.message()));
  return prompt;
}

// Collects what the engine finishes, and lets it be taken in the order of the input.
class Completions {
 public:
  rollout::RequestCallbacks For(size_t index) {
    return {.on_sibling =
                [this, index](rollout::FinishedSibling done) {
                  std::lock_guard<std::mutex> lock(mutex_);
                  prompts_[index].siblings[done.sibling] = std::move(done);
                },
            .on_end =
                [this, index](absl::Status status) {
                  std::lock_guard<std::mutex> lock(mutex_);
                  prompts_[index].end = status;
                  changed_.notify_all();
                }};
  }

  absl::StatusOr<std::map<uint32_t, rollout::FinishedSibling>> Take(size_t index) {
    std::unique_lock<std::mutex> lock(mutex_);
    Prompt& prompt = prompts_[index];
    while (!prompt.end.has_value()) changed_.wait_for(lock, std::chrono::seconds(1));
    REIN_RETURN_IF_ERROR(*prompt.end);
    auto siblings = std::move(prompt.siblings);
    prompts_.erase(index);
    return siblings;
  }

 private:
  struct Prompt {
    std::map<uint32_t, rollout::FinishedSibling> siblings;
    std::optional<absl::Status> end;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<size_t, Prompt> prompts_;
};

absl::Status WriteAll(const std::vector<data::TokenLine>& lines,
                      const std::vector<rollout::GenerateSpec>& specs, rollout::Engine& engine,
                      const std::string& path, bool resume) {
  size_t first = 0;
  if (resume) {
    REIN_ASSIGN_OR_RETURN(first, KeepWhole(lines, specs, path));
  }
  REIN_ASSIGN_OR_RETURN(OutputLines out, OutputLines::Create(path, /*append=*/first > 0));
  Completions completions;
  size_t submitted = first;
  for (size_t index = first; index < specs.size(); ++index) {
    for (; submitted < std::min(index + kMaxAhead, specs.size()); ++submitted) {
      REIN_RETURN_IF_ERROR(engine.Submit(specs[submitted], completions.For(submitted)).status());
    }
    REIN_ASSIGN_OR_RETURN(auto siblings, completions.Take(index));
    for (const auto& [sibling, done] : siblings) {
      out.Add(ToJson(lines[index], done, specs[index].siblings.size() > 1).dump());
    }
    REIN_RETURN_IF_ERROR(out.Flush());
  }
  return out.Close();
}

absl::Status Run(const Flags& flags) {
  REIN_ASSIGN_OR_RETURN(std::string device, tensor::StartTorch(flags.device, flags.threads));
  REIN_ASSIGN_OR_RETURN(policy::OpenedModel model, policy::OpenModel({.path = flags.model,
                                                                      .dtype = flags.dtype,
                                                                      .device = device,
                                                                      .keep_idle = false,
                                                                      .load_weights = true}));
  REIN_ASSIGN_OR_RETURN(auto lines,
                        data::ReadTokenLines(flags.input, *model.text, /*complete=*/false));
  REIN_ASSIGN_OR_RETURN(auto steps, rollout::DecoderStepModel::Create(
                                        *model.slots, {.kv_tokens = flags.kv_tokens,
                                                       .max_length = flags.max_length}));
  std::vector<rollout::GenerateSpec> specs;
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StatusOr<rollout::GenerateSpec> spec = SpecOf(lines[i], i, Defaults(flags));
    absl::Status status = spec.status();
    if (spec.ok()) {
      status = rollout::MakeRequest(*spec, {}, steps->limits(), *model.text).status();
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(lines[i].place, ": ", status.message()));
    }
    specs.push_back(*std::move(spec));
  }
  absl::Status stable = steps->CheckRowsStable();
  if (!stable.ok()) std::cerr << "warning: " << stable.message() << "\n";
  sync::RealClock clock;
  REIN_ASSIGN_OR_RETURN(auto engine,
                        rollout::Engine::Create({.max_running = flags.max_running,
                                                 .step_tokens = flags.step_tokens,
                                                 .prefix_cache = !flags.no_prefix_cache,
                                                 .max_waiting = INT32_MAX},
                                                *steps, *model.text, clock, {}));
  REIN_RETURN_IF_ERROR(engine->SwapWeights(kOnlyVersion, weights::InFlight::kContinue,
                                           absl::Seconds(60), [] { return absl::OkStatus(); }));
  return WriteAll(lines, specs, *engine, flags.output, flags.resume);
}

}  // namespace

int GenerateCommand(int argc, char** argv) {
  CLI::App app("Completes the prompts of a JSONL file", "rein-rollout generate");
  Flags flags;
  AddFlags(app, flags);
  return RunOneShot(app, argc, argv, [&flags] { return Run(flags); });
}

}  // namespace rein::services
