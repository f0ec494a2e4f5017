#include "trainer/optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rein::trainer {

double LearningRate(const LrSchedule& s, int64_t update) {
  if (update <= s.warmup) {
    return s.peak * static_cast<double>(update) / static_cast<double>(s.warmup);
  }
  const int64_t begin = s.curve == LrSchedule::Curve::kWsd
                            ? std::max(s.warmup, s.max_updates - s.decay)
                            : s.warmup;
  const double length = static_cast<double>(std::max<int64_t>(1, s.max_updates - begin));
  const double progress = std::clamp(static_cast<double>(update - begin) / length, 0.0, 1.0);
  switch (s.curve) {
    case LrSchedule::Curve::kConstant:
      return s.peak;
    case LrSchedule::Curve::kLinear:
    case LrSchedule::Curve::kWsd:
      return s.peak * (1 - (1 - s.final) * progress);
    case LrSchedule::Curve::kCosine:
      return s.peak *
             (s.final + (1 - s.final) * (1 + std::cos(std::numbers::pi * progress)) / 2);
  }
  return s.peak;
}

}  // namespace rein::trainer
