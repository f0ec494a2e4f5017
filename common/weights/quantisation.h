// How numbers of a parameter are held that is never trained, where that is narrower than the compute format.

#pragma once

#include <cstdint>

namespace rein::weights {

enum class Quantisation {
  kNone,
  kInt8,  // code * scale, one scale for each row: the largest magnitude / 127 (vector-wise absmax of arXiv 2208.07339)
  kNf4,   // NormalFloat table[code] * scale, one scale for each kNf4Block numbers in order: the largest magnitude
};        // (arXiv 2305.14314; table and order of nibbles of bitsandbytes' functional.py, without double quantisation)

inline constexpr int64_t kNf4Block = 64;

// Bytes of the codes of so many numbers; of kNf4 an even number of them.
constexpr int64_t CodeBytes(Quantisation format, int64_t elements) {
  return format == Quantisation::kNf4 ? elements / 2 : elements;
}

// Scales of a matrix of so many rows and numbers.
constexpr int64_t ScaleCount(Quantisation format, int64_t rows, int64_t elements) {
  return format == Quantisation::kNf4 ? elements / kNf4Block : rows;
}

}  // namespace rein::weights
