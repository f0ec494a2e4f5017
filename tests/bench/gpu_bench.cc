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
// REIN_EXACT=0: equal bits are not kept (model.exact: false). REIN_KV_FP8=1: keys and values in fp8 (model.kv_cache: fp8).
// REIN_EAGER=1: no captured graphs. REIN_ONCE=1: generation is not run a second time. REIN_MICROBATCH_TOKENS=N,
// REIN_RECOMPUTE=1, REIN_COPY_PROMPTS=1 (a prompt for each sibling): of training. REIN_KERNELS=N: what takes the time,
// kernel by kernel (kernel_times.h).

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>

#include "common/kernels/exactness.h"
#include "common/kernels/projection.h"
#include "common/tensor/cuda_runtime.h"
#include "rollout/engine/decoder_step_model.h"
#include "rollout/engine/engine_core.h"
#include "tests/bench/gpu_bench.h"
#include "tests/bench/kernel_times.h"
#include "tests/gpu/weight_receiver_process.h"
#include "trainer/algorithms/policy_gradient.h"

namespace rein::gpu {

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

json TimeUpdates(RandomPolicy& policy, const std::vector<trainer::TrainingSequence>& batch, int updates) {
  double best = 1e30, total = 0, tokens = 0;
  for (const trainer::TrainingSequence& s : batch) tokens += static_cast<double>(s.token_ids.size());
  for (int i = 0; i < updates + 1; ++i) {
    if (i == FirstRecorded()) BeginKernelTimes();
    const auto begin = steady_clock::now();
    auto result = policy.trainer().Update(batch);
    if (!result.ok()) Die(std::string(result.status().message()));
    Wait();
    const double seconds = Seconds(begin);
    if (i == FirstRecorded()) EndKernelTimes();
    if (i == 0) continue;
    best = std::min(best, seconds);
    total += seconds;
  }
  return {{"tokens_per_update", tokens}, {"seconds_per_update", total / updates},
          {"tokens_per_second", tokens * updates / total}, {"best_tokens_per_second", tokens / best}};
}

namespace {

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

constexpr int kRecordedSteps = 16;

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
    for (int step = 0; core.has_work(); ++step) {
      if (step == FirstRecorded()) BeginKernelTimes();
      if (step == FirstRecorded() + kRecordedSteps) EndKernelTimes();
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
