#include "common/kernels/exactness.h"

#include <atomic>

namespace rein::kernels {
namespace {

std::atomic<bool> keeps_bits = true;

}  // namespace

void KeepBits(bool keep) { keeps_bits = keep; }

bool KeepsBits() { return keeps_bits; }

}  // namespace rein::kernels
