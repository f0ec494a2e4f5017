#include "rollout/sampling/settings.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace rein::rollout {
namespace {

class Problems {
 public:
  // NaN fails every comparison, so it is refused too.
  void Want(bool holds, const char* field, double value, const char* wanted) {
    if (!holds) list_.push_back(absl::StrCat(field, " is ", value, ", want ", wanted));
  }
  void Add(std::string problem) { list_.push_back(std::move(problem)); }
  absl::Status status() const {
    if (list_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("sampling: ", absl::StrJoin(list_, "; ")));
  }

 private:
  std::vector<std::string> list_;
};

}  // namespace

absl::StatusOr<SamplingSettings> MakeSettings(const v1::SamplingParams& params) {
  SamplingSettings settings;
  Problems problems;
  if (params.has_temperature()) settings.temperature = params.temperature();
  if (params.has_top_k()) settings.top_k = params.top_k();
  if (params.has_top_p()) settings.top_p = params.top_p();
  if (params.has_min_p()) settings.min_p = params.min_p();
  if (params.has_max_tokens()) settings.max_tokens = params.max_tokens();
  if (params.has_min_tokens()) settings.min_tokens = params.min_tokens();
  if (params.has_seed()) settings.seed = params.seed();
  settings.stop_token_ids.assign(params.stop_token_ids().begin(), params.stop_token_ids().end());
  settings.stop_strings.assign(params.stop_strings().begin(), params.stop_strings().end());
  settings.ignore_eos = params.ignore_eos();
  settings.untempered_logprobs = params.untempered_logprobs();
  Penalties& penalties = settings.penalties;
  if (params.has_repetition_penalty()) penalties.repetition = params.repetition_penalty();
  if (params.has_presence_penalty()) penalties.presence = params.presence_penalty();
  if (params.has_frequency_penalty()) penalties.frequency = params.frequency_penalty();
  problems.Want(penalties.repetition > 0 && penalties.repetition <= 100, "repetition_penalty", penalties.repetition,
                "above 0 and at most 100");
  problems.Want(penalties.presence >= -100 && penalties.presence <= 100, "presence_penalty", penalties.presence,
                "-100 to 100");
  problems.Want(penalties.frequency >= -100 && penalties.frequency <= 100, "frequency_penalty", penalties.frequency,
                "-100 to 100");

  problems.Want(
      settings.temperature == 0 || (settings.temperature >= 1e-3 && settings.temperature <= 100),
      "temperature", settings.temperature, "0 (greedy) or 0.001 to 100");
  problems.Want(settings.top_p > 0 && settings.top_p <= 1, "top_p", settings.top_p,
                "above 0 and at most 1");
  problems.Want(settings.min_p >= 0 && settings.min_p < 1, "min_p", settings.min_p,
                "0 or more and below 1");
  problems.Want(settings.max_tokens >= 1, "max_tokens", settings.max_tokens, "at least 1");
  problems.Want(settings.min_tokens <= settings.max_tokens, "min_tokens", settings.min_tokens,
                "at most max_tokens");
  if (settings.stop_strings.size() > kMaxStopStrings) {
    problems.Add(absl::StrCat(settings.stop_strings.size(), " stop strings, want at most ",
                              kMaxStopStrings));
  }
  for (const std::string& text : settings.stop_strings) {
    if (!text.empty() && text.size() <= kMaxStopStringBytes) continue;
    problems.Add(
        absl::StrCat("a stop string has ", text.size(), " bytes, want 1 to ", kMaxStopStringBytes));
  }
  if (absl::Status status = problems.status(); !status.ok()) return status;
  return settings;
}

}  // namespace rein::rollout
