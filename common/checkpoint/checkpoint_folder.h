// CheckpointWriter makes a folder that is either whole and durable, or not there.
//
//   REIN_ASSIGN_OR_RETURN(auto writer, CheckpointWriter::Create("run/checkpoint-3"));
//   ... write files into writer->folder() ...
//   REIN_ASSIGN_OR_RETURN(uint64_t bytes, writer->Commit());
//
// Files are written into a temporary folder beside the final one; Commit flushes them, writes
// manifest.json with the size and digest of each, flushes the folder and renames it. Without a Commit the
// temporary folder is removed.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nlohmann/json_fwd.hpp>

namespace rein::checkpoint {

class CheckpointWriter {
 public:
  // ALREADY_EXISTS when `path` exists. Left-overs of an earlier, killed writer of `path` are removed.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(const std::string& path);
  ~CheckpointWriter();

  const std::string& folder() const { return temporary_; }

  // Total bytes. RESOURCE_EXHAUSTED when the disk is full.
  absl::StatusOr<uint64_t> Commit();

 private:
  CheckpointWriter(std::string path, std::string temporary);

  std::string path_, temporary_;
};

// OK when `path` has a manifest and every file matches it; DATA_LOSS names the first that does not, INVALID_ARGUMENT a format of
// another version.
absl::Status VerifyCheckpoint(const std::string& path);

// INVALID_ARGUMENT, with both, unless `json` has "format": `wanted`. Every format of checkpoints so far is version 1.
absl::Status CheckFormat(const nlohmann::json& json, const std::string& wanted, const std::string& path);

}  // namespace rein::checkpoint
