// Barriers in shared memory (sm_90).

#pragma once

#include <cstdint>

#include "common/kernels/mma.cuh"

namespace rein::kernels {

// Threads arrive at it and others wait for it, phase by phase.
struct Barrier {
  uint64_t state;

  __device__ void Init(int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;\n" ::"r"(SharedAddress(&state)), "r"(arrivals));
  }
  __device__ void Arrive() {
    asm volatile("{\n.reg .b64 t;\nmbarrier.arrive.shared.b64 t, [%0];\n}\n" ::"r"(SharedAddress(&state))
                 : "memory");
  }
  // Arrives, and lets the phase last until so many bytes were copied here as well.
  __device__ void Expect(int bytes) {
    asm volatile("{\n.reg .b64 t;\nmbarrier.arrive.expect_tx.shared.b64 t, [%0], %1;\n}\n" ::"r"(SharedAddress(&state)),
                 "r"(bytes)
                 : "memory");
  }
  // Until the phase of this parity is over.
  __device__ void Wait(int parity) {
    asm volatile(
        "{\n.reg .pred p;\nAGAIN%=:\nmbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@p bra DONE%=;\n"
        "bra AGAIN%=;\nDONE%=:\n}\n" ::"r"(SharedAddress(&state)),
        "r"(parity)
        : "memory");
  }
};

}  // namespace rein::kernels
