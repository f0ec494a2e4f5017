#include "common/models/rope_table.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rein::models {
namespace {

double Llama3(double f, const RopeScaling& scaling) {
  const double wavelength = 2 * std::numbers::pi / f;
  const auto original = static_cast<double>(scaling.original_max_positions);
  if (wavelength > original / scaling.low_freq_factor) return f / scaling.factor;
  if (wavelength < original / scaling.high_freq_factor) return f;
  const double smooth = (original / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * f / scaling.factor + smooth * f;
}

// NTK by parts (YaRN, arXiv 2309.00071 §3.2): high frequencies stay, low ones are interpolated.
double Yarn(double f, int64_t i, int64_t dims, const RopeSpec& rope) {
  const RopeScaling& scaling = rope.scaling;
  auto dim_of = [&](double turns) {
    return static_cast<double>(dims) *
           std::log(static_cast<double>(scaling.original_max_positions) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = dim_of(scaling.beta_fast), high = dim_of(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
  return f / scaling.factor * ramp + f * (1 - ramp);
}

double Frequency(const RopeSpec& rope, int64_t i, int64_t dims) {
  const double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
  switch (rope.scaling.kind) {
    case RopeScaling::Kind::kNone:
      return f;
    case RopeScaling::Kind::kLinear:
      return f / rope.scaling.factor;
    case RopeScaling::Kind::kLlama3:
      return Llama3(f, rope.scaling);
    case RopeScaling::Kind::kYarn:
      return Yarn(f, i, dims, rope);
    case RopeScaling::Kind::kLongRope:
      return f / rope.scaling.short_factors[static_cast<size_t>(i)];
  }
  return f;
}

}  // namespace

RopeTable MakeRopeTable(const RopeSpec& rope, int64_t dims, int64_t positions) {
  std::vector<double> frequency;
  for (int64_t i = 0; i < dims / 2; ++i) frequency.push_back(Frequency(rope, i, dims));
  at::Tensor angle = at::outer(at::arange(positions, at::kFloat),
                               at::tensor(frequency, at::kDouble).to(at::kFloat));
  const double factor = rope.scaling.attention_factor;
  return {angle.cos().mul_(factor), angle.sin().mul_(factor)};
}

}  // namespace rein::models
