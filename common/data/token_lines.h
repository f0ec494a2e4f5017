// ReadTokenLines reads the input of the one-shot tools: JSONL, one sequence per line, as token ids,
// as messages or as plain text.
//
//   {"id": "a", "tokens": [1, 2, 3]}
//   {"id": "b", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
//   {"prompt": "Once upon a time"}

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "common/text/model_text.h"

namespace rein::data {

struct TokenLine {
  nlohmann::json id;  // as given; else the line's number, from 1
  std::string place;  // file:line, for messages
  std::vector<uint32_t> tokens;
  nlohmann::json fields;  // the whole object
};

// With `complete`, messages are rendered without the beginning of a next answer. INVALID_ARGUMENT
// counts the bad lines and gives file, line and reason of the first ten; an empty file is one too.
absl::StatusOr<std::vector<TokenLine>> ReadTokenLines(const std::string& path,
                                                      const text::ModelText& text, bool complete);

}  // namespace rein::data
