#include "common/data/result_lines.h"

#include <cmath>

namespace rein::data {

using Json = nlohmann::ordered_json;

Json ToJson(const CompletionLine& line) {
  Json out;
  out["id"] = line.id;
  if (line.sibling) out["sibling"] = *line.sibling;
  out["prompt_tokens"] = line.prompt_tokens;
  out["tokens"] = line.tokens;
  out["logprobs"] = line.logprobs;
  out["text"] = line.text;
  out["finish_reason"] = line.finish_reason;
  return out;
}

Json ScoredTokensJson(const nlohmann::json& id, const std::vector<uint32_t>& tokens,
                      const std::vector<float>& logprobs) {
  Json out;
  out["id"] = id;
  out["tokens"] = tokens;
  out["logprobs"] = Json::array();
  for (size_t i = logprobs.size(); i < tokens.size(); ++i) out["logprobs"].push_back(nullptr);
  double sum = 0;
  for (float logprob : logprobs) {
    out["logprobs"].push_back(logprob);
    sum += logprob;
  }
  if (!logprobs.empty()) out["loss"] = -sum / static_cast<double>(logprobs.size());
  return out;
}

Json ScoreSummaryJson(uint64_t sequences, uint64_t tokens, double logprob_sum) {
  Json out;
  out["sequences"] = sequences;
  out["tokens"] = tokens;
  if (tokens == 0) return out;
  const double loss = -logprob_sum / static_cast<double>(tokens);
  out["loss"] = loss;
  out["perplexity"] = std::exp(loss);
  return out;
}

}  // namespace rein::data
