// What a job on a model would need, before anything is loaded: bytes of each role by kind, which GPUs hold it, tokens/s.
//
// Parameters, weights, gradients, optimizer state and KV are counted; activations and speeds are modelled, with constants
// fitted to the figures of tests/bench/RESULTS.md (Qwen2.5 and Qwen3 shapes from 0.5B to 4B, H100 and H200, bf16).
// estimate_test holds the model against those figures.

#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "common/models/lora.h"

namespace rein::models {

struct EstimateChoice {
  // What the job does: pretrain, sft, dpo (or kto), rl, evaluate.
  std::string job = "rl";
  int64_t length = 0;              // tokens of a sequence; 0: 4096, or the model's context if that is less
  int64_t sequences = 256;         // that are generated at once
  int64_t microbatch_tokens = 8192;
  bool recompute = false;
  bool reference = false;          // rl: with a KL term
  TrainedChoice trained;
  int64_t compute_bytes = 2;       // of a number: 4 in fp32
  int64_t moment_bytes = 4;        // of a number in AdamW's moments
};

// Of one GPU.
struct TrainingEstimate {
  // Bytes.
  int64_t weights = 0, gradients = 0, optimizer = 0, reference = 0, activations = 0;
  int64_t unpacked = 0;  // of the largest quantised matrix, in the compute format
  // Logits, or what the backward pass of attention works in, one after the other in the same place.
  int64_t logits = 0, attention = 0;
  int64_t workspace() const { return std::max(logits, attention); }
  int64_t total(int ranks) const { return weights + gradients + optimizer / ranks + reference + activations + unpacked + workspace(); }
};
TrainingEstimate EstimateTraining(const ModelDescription& model, const weights::Registry& registry,
                                  const EstimateChoice& choice);

// Whether every part of the model runs by the kernels that the constants were fitted to.
bool IsCalibrated(const DecoderSpec& spec);

enum class Gpu { kH100, kH200 };
// Of one rank, packed sequences of `length`.
double TrainingTokensPerSecond(const DecoderSpec& spec, const weights::Registry& registry, int64_t length,
                               bool recompute);
// Of one generator with so many sequences of `context` keys at once, of which `shared` stand once for each `siblings`.
double GeneratedTokensPerSecond(const DecoderSpec& spec, const weights::Registry& registry, Gpu gpu, int64_t sequences,
                                int64_t context, int64_t shared = 0, int64_t siblings = 1);

// All of it for people. INVALID_ARGUMENT for a choice that makes no sense.
absl::StatusOr<nlohmann::ordered_json> EstimateJob(const std::string& path, const EstimateChoice& choice);

}  // namespace rein::models
