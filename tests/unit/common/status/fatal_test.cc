#include "common/status/fatal.h"

#include <gtest/gtest.h>

#include "common/status/status_macros.h"

namespace rein {
namespace {

TEST(FatalTest, MarksErrorsOnlyAndKeepsWhatTheySay) {
  absl::Status status = Fatal(absl::UnavailableError("the GPU is gone"));
  EXPECT_TRUE(IsFatal(status));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "the GPU is gone");
  EXPECT_TRUE(Fatal(absl::OkStatus()).ok());
  EXPECT_FALSE(IsFatal(absl::OkStatus()));
  EXPECT_FALSE(IsFatal(absl::UnavailableError("the GPU is gone")));
  auto pass = [&]() -> absl::Status {
    REIN_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  };
  EXPECT_TRUE(IsFatal(pass()));
}

}  // namespace
}  // namespace rein
