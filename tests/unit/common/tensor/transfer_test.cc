#include "common/tensor/transfer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace rein::tensor {
namespace {

TEST(TransferTest, NumbersComeInOrderAndThoseNotWantedStayOut) {
  const at::Tensor first = at::arange(5, at::kFloat).requires_grad_(true), third = at::arange(3, at::kDouble);
  ToHost copies({first, at::Tensor(), third});
  const std::vector<at::Tensor>& host = copies.Wait();
  ASSERT_EQ(host.size(), 3u);
  EXPECT_TRUE(at::equal(host[0], first.detach()));
  EXPECT_FALSE(host[0].requires_grad());
  EXPECT_FALSE(host[1].defined());
  EXPECT_TRUE(at::equal(host[2], third));
  EXPECT_TRUE(at::equal(ToDevice(third, at::kCPU), third));
}

TEST(TransferTest, WhatHasLeftMayMove) {
  ToHost copies({at::ones({2})});
  ToHost moved = std::move(copies);
  EXPECT_EQ(moved.Wait()[0].sum().item<float>(), 2);
}

}  // namespace
}  // namespace rein::tensor
