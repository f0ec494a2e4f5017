// The weight files of a model folder, as tensors of the file's own names.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint/safetensors.h"
#include "common/models/model_folder.h"

namespace rein::models {

// The safetensors files of a folder, one or many. NOT_FOUND when there are none, INVALID_ARGUMENT when there are
// pickles only.
absl::StatusOr<std::vector<std::unique_ptr<checkpoint::SafetensorsFile>>> OpenWeightFiles(
    const std::string& folder);

// Whether LoadWeights() would take the folder, with its errors, without reading the weights.
absl::Status CheckWeights(const std::string& folder, const ModelDescription& model,
                          const weights::Registry& registry);

// The bytes as a tensor of F32, BF16, F16 or F8_E4M3; undefined for another dtype.
at::Tensor FileTensor(const checkpoint::TensorView& view);

}  // namespace rein::models
