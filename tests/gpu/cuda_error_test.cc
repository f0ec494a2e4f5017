// What becomes of an error of CUDA itself: the process in which it happened can do nothing more.

#include "tests/gpu/cuda_error_process.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "common/status/fatal.h"
#include "common/tensor/catch_torch.h"
#include "tests/gpu/test_process.h"

namespace rein::gpu {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Show(const absl::Status& status) {
  std::string text = absl::StrCat(IsFatal(status) ? "fatal " : "", status.ToString());
  return text.substr(0, text.find('\n'));
}

}  // namespace

int CudaErrorMain() {
  auto bad_read = [] {
    at::Tensor rows = at::zeros({4, 4}, at::kCUDA);
    rows.index_select(0, at::full({1}, 1 << 20, at::TensorOptions(at::kCUDA).dtype(at::kLong)))
        .to(at::kCPU);
  };
  std::cout << Show(tensor::CatchTorch("first step", bad_read)) << std::endl;
  std::cout << Show(tensor::CatchTorch("next step", [] { at::zeros({4}, at::kCUDA).to(at::kCPU); }))
            << std::endl;
  return 0;
}

TEST(CudaErrorTest, IsNamedAndFatalForTheProcess) {
  TestProcess process("cuda-error", {"--cuda-error"});
  const std::string first = process.ReadLine();
  EXPECT_THAT(first, StartsWith("fatal UNAVAILABLE: first step: "));
  EXPECT_THAT(first, HasSubstr("CUDA error"));
  EXPECT_THAT(process.ReadLine(), StartsWith("fatal UNAVAILABLE: next step: "));
  EXPECT_TRUE(tensor::CatchTorch("here", [] { at::zeros({4}, at::kCUDA).to(at::kCPU); }).ok());
}

}  // namespace rein::gpu
