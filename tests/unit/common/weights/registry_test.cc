#include "common/weights/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/weights/digest.h"
#include "common/weights/weight_plan.h"

namespace rein::weights {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<ParameterSpec> Specs() {
  return {{"embedding", {10, 6}, {0, -1, -1}},
          {"layers.0.q", {8, 6}, {0, -1, 0}},
          {"layers.0.k", {4, 6}, {0, -1, 0}, true, true},
          {"layers.1.norm", {6}, {-1, -1, 1}, false}};
}

TEST(RegistryTest, AlignsUnlessToldToFollow) {
  Registry registry = *Registry::Create(Specs());
  EXPECT_EQ(registry.Find("layers.0.q")->offset, kAlignElements);
  EXPECT_EQ(registry.Find("layers.0.k")->offset, kAlignElements + 48);
  EXPECT_EQ(registry.Find("layers.1.norm")->offset, 2 * kAlignElements);
  EXPECT_EQ(registry.arena_elements(), 3 * kAlignElements);
  EXPECT_EQ(registry.parameter_count(), 60 + 48 + 24 + 6);
  EXPECT_EQ(registry.Find("head"), nullptr);
}

TEST(RegistryTest, DividesByTensorParallelRanks) {
  Registry registry = *Registry::Create(Specs(), {.tp = 2}, {.tp = 1});
  EXPECT_THAT(registry.Find("layers.0.q")->local_shape, ElementsAre(4, 6));
  EXPECT_THAT(registry.Find("layers.1.norm")->local_shape, ElementsAre(6));
  absl::Status status = Registry::Create(Specs(), {.tp = 4}).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("parameter embedding: dimension 0 of [10, 6] is not divisible by tp = 4"));
}

TEST(RegistryTest, PipelineStagesKeepTheirLayers) {
  Registry first = *Registry::Create(Specs(), {.pp = 2}, {.pp = 0}, 2);
  Registry second = *Registry::Create(Specs(), {.pp = 2}, {.pp = 1}, 2);
  EXPECT_NE(first.Find("layers.0.q"), nullptr);
  EXPECT_EQ(first.Find("layers.1.norm"), nullptr);
  EXPECT_EQ(second.Find("layers.0.q"), nullptr);
  EXPECT_NE(second.Find("embedding"), nullptr);
}

TEST(RegistryTest, OptimizerSlicesCoverTheArenaOnce) {
  Registry registry = *Registry::Create(Specs());
  for (int size : {1, 2, 3, 7}) {
    int64_t end = 0;
    for (int rank = 0; rank < size; ++rank) {
      Registry::Slice slice = registry.OptimizerSlice(rank, size);
      EXPECT_EQ(slice.begin, end);
      EXPECT_EQ(slice.begin % kAlignElements, 0);
      end = slice.end;
    }
    EXPECT_EQ(end, registry.arena_elements());
  }
}

TEST(RegistryTest, QuantisedParametersStandApart) {
  auto matrix = [](const char* name, int64_t rows, bool follows, Quantisation format) {
    return ParameterSpec{name, {rows, 32}, {}, true, follows, false, format};
  };
  for (Quantisation format : {Quantisation::kInt8, Quantisation::kNf4}) {
    const Registry r = *Registry::Create({ParameterSpec{"embedding", {10, 32}, {}, true, false, false},
                                          matrix("q", 6, false, format), matrix("k", 2, true, format), matrix("down", 4, false, format),
                                          ParameterSpec{"lora", {8}, {}, true, false, true}});
    EXPECT_EQ(r.Find("embedding")->offset, 0) << "the arenas hold the others alone";
    EXPECT_EQ(r.trained_begin(), 3 * kAlignElements);
    EXPECT_EQ(r.arena_elements(), 4 * kAlignElements);
    EXPECT_EQ(r.Find("k")->offset, 6 * 32);
    EXPECT_EQ(r.Find("down")->offset, 2 * kAlignElements);
    EXPECT_EQ(r.quantised_elements(), 3 * kAlignElements);
    EXPECT_EQ(r.largest_quantised(), 8 * 32) << "q and k are read as one matrix";
    const bool rows = format == Quantisation::kInt8;
    EXPECT_EQ(r.Find("k")->scale, rows ? 6 : 3);
    EXPECT_EQ(r.Find("down")->scale, rows ? 8 : 4);
    EXPECT_EQ(r.quantised_scales(), rows ? 12 : 6);
    EXPECT_EQ(r.quantised_bytes(), rows ? 384 + 48 : 192 + 24);
    for (const char* name : {"q", "down"}) EXPECT_FALSE(r.InTrainedPart(*r.Find(name)));
    EXPECT_EQ(PlanOf(r, "float32").parameters.size(), 1u);
    EXPECT_FALSE(r.trains_all());
  }
}

TEST(RegistryTest, WhatIsTrainedStandsAtTheEnd) {
  std::vector<ParameterSpec> specs = Specs();
  specs[0].trained = specs[2].trained = false;  // k follows q, which is trained
  Registry registry = *Registry::Create(specs);
  EXPECT_EQ(registry.Find("embedding")->offset, 0);
  EXPECT_EQ(registry.trained_begin(), kAlignElements);
  EXPECT_EQ(registry.trained_elements(), 2 * kAlignElements);
  EXPECT_EQ(registry.trained_count(), 48 + 6);
  EXPECT_FALSE(registry.InTrainedPart(*registry.Find("embedding")));
  EXPECT_TRUE(registry.InTrainedPart(*registry.Find("layers.0.k")));
  EXPECT_EQ(registry.Find("layers.0.k")->offset, registry.Find("layers.0.q")->offset + 48);
  EXPECT_EQ(registry.OptimizerSlice(0, 2).begin, registry.trained_begin());
  EXPECT_EQ(registry.OptimizerSlice(1, 2).end, registry.arena_elements());
  WeightPlan plan = PlanOf(registry, "float32");
  ASSERT_EQ(plan.parameters.size(), 3u);
  EXPECT_EQ(plan.parameters[0].name, "layers.0.q");
  EXPECT_EQ(plan.parameters[0].offset_bytes, 0u);
  EXPECT_EQ(plan.arena_bytes, 4u * 2 * kAlignElements);
  WeightPlan other = plan;
  other.frozen_digest = 7;
  EXPECT_THAT(std::string(CheckPlan(plan, other).message()), HasSubstr("load the same base model on both"));
}

TEST(RegistryTest, RefusesNonsense) {
  EXPECT_THAT(std::string(Registry::Create({{"a", {2}}, {"a", {2}}}).status().message()),
              HasSubstr("a is declared twice"));
  EXPECT_FALSE(Registry::Create({{"a", {}}}).ok());
  EXPECT_FALSE(Registry::Create({{"a", {int64_t{1} << 40, 1 << 20}}}).ok());
}

TEST(DigestTest, FindsAnyFlippedBitAndSwappedWords) {
  std::vector<unsigned char> bytes(37);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 37);
  const uint64_t digest = Digest(bytes.data(), bytes.size());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= 1 << (bit % 8);
    EXPECT_NE(Digest(bytes.data(), bytes.size()), digest) << bit;
    bytes[bit / 8] ^= 1 << (bit % 8);
  }
  std::swap_ranges(bytes.begin(), bytes.begin() + 8, bytes.begin() + 8);
  EXPECT_NE(Digest(bytes.data(), bytes.size()), digest);
  EXPECT_NE(Digest("\0", 1), Digest("\0\0", 2));
}

TEST(WeightPlanTest, ListsEveryDifference) {
  WeightPlan own = PlanOf(*Registry::Create(Specs()), "float32"), sent = own;
  EXPECT_TRUE(CheckPlan(sent, own).ok());
  sent.parameters[0].shape = {10, 7};
  sent.parameters[1].name = "layers.0.z";
  std::string message(CheckPlan(sent, own).message());
  EXPECT_THAT(message, HasSubstr("embedding: the sender has float32[10, 7] at 0"));
  EXPECT_THAT(message, HasSubstr("layers.0.z: only the sender has it"));
  EXPECT_THAT(message, HasSubstr("layers.0.q: only the receiver has it"));
  EXPECT_FALSE(CheckPlan(PlanOf(*Registry::Create(Specs()), "bfloat16"), own).ok());
}

}  // namespace
}  // namespace rein::weights
