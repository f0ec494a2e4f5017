// Low-rank adaptation (LoRA, arXiv 2106.09685) and frozen parameters: which matrices are updated, what an adapter folder
// of PEFT (https://github.com/huggingface/peft) holds, and how it becomes a whole model.
//
//   REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeTrained("models/qwen3", {.lora = LoraChoice{.rank = 16}}));
//   InitializeAdapter(registry, seed, arena);          // or LoadWeights() of an adapter folder
//   REIN_RETURN_IF_ERROR(SaveAdapterFolder(out, model, registry, arena, model.base));
//
// Each matrix of the decoder has an update of its own. Where a family's file fuses several (q, k and v, or gate and up),
// the folder's one module holds them side by side: its rank is the sum of theirs, its B one block for each. Reading such a
// module gives every part the whole of A and its rows of B.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/models/arena.h"
#include "common/models/model_folder.h"
#include "common/weights/registry.h"

namespace rein::models {

// `pattern` is a name, or its end behind a dot; '*' stands for any characters.
bool MatchesName(absl::string_view pattern, absl::string_view name);

struct LoraChoice {
  int64_t rank = 0;
  double alpha = 32;
  bool rank_stabilised = false;  // scale alpha / sqrt(rank) (arXiv 2312.03732), else alpha / rank
  // Of matrices, by the decoder's names ("attention.q") or the file's ("q_proj"). Empty or "all-linear": every matrix
  // but embeddings, head, router and convolutions, which have no update.
  std::vector<std::string> targets;
  std::vector<std::string> save;  // modules that are trained whole beside the updates; names as above
};

// What of a model a job trains.
struct TrainedChoice {
  std::optional<LoraChoice> lora;    // absent: of an adapter folder its updates, else everything
  std::vector<std::string> freeze;   // parameters that are not, by name with or without .weight or .bias
  bool mtp = false;  // with the model's layers of multi-token prediction
  bool kv_fp8 = false;  // keys and values are rounded; see DecoderSpec
  // Of the matrices beneath low-rank updates; see nn/quantised_matrix.h.
  weights::Quantisation base = weights::Quantisation::kNone;
};

// DescribeModel(), with what is trained in spec.lora and spec.frozen. `scalar_head` is WithScalarHead(). INVALID_ARGUMENT
// names a model without layers of multi-token prediction that should have some, one without keys and values whose are to be rounded, patterns that match nothing, with the nearest name, matrices that have no update, and a quantised base of a model
// that has no updates.
absl::StatusOr<ModelDescription> DescribeTrained(const std::string& path, const TrainedChoice& choice,
                                                 bool scalar_head = false);

// `base` with the updates of an adapter folder. INVALID_ARGUMENT for an adapter of another kind than LoRA, for settings
// that change what is computed and are not supported, and for modules that the base does not have.
absl::StatusOr<ModelDescription> WithAdapter(const ModelDescription& base, const std::string& folder);

// As PEFT begins: A uniform in +-1 / sqrt(columns), drawn from (seed, name) alone, B zero.
void InitializeAdapter(const weights::Registry& registry, uint64_t seed, const ArenaParts& arena);

// Fills the updates (and a scalar head, and modules that are saved whole) from the folder's adapter_model.safetensors. INVALID_ARGUMENT lists tensors that are missing or of
// another shape.
absl::Status LoadAdapter(const std::string& folder, const ModelDescription& model, const weights::Registry& registry,
                         const ArenaParts& arena);

// Writes adapter_config.json, which names model.base, and adapter_model.safetensors (dtype of the arena), and copies the
// tokenizer's files of `text_folder` unless it is empty. The folder loads with PeftModel.from_pretrained.
absl::Status SaveAdapterFolder(const std::string& folder, const ModelDescription& model,
                               const weights::Registry& registry, const ArenaParts& arena,
                               const std::string& text_folder);

// The same model with its updates added to its matrices.
struct MergedModel {
  ModelDescription model;
  weights::Registry registry;
  at::Tensor arena;
};
absl::StatusOr<MergedModel> Merge(const ModelDescription& model, const weights::Registry& registry,
                                  const ArenaParts& arena);

}  // namespace rein::models
