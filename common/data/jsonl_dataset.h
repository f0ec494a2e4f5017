// JsonlDataset reads prompts and answers from a JSONL file: one JSON object per line; or from a Parquet file, whose rows
// become such lines (then a line number is that of the row).
//
//   REIN_ASSIGN_OR_RETURN(auto dataset, JsonlDataset::Open({.path = "data/train.jsonl"}));
//   REIN_ASSIGN_OR_RETURN(PromptRow row, dataset->Row(17));
//
// Every line is checked when the file is opened, so that a bad one is known before a job starts.
// The file stays mapped; rows are parsed when they are asked for. Immutable and thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nlohmann/json_fwd.hpp>

#include "common/files/mapped_file.h"
#include "common/text/model_text.h"

namespace rein::data {

struct JsonlOptions {
  std::string path;
  // A column is a key of the object, or a path of keys with dots: "extra.question".
  std::string prompt_column = "prompt";
  std::string answer_column = "answer";
  // Follows a plain-text prompt after an empty line, where a line has it; empty: none.
  std::string context_column;
  // True: a line without the answer column is an error.
  bool answer_required = false;
  // Uses only the first so many lines; 0: all.
  uint64_t limit = 0;
};

// What one line says.
struct PromptRow {
  // The prompt; a prompt that was plain text is one user message.
  std::vector<text::ChatMessage> messages;
  // True when the prompt was plain text.
  bool is_text = false;
  // The right answer as text; numbers as JSON writes them; empty when the line has none.
  std::string answer;
  // False when the line has no answer.
  bool has_answer = false;
  // Of an answer that was a message: its other fields, and its weight; see text::ChatMessage.
  std::string answer_fields;
  double answer_weight = 1;
  // Schemas for the chat template, of the column "tools".
  std::vector<std::string> tools;
  // The whole line: a JSON object with every column.
  std::string columns_json;
};

class JsonlDataset {
 public:
  static constexpr uint64_t kMaxLineBytes = 16 << 20;

  // INVALID_ARGUMENT for an empty file, or for bad lines: it counts them, and gives file, line and
  // reason of the first ten. A list of messages that ends with the assistant's, on a line without
  // answer column, is split into prompt and answer.
  static absl::StatusOr<std::unique_ptr<JsonlDataset>> Open(JsonlOptions options);

  // Lines that are not blank, at least 1.
  uint64_t size() const { return lines_.size(); }
  // Counts lines that are not blank, from 0. OUT_OF_RANGE at size() and beyond.
  absl::StatusOr<PromptRow> Row(uint64_t index) const;
  // Changes when any byte of the file does: a cursor into another file is of no use.
  uint64_t digest() const { return digest_; }

 private:
  struct Line {
    uint64_t offset;
    uint32_t bytes;
    uint32_t number;  // in the file, from 1
  };

  JsonlDataset(JsonlOptions options, std::unique_ptr<files::MappedFile> file);

  absl::Status Index();
  absl::StatusOr<PromptRow> Parse(const Line& line) const;

  JsonlOptions options_;
  std::unique_ptr<files::MappedFile> file_;
  std::vector<Line> lines_;
  uint64_t digest_ = 0;
};

}  // namespace rein::data
