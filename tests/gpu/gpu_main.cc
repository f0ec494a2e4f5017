// rein-gpu-tests: every test that needs a GPU. Exits with 77 (skipped) where there is none.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "common/tensor/cuda_runtime.h"
#include "tests/gpu/cuda_error_process.h"
#include "tests/gpu/rank_process.h"
#include "tests/gpu/weight_receiver_process.h"

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--weight-receiver") == 0) {
    return rein::gpu::WeightReceiverMain(argc - 2, argv + 2);
  }
  if (argc > 1 && std::strcmp(argv[1], "--cuda-error") == 0) return rein::gpu::CudaErrorMain();
  if (argc > 1 && std::strcmp(argv[1], "--rank") == 0) {
    return rein::gpu::RankMain(argc - 2, argv + 2);
  }
  if (rein::tensor::CudaDeviceCount() == 0) {
    std::printf("SKIPPED: this host shows no GPU, and every test here needs one\n");
    return 77;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
