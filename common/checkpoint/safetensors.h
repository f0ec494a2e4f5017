// Reads and writes files of the safetensors format (https://github.com/huggingface/safetensors).
//
//   REIN_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open("model.safetensors"));
//   const TensorView* view = file->Find("lm_head.weight");   // bytes stay in the mapped file
//
// Files are not trusted: a header above 16 MiB, a repeated name, an unknown dtype, a size that does
// not match shape and dtype, an overlap, a hole or a tail is INVALID_ARGUMENT that names file and
// tensor.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/files/mapped_file.h"

namespace rein::checkpoint {

struct TensorView {
  std::string dtype;  // F32, BF16, F16, I64, ...
  std::vector<int64_t> shape;
  const char* data = nullptr;
  size_t size_bytes = 0;
};

// Bytes of one element; 0 for a dtype that the format does not know.
size_t ElementBytes(absl::string_view dtype);

class SafetensorsFile {
 public:
  // NOT_FOUND when there is no such file.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const TensorView* Find(const std::string& name) const;  // null when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  SafetensorsFile() = default;
  absl::Status Parse();

  std::string path_;
  std::unique_ptr<files::MappedFile> mapped_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
  std::string name;
  TensorView view;
};

// Writes `tensors` in the given order; the file is on the disk (fsync) when this returns OK.
// RESOURCE_EXHAUSTED when the disk is full; the unfinished file is removed on any error.
absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace rein::checkpoint
