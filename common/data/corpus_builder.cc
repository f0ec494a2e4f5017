#include "common/data/corpus_builder.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include <nlohmann/json.hpp>

#include "common/data/megatron_index.h"
#include "common/data/parquet_lines.h"
#include "common/files/mapped_file.h"
#include "common/files/read_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::data {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxLineBytes = text::ModelText::kMaxTextBytes;
// Documents that are tokenised before they are written.
constexpr size_t kBatch = 4096;

struct Span {
  size_t file = 0;
  uint64_t begin = 0, end = 0;  // bytes
  uint64_t line = 0;            // of its first byte, from 1
};

// A document of a shard as it lies in its file.
struct Document {
  size_t file = 0;
  uint64_t line = 0;
  std::string_view bytes;
};

bool IsParquet(const std::string& path) { return absl::EndsWith(path, ".parquet"); }
bool HasLines(const std::string& path) { return IsParquet(path) || absl::EndsWith(path, ".jsonl"); }

class Builder {
 public:
  Builder(const BuildOptions& options, const text::ModelText& text, const BuildProgress& progress)
      : options_(options), text_(text), progress_(progress) {}

  absl::StatusOr<BuildReport> Run() {
    REIN_RETURN_IF_ERROR(Check());
    for (const std::string& input : options_.inputs) {
      REIN_ASSIGN_OR_RETURN(auto file, IsParquet(input) ? ParquetAsLines(input) : files::MappedFile::Open(input));
      files_.push_back(std::move(file));
    }
    REIN_RETURN_IF_ERROR(AgreeWithManifest());
    const std::vector<std::vector<Span>> shards = CutIntoShards();
    for (size_t n = 0; n < shards.size(); ++n) REIN_RETURN_IF_ERROR(BuildShard(n, shards[n]));
    if (report_.documents == 0) return absl::InvalidArgumentError("the inputs hold no document");
    if (!options_.keep_shards) REIN_RETURN_IF_ERROR(Join(shards.size()));
    std::error_code error;
    fs::remove(ManifestPath(), error);
    return report_;
  }

 private:
  std::string ShardPrefix(size_t n) const { return absl::StrFormat("%s-%05d", options_.prefix, n); }
  std::string ManifestPath() const { return options_.prefix + ".build.json"; }

  absl::Status Check() {
    if (options_.inputs.empty()) return absl::InvalidArgumentError("want at least one input file");
    if (options_.prefix.empty()) return absl::InvalidArgumentError("want a prefix for the files");
    if (options_.shard_bytes == 0) return absl::InvalidArgumentError("shard_bytes is 0, want at least 1");
    if (!text_.has_tokenizer()) return absl::InvalidArgumentError("the model has no tokenizer.json");
    if (options_.append_eod && !text_.eos_token_id()) {
      return absl::InvalidArgumentError(
          "the tokenizer has no end-of-text token to put between documents; build without it");
    }
    if (options_.middle.rate != 0) {
      REIN_ASSIGN_OR_RETURN(middle_, FillInTheMiddle::Create(options_.middle, text_));
    }
    std::error_code error;
    if (fs::exists(options_.prefix + ".idx", error)) {
      return absl::AlreadyExistsError(absl::StrCat(options_.prefix, ".idx exists already"));
    }
    const fs::path folder = fs::path(options_.prefix).parent_path();
    if (!folder.empty()) fs::create_directories(folder, error);
    return absl::OkStatus();
  }

  // What makes two builds the same.
  nlohmann::ordered_json Manifest() const {
    nlohmann::ordered_json manifest;
    for (size_t i = 0; i < files_.size(); ++i) {
      std::error_code error;
      const auto written = fs::last_write_time(options_.inputs[i], error).time_since_epoch().count();
      manifest["inputs"].push_back(
          {{"path", options_.inputs[i]}, {"bytes", files_[i]->bytes().size()}, {"written", written}});
    }
    manifest["column"] = options_.column;
    manifest["append_eod"] = options_.append_eod;
    if (middle_) {
      manifest["middle"] = {{"rate", options_.middle.rate}, {"suffix_first", options_.middle.suffix_first},
                            {"seed", options_.middle.seed}, {"tokens", options_.middle.tokens}};
    }
    manifest["shard_bytes"] = options_.shard_bytes;
    manifest["vocabulary"] = text_.vocabulary_size();
    return manifest;
  }

  absl::Status AgreeWithManifest() {
    const std::string own = Manifest().dump(1);
    std::error_code error;
    if (fs::exists(ManifestPath(), error)) {
      REIN_ASSIGN_OR_RETURN(std::string other, files::ReadFile(ManifestPath(), 1 << 24));
      if (other == own) return absl::OkStatus();
      return absl::FailedPreconditionError(absl::StrCat(
          ManifestPath(), " is of a build with other inputs or options that was not finished: remove it and ",
          options_.prefix, "-*.{bin,idx}, or give the same ones"));
    }
    if (fs::exists(ShardPrefix(0) + ".idx", error)) {
      return absl::AlreadyExistsError(absl::StrCat(ShardPrefix(0), ".idx exists already"));
    }
    std::ofstream out(ManifestPath(), std::ios::trunc);
    out << own;
    out.close();
    if (out) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", ManifestPath()));
  }

  std::vector<std::vector<Span>> CutIntoShards() const {
    std::vector<std::vector<Span>> shards(1);
    uint64_t used = 0;
    for (size_t f = 0; f < files_.size(); ++f) {
      const std::string_view bytes = files_[f]->bytes();
      const bool lines = HasLines(options_.inputs[f]);
      uint64_t line = 1;
      for (uint64_t begin = 0; begin < bytes.size();) {
        if (used >= options_.shard_bytes) {
          shards.emplace_back();
          used = 0;
        }
        uint64_t end = bytes.size();
        if (lines && end - begin > options_.shard_bytes - used) {
          end = std::min<uint64_t>(bytes.find('\n', begin + (options_.shard_bytes - used) - 1), bytes.size());
          end = std::min<uint64_t>(end + 1, bytes.size());
        }
        shards.back().push_back({f, begin, end, line});
        if (lines) line += static_cast<uint64_t>(std::count(bytes.begin() + begin, bytes.begin() + end, '\n'));
        used += end - begin;
        begin = end;
      }
    }
    return shards;
  }

  std::vector<Document> DocumentsOf(const std::vector<Span>& shard) const {
    std::vector<Document> documents;
    for (const Span& span : shard) {
      const std::string_view bytes = files_[span.file]->bytes().substr(span.begin, span.end - span.begin);
      if (!HasLines(options_.inputs[span.file])) {
        documents.push_back({span.file, 0, bytes});
        continue;
      }
      uint64_t line = span.line;
      for (size_t begin = 0; begin < bytes.size(); ++line) {
        const size_t end = std::min(bytes.find('\n', begin), bytes.size());
        const std::string_view row = bytes.substr(begin, end - begin);
        if (row.find_first_not_of(" \t\r") != std::string_view::npos) {
          documents.push_back({span.file, line, row});
        }
        begin = end + 1;
      }
    }
    return documents;
  }

  absl::Status Wrong(const Document& document, absl::string_view reason) const {
    const std::string& path = options_.inputs[document.file];
    return absl::InvalidArgumentError(
        document.line == 0 ? absl::StrCat(path, ": ", reason)
                           : absl::StrCat(path, ":", document.line, ": ", reason));
  }

  absl::StatusOr<std::string> TextOf(const Document& document) const {
    if (document.line == 0) return std::string(document.bytes);
    absl::StatusOr<nlohmann::json> row = json::ParseJson(document.bytes, {.max_bytes = kMaxLineBytes});
    if (!row.ok()) return Wrong(document, row.status().message());
    const nlohmann::json* value = &*row;
    if (auto whole = row->is_object() ? row->find(options_.column) : row->end(); whole != row->end()) {
      value = &*whole;
    } else {
      for (const std::string& key : std::vector<std::string>(absl::StrSplit(options_.column, '.'))) {
        if (!value->is_object() || !value->contains(key)) {
          return Wrong(document, absl::StrCat("no column \"", options_.column, "\""));
        }
        value = &(*value)[key];
      }
    }
    if (value->is_string()) return value->get<std::string>();
    return Wrong(document, absl::StrCat("column \"", options_.column, "\" is ", value->type_name(), ", want a text"));
  }

  absl::StatusOr<std::vector<uint32_t>> Encode(const Document& document) const {
    REIN_ASSIGN_OR_RETURN(std::string text, TextOf(document));
    absl::StatusOr<std::vector<uint32_t>> ids =
        middle_ ? middle_->Encode(text, document.file, document.line) : text_.Encode(text, /*add_special_tokens=*/false);
    if (!ids.ok()) return Wrong(document, ids.status().message());
    if (!ids->empty() && options_.append_eod) ids->push_back(*text_.eos_token_id());
    return ids;
  }

  // The ids of documents [begin, end), each by one of the threads.
  std::vector<absl::StatusOr<std::vector<uint32_t>>> EncodeAll(const std::vector<Document>& documents,
                                                               size_t begin, size_t end) const {
    std::vector<absl::StatusOr<std::vector<uint32_t>>> ids(end - begin, absl::UnknownError(""));
    std::atomic<size_t> next = begin;
    auto work = [&] {
      for (size_t i = next++; i < end; i = next++) ids[i - begin] = Encode(documents[i]);
    };
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    const int threads = std::max(1, options_.threads > 0 ? options_.threads : cores);
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
    work();
    for (std::thread& thread : others) thread.join();
    return ids;
  }

  absl::Status BuildShard(size_t n, const std::vector<Span>& shard) {
    std::error_code error;
    const std::string prefix = ShardPrefix(n);
    report_.index_files.push_back(prefix + ".idx");
    if (fs::exists(prefix + ".idx", error)) {
      REIN_ASSIGN_OR_RETURN(auto done, IndexedTokens::Open(prefix + ".idx"));
      ++report_.kept_shards;
      report_.documents += done->documents();
      return absl::OkStatus();
    }
    REIN_ASSIGN_OR_RETURN(auto writer, IndexedTokensWriter::Create(prefix, text_.vocabulary_size()));
    const std::vector<Document> documents = DocumentsOf(shard);
    for (size_t begin = 0; begin < documents.size(); begin += kBatch) {
      const size_t end = std::min(begin + kBatch, documents.size());
      for (absl::StatusOr<std::vector<uint32_t>>& ids : EncodeAll(documents, begin, end)) {
        if (!ids.ok() && report_.skipped >= options_.max_skipped) return ids.status();
        if (!ids.ok() || ids->empty()) {
          ++report_.skipped;
          continue;
        }
        REIN_RETURN_IF_ERROR(writer->Add(*ids));
        ++report_.documents;
        report_.tokens += ids->size();
      }
      for (size_t i = begin; i < end; ++i) report_.text_bytes += documents[i].bytes.size();
      if (progress_) progress_(report_);
    }
    return writer->Close();
  }

  // The shards become one, and go.
  absl::Status Join(size_t shards) {
    std::error_code error;
    if (shards == 1) {
      fs::rename(ShardPrefix(0) + ".bin", options_.prefix + ".bin", error);
      if (!error) fs::rename(ShardPrefix(0) + ".idx", options_.prefix + ".idx", error);
      if (error) return absl::InternalError(absl::StrCat("cannot rename ", ShardPrefix(0), ": ", error.message()));
    } else {
      REIN_ASSIGN_OR_RETURN(auto writer, IndexedTokensWriter::Create(options_.prefix, text_.vocabulary_size()));
      for (size_t n = 0; n < shards; ++n) {
        REIN_ASSIGN_OR_RETURN(auto shard, IndexedTokens::Open(ShardPrefix(n) + ".idx"));
        for (uint64_t d = 0, begin = 0; d < shard->documents(); begin = shard->EndOf(d++)) {
          REIN_ASSIGN_OR_RETURN(auto ids, shard->Read(begin, shard->EndOf(d) - begin));
          REIN_RETURN_IF_ERROR(writer->Add(ids));
        }
      }
      REIN_RETURN_IF_ERROR(writer->Close());
      for (size_t n = 0; n < shards; ++n) {
        for (const char* suffix : {".idx", ".bin"}) fs::remove(ShardPrefix(n) + suffix, error);
      }
    }
    report_.index_files = {options_.prefix + ".idx"};
    return absl::OkStatus();
  }

  const BuildOptions& options_;
  const text::ModelText& text_;
  const BuildProgress& progress_;
  std::optional<FillInTheMiddle> middle_;
  std::vector<std::unique_ptr<files::MappedFile>> files_;
  BuildReport report_;
};

}  // namespace

absl::StatusOr<BuildReport> BuildCorpus(const BuildOptions& options, const text::ModelText& text,
                                        const BuildProgress& progress) {
  return Builder(options, text, progress).Run();
}

}  // namespace rein::data
