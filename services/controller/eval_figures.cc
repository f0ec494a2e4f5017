#include "services/controller/eval_figures.h"

#include <cmath>

namespace rein::services {

constexpr double kNormalQuantile = 1.959964;  // two-sided 95 %

MeanFigure MeanOf(const std::vector<double>& values) {
  MeanFigure figure;
  const auto count = static_cast<double>(values.size());
  for (double value : values) figure.mean += value / count;
  if (values.size() > 1) {
    double squares = 0;
    for (double value : values) squares += (value - figure.mean) * (value - figure.mean);
    figure.standard_error = std::sqrt(squares / (count - 1) / count);
  }
  const double reach =
      values.size() > 1 ? StudentQuantile(values.size() - 1) * figure.standard_error : 0;
  figure.low = figure.mean - reach;
  figure.high = figure.mean + reach;
  return figure;
}

MeanFigure ShareOf(double share, double tries) {
  MeanFigure figure{.mean = share, .standard_error = std::sqrt(share * (1 - share) / tries)};
  figure.low = std::max(0.0, share - kNormalQuantile * figure.standard_error);
  figure.high = std::min(1.0, share + kNormalQuantile * figure.standard_error);
  return figure;
}

double StudentQuantile(uint64_t degrees_of_freedom) {
  if (degrees_of_freedom <= 1) return 12.7062;
  if (degrees_of_freedom == 2) return 4.3027;
  // Abramowitz and Stegun 26.7.5, right to 0.2 % from 3 degrees on.
  const double z = kNormalQuantile, n = static_cast<double>(degrees_of_freedom);
  const double z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z, z9 = z7 * z * z;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n) +
         (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * n * n * n * n);
}

double PassAt(uint64_t k, uint64_t n, uint64_t c) {
  if (n - c < k) return 1;
  double none = 1;
  for (uint64_t i = n - c + 1; i <= n; ++i) {
    none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  }
  return 1 - none;
}

}  // namespace rein::services
