// ResultFile is the JSONL file that a job of kind generate or score leaves: it is there whole, or not at all.
//
//   REIN_ASSIGN_OR_RETURN(auto file, ResultFile::Create(job.output + "/completions.jsonl"));
//   for (...) REIN_RETURN_IF_ERROR(file->Add(line));
//   REIN_RETURN_IF_ERROR(file->Close());

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/checkpoint/durable_file.h"

namespace rein::services {

class ResultFile {
 public:
  // Makes the folder; an older file of the name stays until Close(). RESOURCE_EXHAUSTED when the disk is full.
  static absl::StatusOr<std::unique_ptr<ResultFile>> Create(const std::string& path);

  absl::Status Add(std::string line);
  absl::Status Close();

  // Of the ledger: the order up to which groups were written, excluded.
  uint64_t next_order = 0;
  // Of log-probs that were written.
  double logprob_sum = 0;
  uint64_t tokens = 0, sequences = 0;

 private:
  ResultFile(std::string path, std::unique_ptr<checkpoint::DurableFile> file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  std::unique_ptr<checkpoint::DurableFile> file_;
};

}  // namespace rein::services
