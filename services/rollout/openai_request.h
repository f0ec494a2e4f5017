// OpenAI's requests for completions as the engine wants them. Pure.
//
// Fields that would change the answer and are not known here are refused, not passed over: top_logprobs,
// response_format, echo, suffix, best_of, logit_bias. Fields that say who asks (user, metadata, store) are
// passed over. Beyond OpenAI's: top_k, min_p, repetition_penalty, min_tokens, ignore_eos, return_token_ids, and prompts as token ids.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "common/text/model_text.h"
#include "common/text/stream_decoder.h"
#include "rollout/engine/request.h"
#include "services/rollout/openai_tools.h"

namespace rein::services {

struct OpenAiRequest {
  bool chat = false;
  std::string model;                            // as asked for
  std::vector<std::vector<uint32_t>> prompts;   // one for a chat
  rollout::SamplingSettings sampling;           // stop strings and seed included
  uint32_t n = 1;                               // choices of each prompt
  bool logprobs = false;
  bool stream = false;
  bool include_usage = false;                   // a last chunk with the counts
  bool return_token_ids = false;
  std::optional<OpenAiTools> tools;             // that the policy may call
};

// How many prompts times choices one request may ask for.
inline constexpr uint32_t kMaxChoices = 128;

// INVALID_ARGUMENT begins with the field that is wrong. `random_seed` is taken where none is given.
absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(const std::string& body, bool chat, const text::ModelText& text,
                                                 uint64_t random_seed);

// What is shown of a completion while it grows: no half character, no beginning of a stop string that may yet
// be completed, and nothing from a stop string on.
class ChoiceText {
 public:
  // `text` has a tokenizer, and outlives this.
  ChoiceText(const text::ModelText& text, std::vector<std::string> stops)
      : decoder_(*text.tokenizer()), stops_(std::move(stops)) {}

  // Text that became final with this token.
  absl::StatusOr<std::string> Append(uint32_t token);
  // What was held back.
  absl::StatusOr<std::string> Finish();
  // Whether a stop string ended it.
  bool stopped() const { return stopped_; }

 private:
  std::string Release(bool everything);

  text::StreamDecoder decoder_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace rein::services
