// TokenTexts tells what each token of a rollout reads as, so that a page can colour what was said token by token.
//
// Tokenizers of the jobs that were looked at last are kept. Thread-safe; reading a tokenizer takes as long as its file is.

#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/text/model_text.h"
#include "rein/v1/job.pb.h"

namespace rein::services {

class TokenTexts {
 public:
  static constexpr size_t kKept = 4;

  // One text for each of `ids`: special tokens by their name; "" for one that ends within a character, whose text comes
  // with the token that completes it. NOT_FOUND or INVALID_ARGUMENT when the model's tokenizer cannot be read (any more).
  absl::StatusOr<std::vector<std::string>> Read(const v1::ModelConfig& model, const std::vector<uint32_t>& ids);

 private:
  absl::StatusOr<std::shared_ptr<const text::ModelText>> TextOf(const std::string& folder);

  std::mutex mutex_;
  std::deque<std::pair<std::string, std::shared_ptr<const text::ModelText>>> kept_;  // the newest last
};

}  // namespace rein::services
