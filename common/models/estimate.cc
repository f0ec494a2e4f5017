#include "common/models/estimate.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/kernels/attention_backward.h"
#include "common/kernels/attention_gradient_hopper.h"
#include "common/models/kv_size.h"
#include "common/status/status_macros.h"

namespace rein::models {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kBf16 = 2, kFp32 = 4;

// Fitted to RESULTS.md. What one kind of work costs takes what stands beside it along: launches, small kernels.
constexpr double kProductFlops = 780e12;     // products of training
constexpr double kAttentionFlops = 450e12;   // attention of training, causal
constexpr double kActivationBytes = 0.43e12;  // bytes of activations that one pass keeps, per second
constexpr double kLayerSeconds = 29e-6;      // of a decode step, whatever it holds
constexpr double kDrawSeconds = 0.46e-6;     // for each sequence of a decode step, of 151,936 tokens
struct GpuFigures {
  const char* name;
  int64_t bytes;              // that a process can use
  double weight_bytes, kv_bytes;  // read per second by a decode step
};
constexpr int64_t kGiB = int64_t{1} << 30;
constexpr GpuFigures kH100{"H100 80 GB", 78 * kGiB, 2.8e12, 2.3e12};
constexpr GpuFigures kH200{"H200 141 GB", 139 * kGiB, 3.8e12, 2.9e12};
constexpr double kUsable = 0.92;  // of a GPU's memory: what the allocator and cuBLAS leave

const GpuFigures& FiguresOf(Gpu gpu) { return gpu == Gpu::kH100 ? kH100 : kH200; }

// Numbers in matrices that every token is multiplied with; of experts, those that it meets.
double Products(const DecoderSpec& spec, const weights::Registry& registry) {
  const nn::RoutingRule& routing = spec.experts.routing;
  double products = spec.tied_head ? static_cast<double>(spec.vocab_size * spec.state_dim()) : 0;
  for (const weights::Parameter& p : registry.parameters()) {
    const std::string& name = p.spec.name;
    if (p.spec.shape.size() != 2 || absl::StrContains(name, "embedding.weight")) continue;
    const bool expert = absl::StrContains(name, ".experts.");
    products += static_cast<double>(p.elements) *
                (expert ? static_cast<double>(routing.chosen) / static_cast<double>(routing.experts) : 1);
  }
  return products;
}

int64_t AttentionWidth(const DecoderSpec& s) {
  return s.latent.latent_dim > 0 ? s.num_heads * (s.latent.plain_dim + s.latent.rotary_dim) : s.num_heads * s.head_dim;
}

// That a layer keeps of a token for the backward pass: residuals and norms, q, k and v before and after the turn, what
// attention gives, both halves of the feed-forward layer and their product.
int64_t LayerBytes(const DecoderSpec& s, int64_t layer) {
  const int64_t q = AttentionWidth(s), kv = s.latent.latent_dim > 0 ? q : s.num_kv_heads * s.head_dim;
  const int64_t width = s.layer(layer).sparse ? s.experts.ffn_dim * s.experts.routing.chosen + s.experts.shared_ffn_dim : s.ffn_dim;
  return kBf16 * (4 * s.model_dim + (q + 2 * kv) + (q + kv) + q + (s.gated ? 3 : 2) * width);
}

int64_t KeptBytes(const DecoderSpec& s) {
  int64_t bytes = 0;
  for (int64_t n = 0; n < s.num_layers + s.mtp_layers; ++n) bytes += LayerBytes(s, n);
  return bytes;
}

// What attention's backward takes: by our own kernels the gradients of scores; by cuDNN's dQ in fp32 for each 256 keys of the
// longest sequence, dK and dV for each query head.
int64_t AttentionBytes(const DecoderSpec& s, int64_t tokens, int64_t longest) {
  const kernels::ScoreGradients scores(tokens, tokens / longest, longest, longest, true, s.num_heads / s.num_kv_heads, s.num_kv_heads);
  if (kernels::HopperBackwardTakes(s.head_dim, s.head_dim) && scores.fit()) return scores.bytes();
  constexpr int64_t kKeys = 256;
  return kernels::PlannedTokens(tokens) * s.num_heads * s.head_dim * (kFp32 * kernels::PlannedLength(longest) / kKeys + 8);
}

int64_t KvBytes(const DecoderSpec& s, int64_t tokens) {
  constexpr int64_t kPage = 16;
  return KvBytesPerPage(s, kPage, kBf16) * ((tokens + kPage - 1) / kPage);
}

ordered_json Placement(const GpuFigures& gpu, int gpus, const std::string& layout, int64_t most) {
  return {{"gpu", gpu.name}, {"gpus", gpus}, {"layout", layout}, {"bytes_of_the_fullest", most},
          {"usable_bytes", static_cast<int64_t>(kUsable * static_cast<double>(gpu.bytes))},
          {"fits", static_cast<double>(most) <= kUsable * static_cast<double>(gpu.bytes)}};
}

}  // namespace

bool IsCalibrated(const DecoderSpec& s) {
  return s.experts.routing.experts == 0 && s.latent.latent_dim == 0 && !s.recurrent() && s.alibi == Alibi::kNone &&
         s.norm == nn::NormKind::kRms && s.gated && s.score_softcap == 0 && !s.rope_interleaved;
}

TrainingEstimate EstimateTraining(const ModelDescription& model, const weights::Registry& registry,
                                  const EstimateChoice& choice) {
  const DecoderSpec& s = model.spec;
  const int64_t trained = registry.trained_elements(), tokens = std::max(choice.microbatch_tokens, choice.length);
  TrainingEstimate e;
  e.weights = choice.compute_bytes * registry.arena_elements() + registry.quantised_bytes();
  e.unpacked = choice.compute_bytes * registry.largest_quantised();
  e.gradients = kFp32 * trained;
  // Two moments, and master weights beside narrower ones.
  e.optimizer = (2 * choice.moment_bytes + (choice.compute_bytes < kFp32 ? kFp32 : 0)) * trained;
  if (choice.job == "dpo") e.reference = choice.compute_bytes * trained;
  const int64_t deepest = s.num_layers > 0 ? LayerBytes(s, s.num_layers - 1) : 0;
  e.activations = tokens * (choice.recompute ? 2 * kBf16 * s.model_dim * s.num_layers + deepest : KeptBytes(s)) *
                  choice.compute_bytes / kBf16;
  constexpr int64_t kMostLogits = int64_t{5} << 30;  // beyond, they are computed in parts
  e.logits = s.scalar_head ? 0 : (1 + s.mtp_layers) * std::min(kMostLogits, kBf16 * tokens * s.vocab_size);
  constexpr int64_t kUsualLength = 4096;  // where none is said
  const int64_t longest = std::min(tokens, choice.length > 0 ? choice.length : kUsualLength);
  if (IsCalibrated(s) && choice.compute_bytes == kBf16) e.attention = AttentionBytes(s, tokens, longest);
  return e;
}

double TrainingTokensPerSecond(const DecoderSpec& spec, const weights::Registry& registry, int64_t length, bool recompute) {
  const double again = recompute ? 4.0 / 3 : 1;
  double keys = 0;  // that a token attends to, summed over layers
  for (int64_t n = 0; n < spec.num_layers; ++n) {
    const LayerSpec layer = spec.layer(n);
    if (!layer.recurrent) keys += static_cast<double>(layer.window > 0 ? std::min(layer.window, length / 2) : length / 2);
  }
  const int64_t quantised = registry.quantised_elements();
  const double frozen = static_cast<double>(registry.trained_begin() + quantised) / static_cast<double>(registry.arena_elements() + quantised);
  const double products = (6 - 2 * frozen) * Products(spec, registry);  // no gradients of frozen weights
  const double attention = 12 * static_cast<double>(AttentionWidth(spec)) * keys;
  const double seconds = products / kProductFlops + attention / kAttentionFlops +
                         static_cast<double>(KeptBytes(spec)) / kActivationBytes;
  return 1 / (again * seconds);
}

double GeneratedTokensPerSecond(const DecoderSpec& spec, const weights::Registry& registry, Gpu gpu, int64_t sequences,
                                int64_t context, int64_t shared, int64_t siblings) {
  const GpuFigures& figures = FiguresOf(gpu);
  const auto n = static_cast<double>(sequences);
  const nn::RoutingRule& routing = spec.experts.routing;
  double weights = 0;  // bytes that a step reads; quantised ones are unpacked first: written, and read again
  const auto code_bytes = static_cast<double>(weights::CodeBytes(registry.quantisation(), 1 << 20)) / (1 << 20);
  for (const weights::Parameter& p : registry.parameters()) {
    if (absl::StrContains(p.spec.name, "embedding.weight") && !spec.tied_head) continue;
    const bool expert = absl::StrContains(p.spec.name, ".experts.");
    const double share = expert ? std::min(1.0, n * static_cast<double>(routing.chosen) / static_cast<double>(routing.experts)) : 1;
    const bool quantised = p.spec.quantisation != weights::Quantisation::kNone;
    weights += (kBf16 + (quantised ? kBf16 + code_bytes : 0)) * share * static_cast<double>(p.elements);
  }
  const double keys = n * (static_cast<double>(context - shared) + static_cast<double>(shared) / static_cast<double>(siblings));
  const double kv = keys * static_cast<double>(KvBytes(spec, 1024)) / 1024;
  const double draw = kDrawSeconds * static_cast<double>(spec.vocab_size) / 151936;
  const double products = 2 * n * Products(spec, registry) / kProductFlops;
  const double step = static_cast<double>(spec.num_layers) * kLayerSeconds +
                      std::max(weights / figures.weight_bytes, products) + kv / figures.kv_bytes + n * draw;
  return n / step;
}

absl::StatusOr<ordered_json> EstimateJob(const std::string& path, const EstimateChoice& given) {
  EstimateChoice choice = given;
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeTrained(path, choice.trained));
  REIN_ASSIGN_OR_RETURN(weights::Registry registry, weights::Registry::Create(DecoderParameters(model.spec)));
  const DecoderSpec& spec = model.spec;
  if (choice.length == 0) choice.length = std::min<int64_t>(4096, spec.max_positions);
  if (choice.length < 2 || choice.length > spec.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("--length is ", choice.length, ", want 2 to ", spec.max_positions, ", the model's context"));
  }
  const bool trains = choice.job != "evaluate", generates = choice.job == "rl" || choice.job == "evaluate";
  const TrainingEstimate t = EstimateTraining(model, registry, choice);
  const int64_t kv = KvBytes(spec, choice.sequences * choice.length);
  const int64_t frozen = kBf16 * registry.trained_begin() + registry.quantised_bytes(), trained = kBf16 * registry.trained_elements();
  const int64_t generator = frozen + 2 * trained + kv + t.unpacked, reference = choice.reference ? frozen + trained : 0;

  ordered_json out = {{"architecture", spec.architecture}, {"job", choice.job}, {"length", choice.length}};
  out["parameters"] = {{"all", registry.parameter_count()}, {"trained", trains ? registry.trained_count() : 0},
                       {"of_a_token", static_cast<int64_t>(Products(spec, registry))}};
  ordered_json& bytes = out["bytes"];
  if (trains) {
    bytes["trainer"] = {{"weights", t.weights}, {"gradients", t.gradients}, {"optimizer", t.optimizer},
                        {"activations", t.activations}, {"workspace", t.workspace()}, {"all", t.total(1)}};
    if (t.reference > 0) bytes["trainer"]["reference"] = t.reference;
    if (t.unpacked > 0) bytes["trainer"]["unpacked"] = t.unpacked;
  }
  if (generates) {
    bytes["generator"] = {{"weights_in_use_and_coming", frozen + 2 * trained}, {"kv", kv},
                          {"kv_of_a_token", KvBytes(spec, 1024) / 1024}, {"all", generator}};
  }
  if (reference > 0) bytes["reference"] = {{"weights", reference}};

  ordered_json& speed = out["tokens_per_second"];
  if (trains) speed["training_of_a_gpu"] = static_cast<int64_t>(TrainingTokensPerSecond(spec, registry, choice.length, choice.recompute));
  if (generates) {
    for (Gpu gpu : {Gpu::kH100, Gpu::kH200}) {
      speed[absl::StrCat("generated_", gpu == Gpu::kH100 ? "h100" : "h200")] = static_cast<int64_t>(
          GeneratedTokensPerSecond(spec, registry, gpu, choice.sequences, choice.length / 2));
    }
  }

  ordered_json& placements = out["placements"] = ordered_json::array();
  for (const GpuFigures* gpu : {&kH100, &kH200}) {
    const int64_t all = (trains ? t.total(1) : 0) + (generates ? generator : 0) + reference;
    placements.push_back(Placement(*gpu, 1, "every role on one", all));
    for (int gpus : {2, 4, 8}) {
      if (!trains) break;  // each generator is whole
      const int ranks = generates ? gpus / 2 : gpus;
      const int64_t most = std::max(t.total(ranks), generates ? generator + reference : 0);
      placements.push_back(Placement(
          *gpu, gpus, generates ? absl::StrCat(ranks, " for training, ", gpus - ranks, " for generation") : absl::StrCat(ranks, " training ranks"), most));
    }
  }
  out["what_is_estimated"] = absl::StrCat(
      "Parameters, weights, gradients, optimizer state and KV are counted. Activations and tokens/s come from a model: held "
      "against 18 measured figures of dense Qwen shapes (0.5B to 4B, H100 and H200, bf16) memory is within 5 %, training "
      "within 10 %, generation within 15 %. Several ranks are taken to train in proportion.",
      IsCalibrated(spec) ? ""
                       : " This family has parts that run by other operations than those shapes did (see the models table): its "
                         "speeds may be several times lower.");
  return out;
}

}  // namespace rein::models
