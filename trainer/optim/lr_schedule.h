// The learning rate as a function of the Update's number.

#pragma once

#include <cstdint>

namespace rein::trainer {

struct LrSchedule {
  enum class Curve { kConstant, kLinear, kCosine, kWsd };
  Curve curve = Curve::kConstant;
  double peak = 0;
  int64_t warmup = 0;       // Updates over which the rate rises linearly: peak * u / warmup
  int64_t max_updates = 1;  // length of the job
  int64_t decay = 0;        // kWsd: Updates of the final fall (arXiv 2404.06395)
  double final = 0;         // share of the peak at the end (linear, cosine, wsd)
};

// `update` counts from 1. After max_updates the last value holds.
double LearningRate(const LrSchedule& schedule, int64_t update);

}  // namespace rein::trainer
