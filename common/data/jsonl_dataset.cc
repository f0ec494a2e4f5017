#include "common/data/jsonl_dataset.h"

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include <nlohmann/json.hpp>

#include "common/data/messages_json.h"
#include "common/data/parquet_lines.h"
#include "common/json/parse_json.h"
#include "common/random/philox.h"
#include "common/status/status_macros.h"

namespace rein::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxShownErrors = 10;

uint64_t Digest(std::string_view bytes) {
  uint64_t digest = bytes.size();
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof(word), bytes.size() - i));
    digest = random::DeriveKey(digest, word);
  }
  return digest;
}

// The value at a key, or at a path of keys with dots; null when there is none.
const Json* Find(const Json& row, const std::string& column) {
  if (auto it = row.find(column); it != row.end()) return &*it;
  const Json* value = &row;
  for (const std::string& key : std::vector<std::string>(absl::StrSplit(column, '.'))) {
    if (!value->is_object()) return nullptr;
    auto it = value->find(key);
    if (it == value->end()) return nullptr;
    value = &*it;
  }
  return value;
}

absl::Status NoColumn(const Json& row, const std::string& column) {
  std::vector<std::string> names;
  for (const auto& [name, value] : row.items()) names.push_back(name);
  return absl::InvalidArgumentError(absl::StrCat(
      "no column \"", column, "\"; it has ", names.empty() ? "none" : absl::StrJoin(names, ", ")));
}

void TakeAnswer(text::ChatMessage message, PromptRow& out) {
  out.answer = std::move(message.content);
  out.answer_fields = std::move(message.fields);
  out.answer_weight = message.weight;
  out.has_answer = true;
}

absl::Status ReadAnswer(const JsonlOptions& options, const Json& row, PromptRow& out) {
  const Json* value = Find(row, options.answer_column);
  if (value == nullptr || value->is_null()) {
    if (out.messages.size() > 1 && out.messages.back().role == "assistant") {
      TakeAnswer(std::move(out.messages.back()), out);
      out.messages.pop_back();
      return absl::OkStatus();
    }
    return options.answer_required ? NoColumn(row, options.answer_column) : absl::OkStatus();
  }
  if (value->is_array()) {
    // A conversation, as TRL writes completions and pairs: its last message is the answer.
    REIN_ASSIGN_OR_RETURN(std::vector<text::ChatMessage> messages,
                          MessagesFromJson(options.answer_column, *value));
    if (messages.back().role != "assistant") {
      return absl::InvalidArgumentError(absl::StrCat("column \"", options.answer_column,
                                                     "\": ends with a message of ",
                                                     messages.back().role, ", want the assistant's"));
    }
    TakeAnswer(std::move(messages.back()), out);
    return absl::OkStatus();
  }
  if (value->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("column \"", options.answer_column,
                                                   "\": want a text or a number, got ",
                                                   value->type_name()));
  }
  out.answer = value->is_string() ? value->get<std::string>() : value->dump();
  out.has_answer = true;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<JsonlDataset>> JsonlDataset::Open(JsonlOptions options) {
  const bool parquet = absl::EndsWith(options.path, ".parquet");
  REIN_ASSIGN_OR_RETURN(
      std::unique_ptr<files::MappedFile> file,
      parquet ? ParquetAsLines(options.path) : files::MappedFile::Open(options.path));
  auto dataset =
      std::unique_ptr<JsonlDataset>(new JsonlDataset(std::move(options), std::move(file)));
  REIN_RETURN_IF_ERROR(dataset->Index());
  return dataset;
}

JsonlDataset::JsonlDataset(JsonlOptions options, std::unique_ptr<files::MappedFile> file)
    : options_(std::move(options)), file_(std::move(file)), digest_(Digest(file_->bytes())) {}

absl::Status JsonlDataset::Index() {
  std::string_view bytes = file_->bytes();
  std::vector<std::string> errors;
  uint64_t bad_lines = 0;
  uint32_t number = 0;
  for (size_t start = 0; start < bytes.size();) {
    size_t end = std::min(bytes.find('\n', start), bytes.size());
    std::string_view text = bytes.substr(start, end - start);
    ++number;
    if (text.find_first_not_of(" \t\r") != std::string_view::npos) {
      Line line = {start, static_cast<uint32_t>(std::min<uint64_t>(text.size(), kMaxLineBytes + 1)),
                   number};
      if (absl::Status status = Parse(line).status(); !status.ok()) {
        if (++bad_lines <= kMaxShownErrors) errors.emplace_back(status.message());
      }
      lines_.push_back(line);
      if (options_.limit != 0 && lines_.size() == options_.limit) break;
    }
    start = end + 1;
  }
  if (bad_lines != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(options_.path, " has ", bad_lines, bad_lines == 1 ? " bad line" : " bad lines",
                     bad_lines > kMaxShownErrors ? "; the first ten" : "", "\n  ",
                     absl::StrJoin(errors, "\n  ")));
  }
  if (lines_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options_.path, " is empty: want one JSON object per line, with a column \"",
                     options_.prompt_column, "\""));
  }
  return absl::OkStatus();
}

absl::StatusOr<PromptRow> JsonlDataset::Parse(const Line& line) const {
  auto fail = [&](const absl::Status& status) {
    std::string reason = absl::StrReplaceAll(status.message(), {{"at line 1, ", "at "}});
    return absl::InvalidArgumentError(absl::StrCat(options_.path, ":", line.number, ": ", reason));
  };
  std::string_view text = file_->bytes().substr(line.offset, line.bytes);
  absl::StatusOr<Json> row = json::ParseOrderedJson(text, {.max_bytes = kMaxLineBytes});
  if (!row.ok()) return fail(row.status());
  if (!row->is_object()) {
    return fail(
        absl::InvalidArgumentError(absl::StrCat("want a JSON object, got ", row->type_name())));
  }
  const Json* prompt = Find(*row, options_.prompt_column);
  if (prompt == nullptr) return fail(NoColumn(*row, options_.prompt_column));
  PromptRow out;
  out.is_text = prompt->is_string();
  if (out.is_text) {
    out.messages = {{"user", prompt->get<std::string>()}};
    const Json* context =
        options_.context_column.empty() ? nullptr : Find(*row, options_.context_column);
    if (context != nullptr && context->is_string() && !context->get_ref<const std::string&>().empty()) {
      absl::StrAppend(&out.messages[0].content, "\n\n", context->get<std::string>());
    }
  } else {
    absl::StatusOr<std::vector<text::ChatMessage>> messages =
        MessagesFromJson(options_.prompt_column, *prompt);
    if (!messages.ok()) return fail(messages.status());
    out.messages = *std::move(messages);
  }
  if (absl::Status status = ReadAnswer(options_, *row, out); !status.ok()) return fail(status);
  if (auto tools = row->find("tools"); tools != row->end() && !out.is_text) {
    absl::StatusOr<std::vector<std::string>> schemas = ToolsFromJson("tools", *tools);
    if (!schemas.ok()) return fail(schemas.status());
    out.tools = *std::move(schemas);
  }
  out.columns_json = std::string(text);
  return out;
}

absl::StatusOr<PromptRow> JsonlDataset::Row(uint64_t index) const {
  if (index >= lines_.size()) {
    return absl::OutOfRangeError(
        absl::StrCat(options_.path, " has ", lines_.size(), " prompts, none with index ", index));
  }
  return Parse(lines_[index]);
}

}  // namespace rein::data
