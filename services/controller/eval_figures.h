// What an evaluation says of numbers: means with confidence intervals, and pass@k. Pure functions.

#pragma once

#include <cstdint>
#include <vector>

namespace rein::services {

// Of the mean of independent values.
struct MeanFigure {
  double mean = 0;
  double standard_error = 0;  // from the unbiased variance; 0 of a single value
  double low = 0, high = 0;   // the 95 % confidence interval, of Student's t
};

MeanFigure MeanOf(const std::vector<double>& values);

// The same of a share among so many independent tries (standard error sqrt(p (1 - p) / n); normal interval, within 0 to 1).
MeanFigure ShareOf(double share, double tries);

// The two-sided 95 % quantile of Student's t.
double StudentQuantile(uint64_t degrees_of_freedom);

// 1 - C(n - c, k) / C(n, k): the chance that one of k completions is right, without bias, from n of which c are
// (arXiv 2107.03374). k is at most n.
double PassAt(uint64_t k, uint64_t n, uint64_t c);

}  // namespace rein::services
