#include "trainer/advantages/whiten.h"

#include <cmath>

namespace rein::trainer {

TokenRows Whiten(const TokenRows& x) {
  double count = 0, sum = 0, squares = 0;
  for (const auto& row : x) {
    for (double v : row) sum += v;
    count += static_cast<double>(row.size());
  }
  const double mean = count > 0 ? sum / count : 0;
  for (const auto& row : x) {
    for (double v : row) squares += (v - mean) * (v - mean);
  }
  const double scale = count > 1 ? 1 / std::sqrt(squares / (count - 1) + 1e-8) : 0;
  TokenRows whitened = x;
  for (auto& row : whitened) {
    for (double& v : row) v = (v - mean) * scale;
  }
  return whitened;
}

}  // namespace rein::trainer
