// Reads and writes GGUF files, version 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata and tensors.
//
//   REIN_ASSIGN_OR_RETURN(auto file, GgufFile::Open("model-q8_0.gguf"));
//   const GgufTensor* tensor = file->Find("token_embd.weight");     // bytes stay in the mapped file
//
// Files are not trusted: whatever does not fit is INVALID_ARGUMENT that names file and key or tensor.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/files/mapped_file.h"

namespace rein::checkpoint {

// Written as uint32, float32, bool, string, and arrays of string, int32 and float32.
using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<std::string>, std::vector<int64_t>, std::vector<double>>;
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // in the file's order

enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

struct GgufTensor {
  std::vector<int64_t> shape;  // rows first, as everywhere here; the file has it the other way round
  GgufType type = GgufType::kF32;
  const char* data = nullptr;
  size_t size_bytes = 0;

  int64_t elements() const;
};

// Bytes of so many elements; 0 for a type that is not read, or a number that it has no blocks for.
size_t GgufBytes(GgufType type, int64_t elements);
const char* NameOf(GgufType type);

class GgufFile {
 public:
  // NOT_FOUND when there is no such file.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);

  const std::map<std::string, GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* Find(const std::string& name) const;        // null when absent
  const GgufValue* Metadata(const std::string& key) const;      // null when absent
  const std::string& path() const { return path_; }

 private:
  GgufFile() = default;
  absl::Status Parse();

  std::string path_;
  std::unique_ptr<files::MappedFile> mapped_;
  std::map<std::string, GgufValue> metadata_;
  std::map<std::string, GgufTensor> tensors_;
};

// Writes the tensors in the given order; the file is on the disk when this returns OK, and gone on any error.
absl::Status WriteGguf(const std::string& path, const GgufMetadata& metadata,
                       const std::vector<std::pair<std::string, GgufTensor>>& tensors);

}  // namespace rein::checkpoint
