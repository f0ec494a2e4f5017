#include "common/tensor/catch_torch.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "common/status/fatal.h"

namespace rein::tensor {
namespace {

const c10::SourceLocation kHere = {"test", __FILE__, __LINE__};

TEST(CatchTorchTest, SaysWhatFailedAndHowBadItIs) {
  EXPECT_TRUE(CatchTorch("step", [] {}).ok());
  absl::Status bug = CatchTorch("step", [] { throw c10::Error(kHere, "sizes differ"); });
  EXPECT_EQ(bug.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(bug.message().substr(0, 18), "step: sizes differ");
  EXPECT_FALSE(IsFatal(bug));
  absl::Status full = CatchTorch("step", [] { throw c10::OutOfMemoryError(kHere, "full"); });
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(IsFatal(full));
}

TEST(CatchTorchTest, AnErrorOfCudaIsFatalAndInvitesARetryElsewhere) {
  absl::Status lost = CatchTorch("generation step", [] {
    throw c10::AcceleratorError(kHere, 700, "CUDA error: an illegal memory access was encountered");
  });
  EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(lost.message().substr(0, 45), "generation step: CUDA error: an illegal memor");
  EXPECT_TRUE(IsFatal(lost));
}

}  // namespace
}  // namespace rein::tensor
