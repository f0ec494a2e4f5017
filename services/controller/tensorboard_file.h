// TensorboardFile appends scalars to an event file that TensorBoard reads.
//
// A record is a TFRecord frame (length, its masked CRC-32C, payload, its masked CRC-32C) around a
// tensorflow.Event, of which only the fields in use are written. Not thread-safe.

#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::services {

class TensorboardFile {
 public:
  // Makes a new file in `folder`; `wall_seconds` (since 1970) is part of its name.
  static absl::StatusOr<std::unique_ptr<TensorboardFile>> Create(const std::string& folder,
                                                                 double wall_seconds);
  ~TensorboardFile();

  absl::Status Append(double wall_seconds, uint64_t update,
                      const std::vector<std::pair<std::string, double>>& scalars);

 private:
  TensorboardFile(int file, std::string path) : file_(file), path_(std::move(path)) {}
  absl::Status AppendRecord(const std::string& payload);

  int file_;
  const std::string path_;
};

}  // namespace rein::services
