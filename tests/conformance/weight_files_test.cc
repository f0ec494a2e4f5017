// What checkpoints may look like: layouts, prefixes, quantised tensors, and what is said of those that do not fit.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint/safetensors.h"
#include "common/models/folder_report.h"
#include "common/models/model_folder.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using Tensors = std::map<std::string, at::Tensor>;

at::ScalarType TypeOf(const std::string& dtype) {
  return dtype == "F32" ? at::kFloat : dtype == "U8" ? at::kByte : dtype == "F8_E4M3" ? at::kFloat8_e4m3fn : at::kBFloat16;
}

const char* NameOf(at::ScalarType type) {
  return type == at::kFloat ? "F32" : type == at::kByte ? "U8" : type == at::kFloat8_e4m3fn ? "F8_E4M3" : "BF16";
}

Tensors Read(const std::string& folder) {
  Tensors tensors;
  auto file = *checkpoint::SafetensorsFile::Open(folder + "/model.safetensors");
  for (const auto& [name, view] : file->tensors()) {
    tensors[name] = at::from_blob(const_cast<char*>(view.data), view.shape, TypeOf(view.dtype)).clone();
  }
  return tensors;
}

// A copy of a golden's folder whose tensors `change` has changed.
std::string Changed(const std::string& golden, const std::string& name, const std::function<void(Tensors&)>& change) {
  const std::string folder = testing::TempDir() + "/" + name;
  fs::create_directories(folder);
  fs::copy("tests/golden/models/" + golden + "/config.json", folder, fs::copy_options::overwrite_existing);
  Tensors tensors = Read("tests/golden/models/" + golden);
  change(tensors);
  std::vector<checkpoint::NamedTensor> out;
  for (auto& [tensor, data] : tensors) {
    data = data.contiguous();
    out.push_back({tensor, {NameOf(data.scalar_type()), data.sizes().vec(), static_cast<const char*>(data.const_data_ptr()),
                            static_cast<size_t>(data.numel() * data.element_size())}});
  }
  EXPECT_TRUE(checkpoint::WriteSafetensors(folder + "/model.safetensors", out).ok());
  return folder;
}

struct Weights {
  explicit Weights(const std::string& folder)
      : model(*DescribeModel(folder)), registry(*weights::Registry::Create(DecoderParameters(model.spec))),
        arena(at::zeros({registry.arena_elements()})), status(LoadWeights(folder, model, registry, arena)) {}

  at::Tensor Get(const std::string& name) const {
    const weights::Parameter* p = registry.Find(name);
    return arena.narrow(0, p->offset, p->elements).view(p->spec.shape);
  }

  ModelDescription model;
  weights::Registry registry;
  at::Tensor arena;
  absl::Status status;
};

TEST(WeightFilesTest, FilesOfTheBodyAloneAreRead) {
  for (const auto& [golden, prefix] : {std::pair<std::string, std::string>{"gpt2", "transformer."}, {"bloom", "transformer."}, {"opt", "model."}}) {
    const std::string folder = Changed(golden, "body_" + golden, [prefix = prefix](Tensors& tensors) {
      Tensors bare;
      for (const auto& [name, data] : tensors) {
        EXPECT_TRUE(absl::StartsWith(name, prefix)) << name;
        bare[name.substr(prefix.size())] = data;
      }
      tensors = bare;
      if (prefix == "transformer." && tensors.count("wte.weight") > 0) {
        tensors["h.0.attn.bias"] = at::ones({1, 1, 4, 4}, at::kBFloat16);  // a mask
      }
    });
    Weights bare(folder);
    ASSERT_TRUE(bare.status.ok()) << bare.status;
    EXPECT_TRUE(at::equal(bare.arena, Weights("tests/golden/models/" + golden).arena)) << golden;
    fs::remove_all(folder);
  }
}

TEST(WeightFilesTest, ExpertsInOneTensorAreRead) {
  const std::string folder = Changed("qwen3_moe", "fused_experts", [](Tensors& tensors) {
    const std::string at = "model.layers.1.mlp.experts.";
    std::vector<at::Tensor> gate_up, down;
    for (int e = 0; tensors.count(absl::StrCat(at, e, ".gate_proj.weight")) > 0; ++e) {
      auto take = [&](const char* part) {
        auto node = tensors.extract(absl::StrCat(at, e, ".", part, "_proj.weight"));
        return node.mapped();
      };
      at::Tensor gate = take("gate"), up = take("up");
      gate_up.push_back(at::cat({gate, up}));
      down.push_back(take("down"));
    }
    ASSERT_EQ(down.size(), 6u);
    tensors[at + "gate_up_proj"] = at::stack(gate_up);
    tensors[at + "down_proj"] = at::stack(down);
  });
  Weights fused(folder);
  ASSERT_TRUE(fused.status.ok()) << fused.status;
  EXPECT_TRUE(at::equal(fused.arena, Weights("tests/golden/models/qwen3_moe").arena));
  fs::remove_all(folder);
}

TEST(WeightFilesTest, LayersOfMultiTokenPredictionAreSkipped) {
  const std::string folder = Changed("deepseek_v3", "mtp", [](Tensors& tensors) {
    tensors["model.layers.2.eh_proj.weight"] = at::ones({32, 64}, at::kBFloat16);
    tensors["model.layers.2.mlp.gate.weight"] = at::ones({8, 32}, at::kBFloat16);
  });
  EXPECT_TRUE(Weights(folder).status.ok()) << Weights(folder).status;
  fs::remove_all(folder);
}

TEST(WeightFilesTest, Fp8BlocksAreDequantised) {
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  at::Tensor wide = at::randn({32, 40}), scale = at::full({1, 1}, 0.37f);
  at::Tensor narrow = wide.to(at::kFloat8_e4m3fn);
  const std::string folder = Changed("llama", "fp8", [&](Tensors& tensors) {
    tensors[name] = narrow;
    tensors[name + "_scale_inv"] = scale;
  });
  Weights loaded(folder);
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  EXPECT_TRUE(at::equal(loaded.Get("layers.0.mlp.down.weight"), narrow.to(at::kFloat) * 0.37f));
  fs::remove_all(folder);
  const std::string bare = Changed("llama", "fp8_bare", [&](Tensors& tensors) { tensors[name] = narrow; });
  EXPECT_THAT(std::string(Weights(bare).status.message()),
              HasSubstr(name + " is F8_E4M3[32, 40], want " + name + "_scale_inv [1, 1] with it"));
  fs::remove_all(bare);
}

TEST(WeightFilesTest, Mxfp4ExpertsAreDequantised) {
  const std::string name = "model.layers.0.mlp.experts.gate_up_proj";  // [E, D, 2I], gate and up in turns
  at::Tensor blocks = at::randint(256, {4, 24, 1, 16}, at::kByte), scales = at::randint(120, 134, {4, 24, 1}, at::kByte);
  const std::string folder = Changed("gpt_oss", "mxfp4", [&](Tensors& tensors) {
    tensors.erase(name);
    tensors[name + "_blocks"] = blocks;
    tensors[name + "_scales"] = scales;
  });
  Weights loaded(folder);
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  const float values[] = {0, .5, 1, 1.5, 2, 3, 4, 6};
  for (int64_t e : {0, 3}) {
    for (int64_t i : {0, 7}) {
      for (int64_t d : {0, 1, 17, 31}) {
        const int byte = blocks[e][2 * i + 1][0][d / 2].item<int>(), code = d % 2 == 0 ? byte & 15 : byte >> 4;
        const float wanted = std::ldexp(values[code & 7], scales[e][2 * i + 1][0].item<int>() - 127) * (code > 7 ? -1 : 1);
        EXPECT_EQ(loaded.Get(absl::StrCat("layers.0.experts.", e, ".up.weight"))[i][d].item<float>(), wanted);
      }
    }
  }
  fs::remove_all(folder);
  const std::string odd = Changed("gpt_oss", "mxfp4_odd", [&](Tensors& tensors) {
    tensors.erase(name);
    tensors[name + "_blocks"] = blocks.narrow(1, 0, 12);
    tensors[name + "_scales"] = scales;
  });
  EXPECT_THAT(std::string(Weights(odd).status.message()),
              HasSubstr("gate_up_proj_blocks is U8[4, 12, 1, 16], want U8 [4, 24, 1, 16] and scales of it"));
  fs::remove_all(odd);
}

TEST(WeightFilesTest, EveryMisfitIsListed) {
  const std::string out = testing::TempDir() + "/misfit";
  const std::string folder = "tests/golden/models/llama";
  fs::create_directories(out);
  fs::copy(folder + "/model.safetensors", out, fs::copy_options::overwrite_existing);
  json config = json::parse(std::ifstream(folder + "/config.json"));
  config["num_hidden_layers"] = 1;
  config["intermediate_size"] = 41;
  std::ofstream(out + "/config.json") << config;
  ModelDescription description = *DescribeModel(out);
  auto registry = *weights::Registry::Create(DecoderParameters(description.spec));
  std::string message(
      LoadWeights(out, description, registry, at::zeros({registry.arena_elements()})).message());
  EXPECT_THAT(message, HasSubstr("model.layers.0.mlp.up_proj.weight is BF16[40, 32], want F32, BF16 or "
                                 "F16 [41, 32]"));
  EXPECT_THAT(message, HasSubstr("model.layers.1.mlp.up_proj.weight is unknown to"));
  fs::remove_all(out);
}

TEST(WeightFilesTest, PicklesAreRefusedWithTheCommandThatConvertsThem) {
  const std::string folder = testing::TempDir() + "/pickles";
  fs::create_directories(folder);
  std::ofstream(folder + "/pytorch_model.bin") << "x";
  fs::copy("tests/golden/models/llama/config.json", folder, fs::copy_options::overwrite_existing);
  ModelDescription description = *DescribeModel(folder);
  auto registry = *weights::Registry::Create(DecoderParameters(description.spec));
  absl::Status status = LoadWeights(folder, description, registry, at::zeros({registry.arena_elements()}));
  EXPECT_THAT(std::string(status.message()), HasSubstr("pickles only (pytorch_model.bin)"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("weights_only=True"));
  fs::remove_all(folder);
}

TEST(FolderReportTest, InspectCountsWhatATokenMeets) {
  auto report = *InspectFolder("tests/golden/models/qwen3_moe");
  EXPECT_EQ(report["architecture"], "Qwen3MoeForCausalLM");
  EXPECT_EQ(report["structure"]["sparse_layers"], 1);
  const int64_t all = report["parameters"]["all"], experts = report["parameters"]["experts"];
  EXPECT_EQ(all, Weights("tests/golden/models/qwen3_moe").registry.parameter_count());
  EXPECT_EQ(experts, 6 * 3 * 12 * 32);
  EXPECT_EQ(report["parameters"]["of_a_token"], all - experts / 2);  // 3 of 6
  EXPECT_EQ(report["bytes"]["kv_of_a_token_bf16"], 2 * 2 * 2 * 12 * 2);  // layers, k and v, heads, dims, bytes
  EXPECT_EQ(report["files"].size(), 1u);
  EXPECT_EQ((*InspectFolder("tests/golden/models/deepseek_v2"))["bytes"]["kv_of_a_token_bf16"], 2 * (16 + 4) * 2);
  EXPECT_FALSE(InspectFolder("tests/golden/models/qwen3_moe/config.json")->contains("files"));
  EXPECT_EQ(ListFamilies().size(), AllFamilies().size());
}

TEST(FolderReportTest, VerifyNamesWhatIsNotFinite) {
  auto good = *VerifyFolder("tests/golden/models/qwen3");
  EXPECT_EQ(good, *VerifyFolder("tests/golden/models/qwen3"));
  EXPECT_NE(good["digest"], (*VerifyFolder("tests/golden/models/qwen2"))["digest"]);
  const std::string folder = Changed("qwen3", "not_finite", [](Tensors& tensors) {
    tensors["model.norm.weight"][3] = INFINITY;
    tensors["model.norm.weight"][5] = NAN;
  });
  EXPECT_THAT(std::string(VerifyFolder(folder).status().message()),
              HasSubstr("model.norm.weight has 2 of 32 numbers that are not finite"));
  fs::remove_all(folder);
  const std::string lacking = Changed("qwen3", "lacking", [](Tensors& tensors) { tensors.erase("model.norm.weight"); });
  EXPECT_THAT(std::string(VerifyFolder(lacking).status().message()), HasSubstr("model.norm.weight is missing"));
  fs::remove_all(lacking);
}

TEST(FolderReportTest, DiffSaysWhichTensorsAndByHowMuch) {
  const std::string first = "tests/golden/models/qwen3";
  const std::string second = Changed("qwen3", "other", [](Tensors& tensors) {
    tensors["model.norm.weight"].mul_(1.5);
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(at::kFloat);
    tensors["extra"] = at::ones({2});
    tensors.erase("model.layers.0.mlp.up_proj.weight");
  });
  auto diff = *DiffFolders(first, second);
  EXPECT_EQ(diff["only_in_first"], json({"model.layers.0.mlp.up_proj.weight"}));
  EXPECT_EQ(diff["only_in_second"], json({"extra"}));
  ASSERT_EQ(diff["different"].size(), 2u);
  EXPECT_EQ(diff["different"][0]["first"], "BF16[61, 32]");
  EXPECT_EQ(diff["different"][0]["second"], "F32[61, 32]");
  EXPECT_EQ(diff["different"][1]["tensor"], "model.norm.weight");
  EXPECT_NEAR(diff["different"][1]["relative"].get<double>(), 0.5, 0.01);
  EXPECT_TRUE((*DiffFolders(first, first))["different"].empty());
  fs::remove_all(second);
}

}  // namespace
}  // namespace rein::models
