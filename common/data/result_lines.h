// The lines of JSONL that generation and scoring leave, as a job or as a one-shot command.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace rein::data {

// One completion.
struct CompletionLine {
  nlohmann::json id;  // of the prompt
  std::optional<uint32_t> sibling;  // absent: there is one
  std::vector<uint32_t> prompt_tokens;
  std::vector<uint32_t> tokens;
  std::vector<float> logprobs;  // of the tokens
  std::string text;
  std::string finish_reason;  // stop, length or abort
};

// id, sibling, prompt_tokens, tokens, logprobs, text, finish_reason.
nlohmann::ordered_json ToJson(const CompletionLine& line);

// id, tokens, logprobs: as many as tokens, null for those of the context that was not scored; the mean of the others
// as loss.
nlohmann::ordered_json ScoredTokensJson(const nlohmann::json& id, const std::vector<uint32_t>& tokens,
                                        const std::vector<float>& logprobs);

// What a file of scored sequences says as a whole: sequences, tokens, loss, perplexity.
nlohmann::ordered_json ScoreSummaryJson(uint64_t sequences, uint64_t tokens, double logprob_sum);

}  // namespace rein::data
