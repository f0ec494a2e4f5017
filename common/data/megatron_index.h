// Tokenised documents in the files of Megatron: NAME.bin holds the tokens of all documents one after the other, NAME.idx
// says where each begins. Both are mapped, so that opening them costs nothing and reading one document only its pages.
//
//   REIN_ASSIGN_OR_RETURN(auto corpus, IndexedTokens::Open("corpus.idx"));
//   std::vector<uint32_t> ids = corpus->Read(begin, count);   // tokens of the stream, across documents
//
// The layout of version 1 (NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py), little-endian:
//
//   9 bytes "MMIDIDX\0\0" · u64 version = 1 · u8 dtype · u64 sequences S · u64 documents D + 1
//   i32 length[S] in tokens · i64 pointer[S] in bytes of the .bin · i64 document[D + 1], the sequence each begins with
//
// dtype: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16 (6 and 7, floats, are refused).
//
// What opens a file does not trust it: a fault is INVALID_ARGUMENT and names file, key, actual and wanted value.

#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/files/mapped_file.h"

namespace rein::data {

// Immutable and thread-safe.
class IndexedTokens {
 public:
  // `path` ends with .idx; the .bin stands beside it.
  static absl::StatusOr<std::unique_ptr<IndexedTokens>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t documents() const { return document_end_.size(); }
  uint64_t tokens() const { return document_end_.empty() ? 0 : document_end_.back(); }
  // Place in the stream behind the last token of a document.
  uint64_t EndOf(uint64_t document) const { return document_end_[document]; }
  // The document that a token of the stream belongs to; place is below tokens().
  uint64_t DocumentAt(uint64_t place) const;

  // Tokens [begin, begin + count) of the stream of all documents. INVALID_ARGUMENT for an id that is negative or
  // above 2^32 - 1.
  absl::StatusOr<std::vector<uint32_t>> Read(uint64_t begin, uint64_t count) const;

 private:
  IndexedTokens() = default;

  absl::Status ReadIndex();
  uint64_t SequenceAt(uint64_t place) const;

  std::string path_;
  std::unique_ptr<files::MappedFile> index_, bin_;
  uint8_t dtype_ = 0;
  uint64_t width_ = 0;                      // bytes of a token
  std::vector<uint64_t> sequence_begin_;    // place in the stream, one more than sequences
  const char* pointers_ = nullptr;          // i64, unaligned
  std::vector<uint64_t> document_end_;      // place in the stream
};

// Writes NAME.bin and NAME.idx under other names, which become theirs in Close(). Not thread-safe.
class IndexedTokensWriter {
 public:
  // `prefix`: without .bin. uint16 tokens where the vocabulary is below 65500, as Megatron chooses, else int32.
  static absl::StatusOr<std::unique_ptr<IndexedTokensWriter>> Create(const std::string& prefix,
                                                                     uint64_t vocabulary_size);
  ~IndexedTokensWriter();  // without Close() the files are removed

  // INVALID_ARGUMENT for an id outside the vocabulary; RESOURCE_EXHAUSTED when the disk is full.
  absl::Status Add(const std::vector<uint32_t>& document);
  absl::Status Close();

  uint64_t documents() const { return lengths_.size(); }
  uint64_t tokens() const { return tokens_; }

 private:
  IndexedTokensWriter(std::string prefix, uint64_t vocabulary_size)
      : prefix_(std::move(prefix)), vocabulary_size_(vocabulary_size) {}

  const std::string prefix_;
  const uint64_t vocabulary_size_;
  std::ofstream bin_;
  std::vector<int32_t> lengths_;
  uint64_t tokens_ = 0;
  bool closed_ = false;
};

}  // namespace rein::data
