// rein-gpu-bench: how fast training, generation and the kernels are on one GPU, with random weights of a
// known family's shape. One JSON line for each figure.
//
//   rein-gpu-bench train SHAPE TOKENS SEQUENCES UPDATES       packed sequences of TOKENS each, in every update
//   rein-gpu-bench train-groups SHAPE PROMPTS SIBLINGS IN OUT UPDATES    GRPO's step on completions of random tokens
//   rein-gpu-bench generate SHAPE WORKLOAD.jsonl              lines {"id", "tokens", "max_tokens"}; forced lengths
//   rein-gpu-bench groups SHAPE PROMPTS SIBLINGS IN OUT       random prompts, forced lengths
//   rein-gpu-bench update SHAPE PROMPTS SIBLINGS IN OUT UPDATES          generate, train and copy the weights, in turn
//   rein-gpu-bench sync SHAPE ipc|nccl GPU                    weights of GPU 0 to a process on GPU, ten times
//   rein-gpu-bench families [NAME...]                         each family (or those named) trained at one 1B-like shape
//   rein-gpu-bench kernels
//
// REIN_EXACT=0: equal bits are not kept (model.exact: false). REIN_KV_FP8=1: keys and values in fp8 (model.kv_cache: fp8). REIN_EAGER=1: no captured graphs. REIN_ONCE=1: generation is not run a second time. REIN_MICROBATCH_TOKENS=N, REIN_RECOMPUTE=1, REIN_COPY_PROMPTS=1 (a prompt for each
// sibling): of training.

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "common/kernels/exactness.h"
#include "common/kernels/filter_logits.h"
#include "common/kernels/logits.h"
#include "common/kernels/projection.h"
#include "common/models/arena.h"
#include "common/models/decoder_parameters.h"
#include "common/nn/activation.h"
#include "common/nn/attention.h"
#include "common/nn/experts.h"
#include "common/nn/fp8.h"
#include "common/nn/functions.h"
#include "common/nn/head.h"
#include "common/nn/norm.h"
#include "common/nn/query_key_value.h"
#include "common/tensor/cuda_graph.h"
#include "common/tensor/cuda_runtime.h"
#include "common/version/build_version.h"
#include "common/weights/channel/weight_channel.h"
#include "rollout/engine/decoder_step_model.h"
#include "rollout/engine/engine_core.h"
#include "tests/gpu/random_policy.h"
#include "tests/gpu/weight_receiver_process.h"
#include "trainer/algorithms/policy_gradient.h"

namespace rein::gpu {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

double Seconds(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

void Wait() { at::accelerator::synchronizeDevice(0); }

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "rein-gpu-bench: %s\n", message.c_str());
  std::exit(2);
}

void Print(json line) {
  line["peak_gib"] = static_cast<double>(at::accelerator::getDeviceStats(0).reserved_bytes[0].peak) / (1 << 30);
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

const ShapeOfModel& Shape(const std::string& name) {
  const ShapeOfModel* shape = FindShape(name);
  if (shape == nullptr) Die("unknown shape " + name);
  return *shape;
}

// ---- training --------------------------------------------------------------------------------------

// FLOP of one trained token: products of body and head three times over (embedding lookup not counted), and
// causal attention.
double FlopPerToken(const ShapeOfModel& s, double length) {
  const double ffn = static_cast<double>(s.experts > 0 ? s.chosen * s.expert_ffn : s.ffn);
  const double body = s.layers * (1.0 * s.width * (s.heads + 2 * s.kv_heads) * s.head_dim +
                                  1.0 * s.heads * s.head_dim * s.width + 3.0 * s.width * ffn);
  const double attention = s.layers * 2.0 * length * s.heads * s.head_dim;  // causal forward
  return 6 * (body + 1.0 * s.vocabulary * s.width) + 3 * attention;
}

trainer::TrainerSettings SettingsFor(int64_t length) {
  trainer::TrainerSettings settings;
  settings.schedule.peak = 1e-5;
  settings.microbatch_tokens = std::max<int64_t>(length, 16384);
  if (const char* tokens = std::getenv("REIN_MICROBATCH_TOKENS")) settings.microbatch_tokens = std::atoll(tokens);
  settings.recompute = std::getenv("REIN_RECOMPUTE") != nullptr;
  settings.trained.kv_fp8 = std::getenv("REIN_KV_FP8") != nullptr;
  settings.share_prompts = std::getenv("REIN_COPY_PROMPTS") == nullptr;
  if (const char* share = std::getenv("REIN_OFFLOAD")) {
    settings.offload_as_needed = std::string(share) == "auto";
    if (!settings.offload_as_needed) settings.optimizer.offload = std::atof(share);
  }
  settings.optimizer.narrow_moments = std::getenv("REIN_NARROW_MOMENTS") != nullptr;
  return settings;
}

// Figures of `updates` updates, after one in which choices are made and memory is taken.
json TimeUpdates(RandomPolicy& policy, const std::vector<trainer::TrainingSequence>& batch, int updates) {
  double best = 1e30, total = 0, tokens = 0;
  for (const trainer::TrainingSequence& s : batch) tokens += static_cast<double>(s.token_ids.size());
  for (int i = 0; i < updates + 1; ++i) {
    const auto begin = steady_clock::now();
    auto result = policy.trainer().Update(batch);
    if (!result.ok()) Die(std::string(result.status().message()));
    Wait();
    const double seconds = Seconds(begin);
    if (i == 0) continue;
    best = std::min(best, seconds);
    total += seconds;
  }
  return {{"tokens_per_update", tokens}, {"seconds_per_update", total / updates},
          {"tokens_per_second", tokens * updates / total}, {"best_tokens_per_second", tokens / best}};
}

void Train(const ShapeOfModel& shape, int64_t length, int64_t sequences, int updates) {
  const trainer::TrainerSettings settings = SettingsFor(length);
  RandomPolicy policy(WriteModelFolder(shape), settings, trainer::Sft(trainer::Aggregation::kTokenMean), false);
  std::mt19937 random(3);
  std::vector<trainer::TrainingSequence> batch;
  for (int64_t s = 0; s < sequences; ++s) {
    trainer::TrainingSequence one{.id = std::to_string(s)};
    for (int64_t t = 0; t < length; ++t) {
      one.token_ids.push_back(static_cast<int64_t>(random() % shape.vocabulary));
      one.loss_mask.push_back(t > 0);
    }
    batch.push_back(std::move(one));
  }
  json line = TimeUpdates(policy, batch, updates);
  line.update({{"bench", "train"}, {"shape", shape.name}, {"length", length},
               {"plan", trainer::PlanText(policy.trainer().memory_plan())},
               {"planned_gib", static_cast<double>(policy.trainer().memory_plan().total()) / (1 << 30)},
               {"microbatch_tokens", settings.microbatch_tokens}, {"recompute", settings.recompute},
               {"mfu_causal_of_989", line["tokens_per_second"].get<double>() *
                                         FlopPerToken(shape, static_cast<double>(length)) / 989.4e12}});
  Print(line);
}

// ---- families --------------------------------------------------------------------------------------

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

// One line for each: tokens/s and MFU of training on packed sequences of 4096 tokens, and the ratio of its MFU to Llama's,
// which comes first.
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

void TrainGroups(const ShapeOfModel& shape, int64_t prompts, int64_t siblings, int64_t in, int64_t out, int updates) {
  const trainer::TrainerSettings settings = SettingsFor(in + out);
  RandomPolicy policy(WriteModelFolder(shape), settings, trainer::PolicyGradient({}), false);
  std::mt19937 random(3);
  auto tokens = [&](int64_t n) {
    std::vector<int64_t> ids;
    for (int64_t t = 0; t < n; ++t) ids.push_back(static_cast<int64_t>(random() % shape.vocabulary));
    return ids;
  };
  std::vector<trainer::TrainingSequence> batch;
  for (int64_t p = 0; p < prompts; ++p) {
    const std::vector<int64_t> prompt = tokens(in);
    for (int64_t s = 0; s < siblings; ++s) {
      trainer::TrainingSequence one{.id = std::to_string(p) + "/" + std::to_string(s), .token_ids = prompt};
      for (int64_t id : tokens(out)) one.token_ids.push_back(id);
      one.loss_mask.assign(static_cast<size_t>(in + out), 1);
      std::fill_n(one.loss_mask.begin(), in, 0);
      one.behaviour_logprobs.assign(static_cast<size_t>(out), -12);
      one.group = static_cast<uint32_t>(p);
      one.reward = static_cast<double>(random() % 2);
      batch.push_back(std::move(one));
    }
  }
  json line = TimeUpdates(policy, batch, updates);
  line.update({{"bench", "train-groups"}, {"shape", shape.name},
               {"workload", std::to_string(prompts) + " x " + std::to_string(siblings) + ", " + std::to_string(in) +
                                " in, " + std::to_string(out) + " out"},
               {"microbatch_tokens", settings.microbatch_tokens}, {"shared_prompts", settings.share_prompts}});
  Print(line);
}

// ---- generation ------------------------------------------------------------------------------------

struct Prompt {
  std::vector<uint32_t> tokens;
  uint32_t siblings = 1, max_tokens = 0;
};

// Counts the time inside the model: launching, and waiting for the GPU. The engine's own is the rest.
class TimedModel final : public rollout::StepModel {
 public:
  explicit TimedModel(rollout::StepModel& model) : model_(model) {}
  rollout::StepModelLimits limits() const override { return model_.limits(); }
  absl::Status Begin(const rollout::StepBatch& batch) override {
    const auto begin = steady_clock::now();
    absl::Status status = model_.Begin(batch);
    launch_seconds += Seconds(begin);
    return status;
  }
  absl::StatusOr<rollout::Draws> Collect() override {
    const auto begin = steady_clock::now();
    auto draws = model_.Collect();
    wait_seconds += Seconds(begin);
    return draws;
  }
  double launch_seconds = 0, wait_seconds = 0;

 private:
  rollout::StepModel& model_;
};

// Generator and trainer on one GPU; the generator's pages get `kv_tokens`, or most of what is free.
struct Generator {
  Generator(RandomPolicy& policy, uint64_t kv_tokens) : policy(policy) {
    const auto& spec = policy.trainer().model().spec;
    const double free = static_cast<double>(at::accelerator::getMemoryInfo(0).first);
    const double bytes_of_token = (spec.kv_fp8 ? 2.0 : 4.0) * static_cast<double>(spec.num_layers * spec.num_kv_heads * spec.head_dim);
    if (kv_tokens == 0) kv_tokens = static_cast<uint64_t>(0.8 * free / bytes_of_token);
    auto made = rollout::DecoderStepModel::Create(
        policy.slots(), {.kv_tokens = kv_tokens, .capture = std::getenv("REIN_EAGER") == nullptr});
    if (!made.ok()) Die(std::string(made.status().message()));
    model = *std::move(made);
  }

  // Completions of forced lengths, of each prompt, under weights of number `version`.
  std::vector<std::vector<rollout::FinishedSibling>> Run(const std::vector<Prompt>& prompts, uint64_t version) {
    TimedModel timed(*model);
    rollout::EngineCore core({.prefix_cache = false}, timed, policy.text(), clock, {});
    core.UseVersion({1, version});
    std::vector<std::vector<rollout::FinishedSibling>> done(prompts.size());
    for (size_t p = 0; p < prompts.size(); ++p) {
      rollout::GenerateSpec one = {.group = {0, p, 0}, .prompt = prompts[p].tokens};
      for (uint32_t s = 0; s < prompts[p].siblings; ++s) one.siblings.push_back(s);
      one.sampling.max_tokens = prompts[p].max_tokens;
      one.sampling.ignore_eos = true;
      rollout::RequestCallbacks callbacks = {
          .on_sibling = [&done, p](rollout::FinishedSibling s) { done[p].push_back(std::move(s)); },
          .on_end = [](absl::Status) {}};
      auto request = rollout::MakeRequest(one, callbacks, model->limits(), policy.text());
      if (!request.ok()) Die(std::string(request.status().message()));
      core.Add(*request);
    }
    const auto begin = steady_clock::now();
    while (core.has_work()) {
      auto progress = core.Step();
      if (!progress.ok()) Die(std::string(progress.status().message()));
      if (first_step == steady_clock::time_point()) first_step = steady_clock::now();
    }
    seconds = Seconds(begin);
    steps = static_cast<double>(core.stats().steps);
    launch_seconds = timed.launch_seconds;
    engine_seconds = seconds - timed.launch_seconds - timed.wait_seconds;
    return done;
  }

  RandomPolicy& policy;
  std::unique_ptr<rollout::DecoderStepModel> model;
  sync::RealClock clock;
  steady_clock::time_point first_step;
  double seconds = 0, launch_seconds = 0, engine_seconds = 0, steps = 0;  // of the last run
};

void Generate(const ShapeOfModel& shape, const std::vector<Prompt>& prompts, const std::string& name) {
  const auto start = steady_clock::now();
  RandomPolicy policy(WriteModelFolder(shape), SettingsFor(0), trainer::Sft(trainer::Aggregation::kTokenMean));
  std::fprintf(stderr, "weights after %.2f s\n", Seconds(start));
  Generator generator(policy, 0);
  std::fprintf(stderr, "pages after %.2f s\n", Seconds(start));
  int64_t in = 0;
  for (const Prompt& p : prompts) in += static_cast<int64_t>(p.tokens.size());
  const char* once = std::getenv("REIN_ONCE");
  for (int run = 0; run < (once == nullptr ? 2 : 1); ++run) {  // the first one also captures
    int64_t out = 0;
    for (const auto& siblings : generator.Run(prompts, static_cast<uint64_t>(run))) {
      for (const rollout::FinishedSibling& s : siblings) out += static_cast<int64_t>(s.tokens.size());
    }
    const double seconds = generator.seconds;
    Print({{"bench", "generate"}, {"workload", name}, {"shape", shape.name}, {"run", run},
           {"captured", std::getenv("REIN_EAGER") == nullptr}, {"tokens_in", in}, {"tokens_out", out},
           {"seconds", seconds}, {"out_tokens_per_second", out / seconds}, {"steps", generator.steps},
           {"ms_per_step", 1e3 * seconds / generator.steps},
           {"launch_ms_per_step", 1e3 * generator.launch_seconds / generator.steps},
           {"engine_ms_per_step", 1e3 * generator.engine_seconds / generator.steps},
           {"start_to_first_step_seconds", std::chrono::duration<double>(generator.first_step - start).count()}});
  }
  for (const std::string& line : kernels::ChosenProjections()) std::fprintf(stderr, "%s\n", line.c_str());
}

std::vector<Prompt> ReadWorkload(const std::string& path) {
  std::vector<Prompt> prompts;
  std::ifstream file(path);
  if (!file) Die("cannot read " + path);
  for (std::string line; std::getline(file, line);) {
    json one = json::parse(line);
    prompts.push_back({one["tokens"].get<std::vector<uint32_t>>(), 1, one["max_tokens"].get<uint32_t>()});
  }
  return prompts;
}

std::vector<Prompt> RandomPrompts(uint32_t count, uint32_t siblings, uint32_t in, uint32_t out) {
  std::mt19937 random(5);
  std::vector<Prompt> prompts(count);
  for (Prompt& prompt : prompts) {
    prompt.siblings = siblings;
    prompt.max_tokens = out;
    for (uint32_t i = 0; i < in; ++i) prompt.tokens.push_back(static_cast<uint32_t>(random() % 10000));
  }
  return prompts;
}

// ---- a whole update --------------------------------------------------------------------------------

// GRPO on one GPU, one after the other: generate, train, copy the weights. The last of the updates is told.
void WholeUpdate(const ShapeOfModel& shape, int64_t prompts, int64_t siblings, int64_t in, int64_t out, int updates) {
  const auto start = steady_clock::now();
  RandomPolicy policy(WriteModelFolder(shape), SettingsFor(in + out), trainer::PolicyGradient({}));
  // Whole pages of every completion, and its prompt's once.
  Generator generator(policy, static_cast<uint64_t>(prompts * (in + 32 + siblings * (out + 32))));
  std::mt19937 random(3);
  json line;
  for (int i = 0; i < updates; ++i) {
    const auto begin = steady_clock::now();
    const std::vector<Prompt> workload = RandomPrompts(static_cast<uint32_t>(prompts), static_cast<uint32_t>(siblings),
                                                       static_cast<uint32_t>(in), static_cast<uint32_t>(out));
    const auto done = generator.Run(workload, static_cast<uint64_t>(i));
    std::vector<trainer::TrainingSequence> batch;
    for (size_t p = 0; p < done.size(); ++p) {
      for (const rollout::FinishedSibling& s : done[p]) {
        trainer::TrainingSequence one{.id = std::to_string(p)};
        one.token_ids.assign(workload[p].tokens.begin(), workload[p].tokens.end());
        one.loss_mask.assign(one.token_ids.size(), 0);
        one.token_ids.insert(one.token_ids.end(), s.tokens.begin(), s.tokens.end());
        one.loss_mask.resize(one.token_ids.size(), 1);
        one.behaviour_logprobs = s.logprobs;
        one.group = static_cast<uint32_t>(p);
        one.reward = static_cast<double>(random() % 2);
        batch.push_back(std::move(one));
      }
    }
    const auto trained_from = steady_clock::now();
    auto result = policy.trainer().Update(batch);
    if (!result.ok()) Die(std::string(result.status().message()));
    Wait();
    const double train_seconds = Seconds(trained_from);
    const auto synced_from = steady_clock::now();
    policy.Publish();
    Wait();
    const double tokens = static_cast<double>(prompts * siblings * (in + out));
    line = {{"bench", "update"}, {"shape", shape.name}, {"update", i},
            {"workload", std::to_string(prompts) + " x " + std::to_string(siblings) + ", " + std::to_string(in) + " in, " +
                             std::to_string(out) + " out"},
            {"generate_seconds", generator.seconds}, {"train_seconds", train_seconds}, {"sync_seconds", Seconds(synced_from)},
            {"seconds", Seconds(begin)}, {"tokens_per_second", tokens / Seconds(begin)}, {"since_start_seconds", Seconds(start)}};
    for (const trainer::Metric& m : result->metrics) {
      if (m.name == "logprob_diff_max" || m.name == "ratio_max") line[m.name] = m.value;
    }
    Print(line);
  }
}

// ---- weight sync -----------------------------------------------------------------------------------

// What a publish does from weights that are ready on GPU 0 to the receiver's having them in use: digests, bytes, and
// digests again on the other side. Beside it one plain copy of as many bytes between the two.
void Sync(const ShapeOfModel& shape, const std::string& way, int64_t gpu) {
  const std::string folder = WriteModelFolder(shape);
  const auto model = models::DescribeModel(folder);
  if (!model.ok()) Die(std::string(model.status().message()));
  const auto registry = *weights::Registry::Create(models::DecoderParameters(model->spec));
  const at::TensorOptions bf16 = at::TensorOptions(at::Device(at::kCUDA, 0)).dtype(at::kBFloat16);
  at::Tensor arena = at::empty({registry.arena_elements()}, bf16);
  // On one GPU ranks must seem to be on hosts of their own, and go through sockets.
  if (gpu == 0) setenv("NCCL_HOSTID", "sender", 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  WeightReceiverProcess receiver(gpu == 0 ? "receiver" : "", {folder, std::to_string(gpu)});
  const auto channel = way == "ipc" ? weights::IpcWeightChannel() : weights::NcclWeightChannel();
  std::vector<double> digest, sent;
  for (uint64_t i = 0; i < 12; ++i) {
    arena.normal_();
    Wait();
    const auto begin = steady_clock::now();
    weights::Publication p;
    p.version = {1, i};
    p.fence.set_request_id("publish-" + std::to_string(i));
    p.fence.set_controller_epoch(1);
    p.plan = weights::PlanOf(registry, "bfloat16");
    p.digests = *models::ArenaDigests(registry, arena);
    p.arena = arena.mutable_data_ptr();
    p.deadline = absl::Seconds(60);
    const double own = Seconds(begin);
    const absl::Status status = channel->Send(p, {receiver.Address()})[0].status;
    if (!status.ok()) Die(std::string(status.message()));
    if (i < 2) continue;  // communicators, and mappings
    digest.push_back(1e3 * own);
    sent.push_back(1e3 * (Seconds(begin) - own));
  }
  at::Tensor there = at::empty({arena.numel()}, bf16.device(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(gpu))));
  double copy = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto begin = steady_clock::now();
    there.copy_(arena);
    Wait();
    copy = std::min(copy, 1e3 * Seconds(begin));
  }
  for (auto* times : {&digest, &sent}) std::sort(times->begin(), times->end());
  const double bytes = 2.0 * static_cast<double>(arena.numel()), all = digest[5] + sent[5];
  Print({{"bench", "sync"}, {"shape", shape.name}, {"way", way}, {"gpu", gpu}, {"bytes", bytes}, {"digest_ms", digest[5]},
         {"send_ms", sent[5]}, {"sync_ms", all}, {"gb_per_second", bytes / all * 1e-6}, {"plain_copy_ms", copy}});
}

// ---- kernels ---------------------------------------------------------------------------------------

// On the GPU alone: many runs as one captured graph.
double CapturedMicroseconds(const std::function<void()>& body) {
  constexpr int kRuns = 40, kReplays = 5;
  body();
  auto graph = tensor::CaptureGraph(tensor::NewGraphPool(), [&] {
    for (int i = 0; i < kRuns; ++i) body();
  });
  if (!graph.ok()) Die(std::string(graph.status().message()));
  (*graph)->Replay();
  Wait();
  const auto begin = steady_clock::now();
  for (int i = 0; i < kReplays; ++i) (*graph)->Replay();
  Wait();
  return 1e6 * Seconds(begin) / (kRuns * kReplays);
}

double Microseconds(const std::function<void()>& body) {
  for (int i = 0; i < 3; ++i) body();
  Wait();
  constexpr int kRuns = 20;
  const auto begin = steady_clock::now();
  for (int i = 0; i < kRuns; ++i) body();
  Wait();
  return 1e6 * Seconds(begin) / kRuns;
}

void Line(const std::string& kernel, const std::string& shape, double us, double bytes, double flop) {
  json line = {{"bench", "kernel"}, {"kernel", kernel}, {"shape", shape}, {"microseconds", us}};
  if (bytes > 0) line["gb_per_second"] = bytes / us * 1e-3;
  if (flop > 0) line["tflop_per_second"] = flop / us * 1e-6;
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

void Kernels() {
  at::TensorOptions bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  auto weight = [&](std::vector<int64_t> shape) {
    at::Tensor value = at::randn(shape, bf16);
    return nn::Weight{value, at::zeros(shape, bf16.dtype(at::kFloat))};
  };
  constexpr int64_t kTokens = 16384;
  // Backward time is that of forward and backward less forward.
  auto both = [&](const std::string& kernel, const std::string& shape, std::vector<at::Tensor> in, double forward_bytes,
                  double backward_bytes, double forward_flop, double backward_flop, auto function) {
    double forward = 0;
    {
      at::NoGradGuard no_grad;
      forward = Microseconds([&] { function(in); });
    }
    Line(kernel + " forward", shape, forward, forward_bytes, forward_flop);
    for (at::Tensor& x : in) x.requires_grad_(true);
    at::Tensor dy = at::randn_like(function(in));
    Wait();
    const auto begin = steady_clock::now();
    function(in).backward(dy);
    Wait();
    Line(kernel + " forward and backward, first call", shape, 1e6 * Seconds(begin), 0, 0);
    const double all = Microseconds([&] {
      function(in).backward(dy);
      for (at::Tensor& x : in) x.mutable_grad() = at::Tensor();
    });
    Line(kernel + " backward", shape, all - forward, backward_bytes, backward_flop);
  };
  for (int64_t width : {1024, 4096}) {
    nn::Weight w = weight({width});
    const double row = 2.0 * kTokens * static_cast<double>(width);
    both("AddRmsNorm", "16384 x " + std::to_string(width), {at::randn({kTokens, width}, bf16), at::randn({kTokens, width}, bf16)},
         4 * row, 4 * row, 0, 0, [&](const std::vector<at::Tensor>& x) {
           nn::SumAndNorm out = nn::AddNorm(x[0], x[1], nn::NormKind::kRms, {w, {}}, 1e-6);
           return at::GradMode::is_enabled() ? out.sum + out.norm : out.norm;
         });
  }
  both("GatedSilu", "16384 x 2*3072", {at::randn({kTokens, 6144}, bf16)}, 2.0 * kTokens * 9216, 2.0 * kTokens * 15360, 0, 0,
       [](const std::vector<at::Tensor>& x) { return nn::Gated(x[0], {}); });
  for (int64_t length : {512, 1024, 4096, 16384}) {
    nn::SequenceView view = nn::PackedSequences(std::vector<int64_t>(kTokens / length, length), at::kCUDA);
    const double flop = 2.0 * static_cast<double>(kTokens * length) * 16 * 128;
    both("Attention", "16/8 heads of 128, 16384 tokens, length " + std::to_string(length),
         {at::randn({kTokens, 16, 128}, bf16), at::randn({kTokens, 8, 128}, bf16), at::randn({kTokens, 8, 128}, bf16)}, 0, 0,
         flop, 2.5 * flop, [&](const std::vector<at::Tensor>& x) { return nn::Attention(x[0], x[1], x[2], view, 0, 0.088); });
  }
  {  // a layer of Qwen3-30B-A3B
    nn::ExpertWeights w;
    w.router_ED = weight({128, 2048});
    w.gate_up = weight({128, 2 * 768, 2048});
    w.down = weight({128, 2048, 768});
    nn::RoutingRule rule;
    rule.experts = 128;
    rule.chosen = 8;
    for (int64_t tokens : {kTokens, int64_t{256}}) {
      const double flop = 2.0 * static_cast<double>(tokens) * 8 * 3 * 2048 * 768, bytes = tokens < kTokens ? 2.0 * 128 * 3 * 768 * 2048 : 0;
      both("MixtureOfExperts", std::to_string(tokens) + " tokens, 8 of 128 experts of 768, width 2048", {at::randn({tokens, 2048}, bf16)},
           bytes, 0, flop, 2 * flop, [&](const std::vector<at::Tensor>& x) { return nn::MixtureOfExperts(x[0], w, rule, {}); });
    }
  }
  // Decoding: B sequences of one length, pages in random order.
  at::NoGradGuard no_grad;
  for (auto [sequences, context, heads, kv_heads, prompt] :  // each 16 siblings have a prompt of so many tokens in common
       {std::tuple{256, 1024, 16, 8, 0}, {256, 3072, 16, 8, 0}, {64, 3072, 32, 8, 0}, {8, 4096, 16, 8, 0}, {1, 4096, 16, 8, 0},
        {256, 1024, 14, 2, 0}, {256, 1536, 16, 8, 1024}, {256, 1536, 32, 8, 1024}}) {
    const int64_t pages_of_one = (context + 15) / 16, dim = heads == 14 ? 64 : 128;
    std::vector<nn::KvPages> layers(1);
    layers[0].key = at::randn({sequences * pages_of_one, 16, kv_heads, dim}, bf16);
    layers[0].value = at::randn({sequences * pages_of_one, 16, kv_heads, dim}, bf16);
    nn::PageMap map{.layers = &layers, .page_tokens = 16, .single_queries = sequences,
                    .most_chunks = sequences * ((context + 255) / 256)};
    map.pages_BP = at::randperm(sequences * pages_of_one, bf16.dtype(at::kInt)).view({sequences, pages_of_one});
    if (prompt > 0) {
      at::Tensor groups = map.pages_BP.view({-1, 16, pages_of_one}).narrow(2, 0, prompt / 16);
      groups.copy_(groups.narrow(1, 0, 1).expand_as(groups).clone());
      map.shared_B = at::full({sequences / 16, 16}, prompt, bf16.dtype(at::kInt));
      map.shared_B.narrow(1, 0, 1).zero_();
    }
    nn::SequenceView view = nn::PackedSequences(std::vector<int64_t>(sequences, 1), at::kCUDA);
    view.context_B = at::full({sequences}, context, bf16.dtype(at::kInt));
    nn::PlanDecode(map, view.context_B, heads, dim);
    view.pages = &map;
    at::Tensor q = at::randn({sequences, heads, dim}, bf16);
    for (bool fp8 : {false, true}) {
      if (fp8) layers[0].key = nn::ToFp8(layers[0].key), layers[0].value = nn::ToFp8(layers[0].value);
      const double us = CapturedMicroseconds([&] { nn::Attention(q, {}, {}, view, 0, 0.088); });
      Line("Attention decode", std::to_string(sequences) + " x " + std::to_string(context) + ", " + std::to_string(heads) + "/" +
           std::to_string(kv_heads) + " heads of " + std::to_string(dim) + (fp8 ? ", fp8" : "") +
           (prompt > 0 ? ", 16 siblings with a prompt of " + std::to_string(prompt) : ""), us,
           (fp8 ? 2.0 : 4.0) * static_cast<double>(sequences) * (context - prompt * 15.0 / 16) * static_cast<double>(kv_heads * dim), 0);
    }
  }
  for (auto [columns, inner] : {std::pair{4096, 1024}, {1024, 2048}, {6144, 1024}, {1024, 3072}, {151936, 1024}, {24576, 4096}, {4096, 12288}}) {
    nn::Weight w = weight({columns, inner});
    for (int64_t rows : {1, 16, 64, 128, 256, 2048, 16384}) {
      if (columns > 100000 && rows > 4096) continue;
      at::Tensor x = at::randn({rows, inner}, bf16);
      const double flop = 2.0 * rows * columns * static_cast<double>(inner);
      const double bytes = 2.0 * (static_cast<double>(columns) * inner + rows * inner + rows * static_cast<double>(columns));
      const std::string shape = std::to_string(rows) + " rows, " + std::to_string(columns) + " x " + std::to_string(inner);
      Line("Projection", shape, CapturedMicroseconds([&] { nn::Projection(x, w, {}); }), bytes, flop);
      Line("at::linear", shape, CapturedMicroseconds([&] { at::linear(x, w.value); }), bytes, flop);
    }
  }
  // The small kernels of a decoding step, at the shape of Qwen3-0.6B.
  for (int64_t rows : {1, 128, 256}) {
    const std::string shape = std::to_string(rows) + " rows";
    nn::Weight norm = weight({1024}), head_norm = weight({128});
    at::Tensor x = at::randn({rows, 1024}, bf16), gate_up = at::randn({rows, 6144}, bf16),
               qkv = at::randn({rows, 4096}, bf16), logits = at::randn({rows, 151936}, bf16);
    at::Tensor angle = at::rand({rows, 64}, bf16.dtype(at::kFloat));
    nn::SequenceView view = nn::PackedSequences({rows}, at::kCUDA);
    Line("AddRmsNorm decode", shape, CapturedMicroseconds([&] { nn::AddNorm(x, x, nn::NormKind::kRms, {norm, {}}, 1e-6); }), 0, 0);
    Line("GatedSilu decode", shape, CapturedMicroseconds([&] { nn::Gated(gate_up, {}); }), 0, 0);
    Line("QkNormRope decode", shape, CapturedMicroseconds([&] {
           nn::SplitQueryKeyValue(qkv, {16, 8, 128}, head_norm, head_norm, 1e-6, {angle, angle}, view, 0);
         }), 0, 0);
    at::Tensor draws = at::zeros({rows, 16}, bf16.dtype(at::kByte)), token = at::empty({rows}, bf16.dtype(at::kLong)),
               logprob = at::empty({rows}, bf16.dtype(at::kFloat));
    draws.view(at::kFloat).select(1, 3).fill_(1);
    at::Tensor scratch = at::empty({kernels::LogitScratchBytes(rows, 151936)}, bf16.dtype(at::kByte));
    kernels::TokenDraw draw;
    draw.logits = logits.const_data_ptr();
    draw.stride = draw.vocabulary = 151936;
    draw.row = static_cast<const kernels::DrawRow*>(draws.const_data_ptr());
    draw.token = token.mutable_data_ptr<int64_t>();
    draw.logprob = logprob.mutable_data_ptr<float>();
    draw.scratch = scratch.mutable_data_ptr();
    draw.rows = rows;
    Line("DrawTokens", shape, CapturedMicroseconds([&] {
           if (!kernels::DrawTokens(draw, tensor::CurrentStream()).ok()) Die("DrawTokens");
         }), 2.0 * rows * 151936, 0);
    for (const kernels::FilterRow& filter : {kernels::FilterRow{0.95, 0, 1, 20}, {0.95, 0, 1, 0}, {1, 0.05, 1, 0}}) {
      std::vector<kernels::FilterRow> filters(static_cast<size_t>(rows), filter);
      at::Tensor filter_N =
          at::from_blob(filters.data(), {rows * static_cast<int64_t>(sizeof(filter))}, at::kByte).to(at::kCUDA);
      const kernels::LogitFilter run{logits.mutable_data_ptr(), 151936,
                                     static_cast<const kernels::FilterRow*>(filter_N.const_data_ptr()), rows, 151936};
      Line("FilterLogits", shape + ", top_k " + std::to_string(filter.top_k) + ", top_p " + std::to_string(filter.top_p) +
           ", min_p " + std::to_string(filter.min_p), CapturedMicroseconds([&] {
             if (!kernels::FilterLogits(run, tensor::CurrentStream()).ok()) Die("FilterLogits");
           }), 2.0 * rows * 151936, 0);
    }
  }
  for (const std::string& line : kernels::ChosenProjections()) std::fprintf(stderr, "%s\n", line.c_str());
}

int Main(int argc, char** argv) {
  auto number = [&](int i) { return i < argc ? std::atoll(argv[i]) : 0; };
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "--weight-receiver") return WeightReceiverMain(argc - 2, argv + 2);
  if (tensor::CudaDeviceCount() == 0) Die("this host shows no GPU");
  at::empty({1}, at::TensorOptions(at::kCUDA));  // before the allocator is asked for anything
  if (const char* exact = std::getenv("REIN_EXACT")) kernels::KeepBits(std::string(exact) != "0");
  if (what == "train" && argc == 6) {
    Train(Shape(argv[2]), number(3), number(4), static_cast<int>(number(5)));
  } else if (what == "train-groups" && argc == 8) {
    TrainGroups(Shape(argv[2]), number(3), number(4), number(5), number(6), static_cast<int>(number(7)));
  } else if (what == "generate" && argc == 4) {
    Generate(Shape(argv[2]), ReadWorkload(argv[3]), "file");
  } else if (what == "groups" && argc == 7) {
    Generate(Shape(argv[2]), RandomPrompts(number(3), number(4), number(5), number(6)),
             std::string(argv[3]) + " x " + argv[4] + ", " + argv[5] + " in, " + argv[6] + " out");
  } else if (what == "update" && argc == 8) {
    WholeUpdate(Shape(argv[2]), number(3), number(4), number(5), number(6), static_cast<int>(number(7)));
  } else if (what == "sync" && argc == 5) {
    Sync(Shape(argv[2]), argv[3], number(4));
  } else if (what == "families") {
    Families({argv + 2, argv + argc});
  } else if (what == "kernels") {
    Kernels();
  } else {
    Die("usage: train SHAPE TOKENS SEQUENCES UPDATES | train-groups SHAPE PROMPTS SIBLINGS IN OUT UPDATES | generate "
        "SHAPE WORKLOAD.jsonl | groups SHAPE PROMPTS SIBLINGS IN OUT | update SHAPE PROMPTS SIBLINGS IN OUT UPDATES | sync SHAPE "
        "ipc|nccl GPU | families [NAME...] | kernels");
  }
  return 0;
}

}  // namespace
}  // namespace rein::gpu

int main(int argc, char** argv) { return rein::gpu::Main(argc, argv); }
