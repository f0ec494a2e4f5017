// rein-gpu-bench families

#include <ATen/DeviceAccelerator.h>

#include <algorithm>
#include <random>

#include "common/models/decoder_parameters.h"
#include "tests/bench/gpu_bench.h"

namespace rein::gpu {
namespace {

using nlohmann::json;

// FLOP of one trained token: its products with the matrices of the layers and the head, three times over, of experts as many as
// it passes; and causal attention, windows not counted.
double FlopPerToken(const models::DecoderSpec& spec, double length) {
  double products = spec.tied_head ? 1.0 * spec.vocab_size * spec.state_dim() : 0;
  for (const weights::ParameterSpec& p : models::DecoderParameters(spec)) {
    if (p.shape.size() != 2 || p.name == "embedding.weight" || p.name == "position_embedding.weight") continue;
    const bool expert = p.name.find(".experts.") != std::string::npos;
    const double share = expert ? 1.0 * spec.experts.routing.chosen / spec.experts.routing.experts : 1.0;
    products += share * static_cast<double>(p.shape[0]) * static_cast<double>(p.shape[1]);
  }
  double width = 2.0 * spec.head_dim;  // of a key and a value
  if (spec.latent.latent_dim > 0) width = spec.latent.plain_dim + spec.latent.rotary_dim + spec.latent.value_dim;
  double attention = 0;
  for (int64_t n = 0; n < spec.num_layers; ++n) attention += spec.layer(n).recurrent ? 0 : length * spec.num_heads * width;
  return 6 * products + 3 * attention;
}

// "mistral" of small-mistral, "deepseek-v2" of other-deepseek-v2.
std::string FamilyOf(const std::string& shape) { return shape.substr(shape.find('-') + 1); }

// Such a shape at the width of a 1B model: sixteen layers of 2048 (eight where there are experts), the family's own head
// dim, grouping and feed-forward width beside them. Windows grow to 1024.
ShapeOfModel Grown(ShapeOfModel shape) {
  const int64_t group = shape.heads / shape.kv_heads;
  shape.name = "1b-" + FamilyOf(shape.name);
  shape.ffn = 8 * (shape.ffn * 2048 / shape.width / 8);
  shape.expert_ffn = 8 * (shape.expert_ffn * 2048 / shape.width / 8);
  shape.width = 2048 / shape.head_dim * shape.head_dim;  // families without a head_dim of their own divide by heads
  shape.heads = shape.width / shape.head_dim;
  shape.kv_heads = shape.kv_heads == 1 ? 1 : std::max<int64_t>(1, shape.heads / group);
  shape.layers = shape.experts > 0 ? 8 : 16;
  if (!shape.keys.empty()) {
    json keys = json::parse(shape.keys);
    if (keys.contains("sliding_window")) keys["sliding_window"] = 1024;
    shape.keys = keys.dump();
  }
  return shape;
}

}  // namespace

void Families(const std::vector<std::string>& only) {
  constexpr int64_t kLength = 4096, kSequences = 8;
  constexpr int kUpdates = 3;
  std::vector<ShapeOfModel> shapes = {*FindShape("llama3.2-1b")};
  shapes[0].name = "1b-llama";
  shapes[0].vocabulary = 32000;
  for (const char* prefix : {"small-", "other-"}) {
    for (const std::string& name : ShapeNames(prefix)) {
      const bool wanted = only.empty() || std::find(only.begin(), only.end(), FamilyOf(name)) != only.end();
      if (wanted) shapes.push_back(Grown(*FindShape(name)));
    }
  }
  double of_llama = 0;
  for (const ShapeOfModel& shape : shapes) {
    at::accelerator::emptyCache();
    at::accelerator::resetPeakStats(0);
    RandomPolicy policy(WriteModelFolder(shape), SettingsFor(kLength), trainer::Sft(trainer::Aggregation::kTokenMean), false);
    std::mt19937 random(3);
    std::vector<trainer::TrainingSequence> batch;
    for (int64_t s = 0; s < kSequences; ++s) {
      trainer::TrainingSequence one{.id = std::to_string(s)};
      for (int64_t t = 0; t < kLength; ++t) one.token_ids.push_back(static_cast<int64_t>(random() % shape.vocabulary));
      one.loss_mask.assign(static_cast<size_t>(kLength), 1);
      one.loss_mask[0] = 0;
      batch.push_back(std::move(one));
    }
    json line = TimeUpdates(policy, batch, kUpdates);
    const double mfu = line["tokens_per_second"].get<double>() *
                       FlopPerToken(policy.trainer().model().spec, kLength) / 989.4e12;
    if (of_llama == 0) of_llama = mfu;
    line.update({{"bench", "families"}, {"family", shape.name}, {"mfu_of_989", mfu}, {"ratio_to_llama", mfu / of_llama}});
    Print(line);
  }
}

}  // namespace rein::gpu
