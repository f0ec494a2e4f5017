// GGUF files made by the `gguf` package (tests/golden/make_gguf_goldens.py) against the logits of `transformers`; what we write, read
// again; and files that lie.

#include "common/models/gguf_folder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/checkpoint/gguf.h"
#include "common/files/read_file.h"
#include "common/models/decoder.h"
#include "common/models/model_folder.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

at::Tensor LogitsOf(const std::string& folder, const std::vector<std::vector<int64_t>>& rows) {
  at::NoGradGuard no_grad;
  ModelDescription model = *DescribeModel(folder);
  auto registry = *weights::Registry::Create(DecoderParameters(model.spec));
  at::Tensor arena = at::zeros({registry.arena_elements()});
  absl::Status status = LoadWeights(folder, model, registry, arena);
  EXPECT_TRUE(status.ok()) << status;
  auto decoder = *Decoder::Create(model.spec, registry, arena);
  std::vector<int64_t> packed, lengths;
  for (const auto& row : rows) {
    packed.insert(packed.end(), row.begin(), row.end());
    lengths.push_back(static_cast<int64_t>(row.size()));
  }
  return decoder->Logits(decoder->Hidden(at::tensor(packed, at::kLong), nn::PackedSequences(lengths, at::kCPU)));
}

class GgufTest : public testing::Test {
 protected:
  GgufTest() : out_(testing::TempDir() + "/gguf_out") { fs::remove_all(out_); }
  ~GgufTest() override { fs::remove_all(out_); }
  const std::string out_;
};

TEST_F(GgufTest, ImportedFilesComputeWhatTransformersDoes) {
  const json golden = json::parse(std::ifstream("tests/golden/gguf/golden.json"));
  ASSERT_EQ(golden.size(), 5u);
  for (const auto& [name, wanted] : golden.items()) {
    auto made = ImportGguf("tests/golden/gguf/" + name + ".gguf", out_);
    ASSERT_TRUE(made.ok()) << name << ": " << made.status();
    EXPECT_EQ((*made)["tokenizer"], false);
    std::vector<double> logits;
    for (const auto& row : wanted["logits"]) {
      for (double x : row) logits.push_back(x);
    }
    at::Tensor own = LogitsOf(out_, wanted["tokens"]).view(-1);
    EXPECT_LE((own - at::tensor(logits, at::kFloat)).abs().max().item<double>(), 1e-4) << name;
    fs::remove_all(out_);
  }
}

TEST_F(GgufTest, AnExportReadAgainIsTheSameModel) {
  const std::vector<std::vector<int64_t>> rows = {{5, 9, 7, 8, 4, 30, 41}};
  for (const char* folder : {"llama_biased", "qwen2", "qwen3"}) {
    for (const char* dtype : {"f32", "bf16", "f16"}) {
      const std::string model = std::string("tests/golden/models/") + folder, file = out_ + ".gguf";
      fs::remove(file);
      auto written = ExportGguf(model, file, dtype, /*with_tokenizer=*/false);
      ASSERT_TRUE(written.ok()) << folder << ": " << written.status();
      auto read = ImportGguf(file, out_);
      ASSERT_TRUE(read.ok()) << folder << ": " << read.status();
      const double furthest = (LogitsOf(out_, rows) - LogitsOf(model, rows)).abs().max().item<double>();
      EXPECT_LE(furthest, std::string(dtype) == "f16" ? 1e-2 : 1e-6) << folder << " " << dtype;
      fs::remove_all(out_);
      fs::remove(file);
    }
  }
}

// Llama 3.1's scaling is a tensor of factors, whose settings are found again.
TEST_F(GgufTest, Llama3ScalingSurvives) {
  const std::string model = out_ + "_model", file = out_ + ".gguf";
  fs::remove_all(model);
  fs::copy("tests/golden/models/llama", model);
  json config = json::parse(std::ifstream(model + "/config.json"));
  config["rope_parameters"] = {{"rope_type", "llama3"}, {"rope_theta", 500000.0}, {"factor", 32.0}, {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  std::ofstream(model + "/config.json") << config;
  fs::remove(file);
  ASSERT_TRUE(ExportGguf(model, file, "f32", false).ok());
  ASSERT_TRUE(ImportGguf(file, out_).ok());
  const json again = json::parse(std::ifstream(out_ + "/config.json"));
  EXPECT_EQ(again["rope_scaling"]["factor"], 32.0);
  const std::vector<std::vector<int64_t>> rows = {{5, 9, 7, 8, 4, 30, 41}};
  EXPECT_LE((LogitsOf(out_, rows) - LogitsOf(model, rows)).abs().max().item<double>(), 1e-6);
  // Settings that no published model has cannot be told from the factors.
  fs::remove_all(out_);
  fs::remove(file);
  ASSERT_TRUE(ExportGguf("tests/golden/models/llama", file, "f32", false).ok());
  EXPECT_THAT(std::string(ImportGguf(file, out_).status().message()), HasSubstr("rope_freqs.weight are not those of Llama 3.1"));
  fs::remove(file);
  fs::remove_all(model);
}

TEST_F(GgufTest, ATokenizerGoesAlong) {
  const std::string model = out_ + "_model", file = out_ + ".gguf";
  fs::remove_all(model);
  fs::remove(file);
  fs::copy("tests/golden/models/qwen2", model);
  json tokenizer = {{"added_tokens", {{{"id", 58}, {"content", "<|end|>"}, {"special", true}}, {{"id", 59}, {"content", "<tool>"}, {"special", false}}}},
                    {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}},
                                                                                {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}}},
                    {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", json::array({json::array({"a", "b"})})}}}};
  std::ofstream(model + "/tokenizer.json") << tokenizer;
  std::ofstream(model + "/chat_template.jinja") << "{{ messages }}";
  auto written = ExportGguf(model, file, "f16", true);
  ASSERT_TRUE(written.ok()) << written.status();
  auto gguf = *checkpoint::GgufFile::Open(file);
  EXPECT_EQ(std::get<std::string>(*gguf->Metadata("tokenizer.ggml.pre")), "smollm");
  const auto& tokens = std::get<std::vector<std::string>>(*gguf->Metadata("tokenizer.ggml.tokens"));
  ASSERT_EQ(tokens.size(), 61u);
  EXPECT_EQ(tokens[2], "ab");
  EXPECT_EQ(tokens[3], "[PAD3]");
  EXPECT_EQ(std::get<std::vector<int64_t>>(*gguf->Metadata("tokenizer.ggml.token_type"))[58], 3);
  auto read = ImportGguf(file, out_);
  ASSERT_TRUE(read.ok()) << read.status();
  json again = json::parse(std::ifstream(out_ + "/tokenizer.json"));
  EXPECT_EQ(again["model"]["vocab"], tokenizer["model"]["vocab"]);
  EXPECT_EQ(again["model"]["merges"], tokenizer["model"]["merges"]);
  EXPECT_EQ(again["added_tokens"].size(), 2u);
  EXPECT_EQ(json::parse(std::ifstream(out_ + "/tokenizer_config.json"))["chat_template"], "{{ messages }}");
  tokenizer["pre_tokenizer"] = {{"type", "Whitespace"}};
  std::ofstream(model + "/tokenizer.json") << tokenizer;
  EXPECT_THAT(std::string(ExportGguf(model, file + "2", "f16", true).status().message()), HasSubstr("--no-tokenizer leaves the vocabulary out"));
  fs::remove_all(model);
  fs::remove(file);
}

TEST_F(GgufTest, FilesThatLieAreRefused) {
  const std::string good = *files::ReadFile("tests/golden/gguf/qwen2_q4_0.gguf", 1 << 20), file = testing::TempDir() + "/bad.gguf";
  auto error = [&](const std::string& bytes) {
    std::ofstream(file, std::ios::binary) << bytes;
    return std::string(ImportGguf(file, out_).status().message());
  };
  EXPECT_THAT(error("GGML"), HasSubstr("is no GGUF file"));
  std::string version = good;
  version[4] = 9;
  EXPECT_THAT(error(version), HasSubstr("is GGUF version 9, want 2 or 3"));
  std::string counts = good;
  counts[14] = '\x7f';
  EXPECT_THAT(error(counts), HasSubstr("claims"));
  for (size_t size = 0; size < good.size(); size += 97) EXPECT_NE(error(good.substr(0, size)), "") << size;
  std::string other = good;
  const size_t at = other.find("qwen2");
  other.replace(at, 5, "gpt99");
  EXPECT_THAT(error(other), HasSubstr("general.architecture is 'gpt99', want llama, qwen2 or qwen3"));
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_THAT(std::string(ExportGguf("tests/golden/models/gpt2", file + "x", "f16", false).status().message()), HasSubstr("want a LlamaForCausalLM"));
  fs::remove(file);
}

}  // namespace
}  // namespace rein::models
