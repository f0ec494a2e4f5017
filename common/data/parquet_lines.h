// Parquet files as the lines of JSON that datasets are read from.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/files/mapped_file.h"

namespace rein::data {

// One JSON object for each row, in order: nested columns are objects and lists. Rows are decoded a row group at a time
// into a file without a name in the folder for temporary files, so memory holds no more than a row group. INVALID_ARGUMENT
// names a file that is no Parquet, RESOURCE_EXHAUSTED when the folder is full.
absl::StatusOr<std::unique_ptr<files::MappedFile>> ParquetAsLines(const std::string& path);

}  // namespace rein::data
