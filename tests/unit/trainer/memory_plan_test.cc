#include "trainer/memory_plan.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::trainer {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kGib = int64_t{1} << 30;

// Qwen3-8B's shape.
std::string Folder() {
  const std::string folder = testing::TempDir() + "/qwen3_8b";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/config.json") << R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000, "tie_word_embeddings": false, "hidden_act": "silu",
    "attention_bias": false, "torch_dtype": "bfloat16"})";
  return folder;
}

class MemoryPlanTest : public testing::Test {
 protected:
  MemoryPlanTest() {
    settings_.dtype = "bfloat16";
    settings_.device = "cuda:0";
    settings_.max_length = model_.spec.max_positions;
  }
  MemoryPlan Plan() { return PlanMemory(model_, registry_, settings_, algorithm_, ranks_); }
  std::string Refusal(int64_t free_bytes) {
    absl::Status status = CheckPlan(model_, registry_, settings_, algorithm_, ranks_, free_bytes);
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    return std::string(status.message());
  }
  static int64_t Of(const MemoryPlan& plan, const std::string& name) {
    for (const PlannedPart& part : plan.parts) {
      if (part.name == name) return part.bytes;
    }
    return 0;
  }

  models::ModelDescription model_ = *models::DescribeModel(Folder());
  weights::Registry registry_ = *weights::Registry::Create(models::DecoderParameters(model_.spec));
  TrainerSettings settings_;
  Algorithm algorithm_ = Sft(Aggregation::kTokenMean);
  int ranks_ = 1;
};

TEST_F(MemoryPlanTest, CountsWhatIsKept) {
  const int64_t parameters = registry_.arena_elements();
  EXPECT_NEAR(static_cast<double>(parameters), 8.19e9, 0.02e9);
  const MemoryPlan plan = Plan();
  EXPECT_EQ(Of(plan, "weights"), 2 * parameters);
  EXPECT_EQ(Of(plan, "gradients"), 4 * parameters);
  EXPECT_EQ(Of(plan, "optimizer"), 12 * parameters);
  EXPECT_EQ(plan.total() - plan.coming(), 18 * parameters);
  EXPECT_GT(Of(plan, "activations"), 10 * kGib);
  EXPECT_THAT(PlanText(plan), HasSubstr("GiB: weights 15.3, gradients 30.5, optimizer 91.5"));
}

TEST_F(MemoryPlanTest, EachSettingChangesItsPart) {
  const MemoryPlan plain = Plan();
  ranks_ = 4;
  EXPECT_EQ(Of(Plan(), "optimizer"), Of(plain, "optimizer") / 4);
  ranks_ = 1;
  settings_.optimizer.narrow_moments = true;
  EXPECT_EQ(Of(Plan(), "optimizer"), Of(plain, "optimizer") * 2 / 3);
  settings_.optimizer.narrow_moments = false;
  settings_.optimizer.offload = 0.75;
  EXPECT_EQ(Of(Plan(), "optimizer"), Of(plain, "optimizer") / 4);
  EXPECT_EQ(Plan().host, Of(plain, "optimizer") * 3 / 4);
  settings_.optimizer.offload = 0;
  settings_.recompute = true;
  EXPECT_LT(Of(Plan(), "activations"), Of(plain, "activations") / 4);
  settings_.recompute = false;
  algorithm_.minibatches = 2;
  EXPECT_EQ(Of(Plan(), "undo"), 14 * registry_.arena_elements()) << "several steps are undone together";
  algorithm_.minibatches = 1;
  algorithm_.frozen_reference = true;
  EXPECT_EQ(Of(Plan(), "reference"), 2 * registry_.arena_elements());
}

TEST_F(MemoryPlanTest, AQuantisedBaseTakesAByteOrHalfAOne) {
  auto weights_of = [&](weights::Quantisation base) {
    model_ = *models::DescribeTrained(Folder(), {.lora = models::LoraChoice{.rank = 16}, .base = base});
    registry_ = *weights::Registry::Create(models::DecoderParameters(model_.spec));
    return static_cast<double>(Of(Plan(), "weights"));
  };
  // 6.95e9 numbers in matrices of blocks; embedding and head, 0.62e9 each, stay in bf16.
  const double whole = weights_of(weights::Quantisation::kNone);
  EXPECT_EQ(Of(Plan(), "unpacked"), 0);
  EXPECT_NEAR(weights_of(weights::Quantisation::kInt8), whole - 6.95e9, 0.02e9);
  EXPECT_NEAR(weights_of(weights::Quantisation::kNf4), whole - (1.5 - 1.0 / 16) * 6.95e9, 0.02e9);
  EXPECT_EQ(Of(Plan(), "unpacked"), 2 * 2 * 12288 * 4096) << "gate and up, in bf16";
}

TEST_F(MemoryPlanTest, ACriticWithAdaptersTrainsThemAlone) {
  algorithm_.critic = CriticSettings{};
  const int64_t whole = Of(Plan(), "critic");
  EXPECT_EQ(whole, 18 * registry_.arena_elements());
  settings_.critic_trained = {.lora = models::LoraChoice{.rank = 16}};
  // Without the head: 7.57e9 numbers in bf16, and 44e6 of updates with gradients, master weights and moments.
  EXPECT_NEAR(static_cast<double>(Of(Plan(), "critic")), 2 * 7.57e9 + 18 * 44e6, 0.05e9);
  settings_.critic_trained.base = weights::Quantisation::kNf4;
  EXPECT_NEAR(static_cast<double>(Of(Plan(), "critic")), 2 * 0.62e9 + (0.5 + 1.0 / 16) * 6.95e9 + 18 * 44e6, 0.05e9);
}

TEST_F(MemoryPlanTest, ARefusalNamesTheSmallestChangeThatFits) {
  const int64_t needed = Plan().total();
  EXPECT_TRUE(CheckPlan(model_, registry_, settings_, algorithm_, ranks_, needed).ok());
  EXPECT_THAT(Refusal(needed - kGib), HasSubstr("it fits with trainer.microbatch_tokens: 4096"));
  EXPECT_THAT(Refusal(139 * kGib), HasSubstr("free on the device are 139.0 GiB"));
  EXPECT_THAT(Refusal(139 * kGib), HasSubstr("it fits with trainer.recompute: true and trainer.microbatch_tokens: 1024"));
  EXPECT_THAT(Refusal(100 * kGib), HasSubstr("it fits with trainer.offload: 0."));
  EXPECT_THAT(Refusal(60 * kGib), HasSubstr("it fits with trainer: {recompute: true, microbatch_tokens: "));
  EXPECT_THAT(Refusal(40 * kGib), HasSubstr("no setting of the trainer makes it fit: take low-rank updates"));
  settings_.dtype = "float32";
  EXPECT_THAT(Refusal(100 * kGib), Not(HasSubstr("offload"))) << "fp32 weights are their own master copy";
}

TEST_F(MemoryPlanTest, OffloadsAsMuchAsIsNeeded) {
  const double share = NeededOffload(model_, registry_, settings_, algorithm_, ranks_, 120 * kGib);
  EXPECT_GT(share, 0);
  EXPECT_LT(share, 1);
  settings_.optimizer.offload = share;
  EXPECT_LE(Plan().total(), 120 * kGib);
  settings_.optimizer.offload = share - 0.05;
  EXPECT_GT(Plan().total(), 120 * kGib);
}

}  // namespace
}  // namespace rein::trainer
