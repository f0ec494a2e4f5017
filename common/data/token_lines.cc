#include "common/data/token_lines.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/data/messages_json.h"
#include "common/files/mapped_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::data {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxShownErrors = 10;

absl::StatusOr<std::vector<uint32_t>> TokensOf(const Json& row, const text::ModelText& text,
                                               bool complete) {
  if (row.contains("tokens")) {
    const Json& list = row["tokens"];
    std::vector<uint32_t> tokens;
    for (const Json& id : list) {
      if (!list.is_array() || !id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
        return absl::InvalidArgumentError(
            absl::StrCat("tokens: want a list of token ids, found ", id.dump().substr(0, 40)));
      }
      tokens.push_back(id.get<uint32_t>());
    }
    if (tokens.empty()) return absl::InvalidArgumentError("tokens: want at least one id");
    return tokens;
  }
  if (row.contains("messages")) {
    REIN_ASSIGN_OR_RETURN(std::vector<text::ChatMessage> messages,
                          MessagesFromJson("messages", row["messages"]));
    std::vector<std::string> tools;
    if (row.contains("tools")) {
      REIN_ASSIGN_OR_RETURN(tools, ToolsFromJson("tools", row["tools"]));
    }
    REIN_ASSIGN_OR_RETURN(std::string rendered, text.RenderChat(messages, !complete, tools));
    return text.Encode(rendered, /*add_special_tokens=*/false);
  }
  if (row.contains("prompt") && row["prompt"].is_string()) {
    return text.Encode(row["prompt"].get<std::string>(), /*add_special_tokens=*/true);
  }
  return absl::InvalidArgumentError(
      "want \"tokens\": [ids], \"messages\": [{role, content}] or \"prompt\": text");
}

absl::StatusOr<TokenLine> ParseLine(std::string_view bytes, const text::ModelText& text,
                                    bool complete) {
  TokenLine line;
  REIN_ASSIGN_OR_RETURN(line.fields, json::ParseJson(bytes));
  if (!line.fields.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a JSON object, got ", line.fields.type_name()));
  }
  REIN_ASSIGN_OR_RETURN(line.tokens, TokensOf(line.fields, text, complete));
  return line;
}

}  // namespace

absl::StatusOr<std::vector<TokenLine>> ReadTokenLines(const std::string& path,
                                                      const text::ModelText& text, bool complete) {
  REIN_ASSIGN_OR_RETURN(std::unique_ptr<files::MappedFile> file, files::MappedFile::Open(path));
  std::string_view bytes = file->bytes();
  std::vector<TokenLine> lines;
  std::vector<std::string> errors;
  size_t bad_lines = 0;
  size_t number = 0;
  for (size_t start = 0; start < bytes.size();) {
    size_t end = std::min(bytes.find('\n', start), bytes.size());
    std::string_view row = bytes.substr(start, end - start);
    start = end + 1;
    ++number;
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    absl::StatusOr<TokenLine> line = ParseLine(row, text, complete);
    const std::string place = absl::StrCat(path, ":", number);
    if (!line.ok()) {
      if (++bad_lines <= kMaxShownErrors) {
        errors.push_back(absl::StrCat(place, ": ", line.status().message()));
      }
      continue;
    }
    line->place = place;
    line->id = line->fields.contains("id") ? line->fields["id"] : Json(number);
    lines.push_back(*std::move(line));
  }
  if (bad_lines > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", bad_lines, bad_lines == 1 ? " bad line" : " bad lines",
                     bad_lines > kMaxShownErrors ? "; the first ten" : "", "\n  ",
                     absl::StrJoin(errors, "\n  ")));
  }
  if (lines.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " is empty"));
  return lines;
}

}  // namespace rein::data
