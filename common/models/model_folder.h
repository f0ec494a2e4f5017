// Reads and writes Hugging Face model folders: config.json and safetensors, single or sharded.
//
//   REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeModel("models/smollm2"));
//   REIN_ASSIGN_OR_RETURN(auto registry, weights::Registry::Create(DecoderParameters(model.spec)));
//   REIN_RETURN_IF_ERROR(LoadWeights("models/smollm2", model, registry, compute_or_master));
//
// Folders are not trusted: every fault is INVALID_ARGUMENT or NOT_FOUND that names file and key.

#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/models/decoder_parameters.h"
#include "common/models/family.h"
#include "common/weights/registry.h"

namespace rein::models {

struct ModelDescription {
  const ModelFamily* family = nullptr;
  DecoderSpec spec;
  std::string config_json;  // the text of config.json, written back on save
  std::string base;         // the folder of the whole weights, or the config.json
};

// `path` is a folder with a config.json, the config.json itself, or a PEFT adapter folder (see lora.h), which is its base
// with low-rank updates. A ...ForSequenceClassification with one label is its family's decoder with a scalar head.
absl::StatusOr<ModelDescription> DescribeModel(const std::string& path);

// The same body with a scalar head, as a reward model or critic begins; its folder says
// ...ForSequenceClassification with one label.
absl::StatusOr<ModelDescription> WithScalarHead(const ModelDescription& model);

// Copies every parameter from the folder's safetensors into the flat `arena`, converting its dtype
// (BF16, F16, F32, or F8_E4M3 with a weight_scale_inv for each block of 128 x 128). INVALID_ARGUMENT lists all tensors that are missing, unknown or of another shape.
// Only what the family names as no parameter, buffers such as rotary_emb.inv_freq, and a head equal to a tied embedding are
// skipped. A scalar head that the folder of a causal model lacks begins at 0, and that model's own head is
// skipped. Matrices that the registry quantises are so on the way, from the file's numbers; INVALID_ARGUMENT where one is not
// finite. Low-rank updates come from an adapter folder; where `folder` is none they are left alone.
absl::Status LoadWeights(const std::string& folder, const ModelDescription& model,
                         const weights::Registry& registry, const at::Tensor& arena);
// The same into parts that stand apart, whose dtypes may differ.
absl::Status LoadWeights(const std::string& folder, const ModelDescription& model,
                         const weights::Registry& registry, const ArenaParts& arena);

// Fills `arena` with random weights: norms 1 (0 where 1 is added to them), biases 0, matrices normal with deviation 0.02, each drawn
// from (seed, parameter name) alone.
void InitializeWeights(const DecoderSpec& spec, const weights::Registry& registry, uint64_t seed,
                       const at::Tensor& arena);

// Writes config.json and model.safetensors (dtype of `arena`) into `folder`, and copies the tokenizer's
// files from `source_folder` when it is not empty. The folder loads in `transformers`. Of a model without low-rank
// updates; see lora.h.
absl::Status SaveModelFolder(const std::string& folder, const ModelDescription& model,
                             const weights::Registry& registry, const at::Tensor& arena,
                             const std::string& source_folder);
// The tokenizer's files alone.
absl::Status CopyTokenizer(const std::string& source_folder, const std::string& folder);

}  // namespace rein::models
