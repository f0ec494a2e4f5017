// Leaves out of rows of logits what top_k, top_p and min_p exclude, in that order, as rollout/sampling/sampler.h does
// by sorting. Here nothing is sorted: bf16 has 65,536 values, so the smallest one that is kept is searched for, four
// ways at a time, by counting; probability mass is added in fixed point, so that no order of adding shows.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

// z = logits / temperature. Of equal logits those with lower ids are likelier.
struct FilterRow {
  double top_p = 1;       // in (0, 1]: the smallest set of likeliest tokens with at least this mass
  double min_p = 0;       // in [0, 1): tokens at least this likely, relative to the likeliest
  float temperature = 1;  // above 0
  uint32_t top_k = 0;     // the k likeliest; 0: all
};

struct LogitFilter {
  void* logits = nullptr;          // bf16 [rows, stride], in and out: -inf where a token is excluded
  int64_t stride = 0;              // elements between rows
  const FilterRow* row = nullptr;  // [rows], on the device
  int64_t rows = 0, vocabulary = 0;
};

// Returns after the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status FilterLogits(const LogitFilter& run, void* stream);

}  // namespace rein::kernels
