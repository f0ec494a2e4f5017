#include "trainer/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/models/estimate.h"
#include "trainer/optim/adamw.h"

namespace rein::trainer {
namespace {

constexpr double kOffloadStep = 0.05;
constexpr int64_t kLeastMicrobatch = 1024;

double Gib(int64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30); }

struct CriticSize {
  int64_t all, trained;  // numbers
  int64_t quantised_bytes = 0;
};

// The model with a scalar head: whole, or with updates of its own.
CriticSize SizeOfCritic(const models::ModelDescription& model, const weights::Registry& registry, const TrainerSettings& settings,
                        const CriticSettings& critic) {
  const CriticSize whole{registry.arena_elements() + registry.quantised_elements(), registry.arena_elements() + registry.quantised_elements()};
  if (!settings.critic_trained.lora) return whole;
  auto described = models::DescribeTrained(critic.path.empty() ? model.base : critic.path, settings.critic_trained, /*scalar_head=*/true);
  if (!described.ok()) return whole;  // Critic::Create() says what is wrong
  auto own = weights::Registry::Create(models::DecoderParameters(described->spec));
  return own.ok() ? CriticSize{own->arena_elements(), own->trained_elements(), own->quantised_bytes()} : whole;
}

// What is allocated come what may.
int64_t Counted(const MemoryPlan& plan) { return plan.total() - plan.coming(); }

}  // namespace

int64_t MemoryPlan::total() const {
  int64_t sum = 0;
  for (const PlannedPart& part : parts) sum += part.bytes;
  return sum;
}

int64_t MemoryPlan::coming() const {
  int64_t sum = 0;
  for (const PlannedPart& part : parts) sum += part.kept ? 0 : part.bytes;
  return sum;
}

MemoryPlan PlanMemory(const models::ModelDescription& model, const weights::Registry& registry,
                      const TrainerSettings& settings, const Algorithm& algorithm, int ranks) {
  const bool narrow = settings.dtype == "bfloat16";
  const models::TrainingEstimate e = models::EstimateTraining(
      model, registry,
      {.job = algorithm.frozen_reference ? "dpo" : "rl",
       .length = settings.max_length < model.spec.max_positions ? settings.max_length : 0,
       .microbatch_tokens = settings.microbatch_tokens,
       .recompute = settings.recompute,
       .compute_bytes = narrow ? 2 : 4,
       .moment_bytes = settings.optimizer.narrow_moments ? 2 : 4});
  MemoryPlan plan;
  auto add = [&](const char* name, int64_t bytes, bool kept) {
    if (bytes > 0) plan.parts.push_back({name, bytes, kept});
  };
  const auto offloaded = static_cast<int64_t>(settings.optimizer.offload * static_cast<double>(e.optimizer / ranks));
  const int64_t optimizer = e.optimizer / ranks - offloaded;
  add("weights", e.weights, true);
  add("gradients", e.gradients, true);
  add("optimizer", optimizer, true);
  add("reference", e.reference, true);
  plan.host = offloaded;
  int64_t snapshot = (narrow ? 2 : 4) * registry.trained_elements() + optimizer;
  int64_t copied = algorithm.epochs * algorithm.minibatches > 1 ? snapshot : 0;
  if (algorithm.critic) {
    const CriticSize size = SizeOfCritic(model, registry, settings, *algorithm.critic);
    const int64_t state = (2 * (settings.optimizer.narrow_moments ? 2 : 4) + (narrow ? 4 : 0)) * size.trained / ranks;
    const auto on_host = static_cast<int64_t>(settings.optimizer.offload * static_cast<double>(state));
    add("critic", (narrow ? 2 : 4) * size.all + size.quantised_bytes + 4 * size.trained + state - on_host, true);
    plan.host += on_host;
    copied = snapshot + (narrow ? 2 : 4) * size.trained + state - on_host;
  }
  add("undo", copied, false);
  add("activations", e.activations, false);
  add("unpacked", e.unpacked, false);
  add("workspace", e.workspace(), false);
  if (settings.optimizer.offload > 0) add("staging", 2 * kStagingBytes, true);
  return plan;
}

std::string PlanText(const MemoryPlan& plan) {
  std::string text = absl::StrFormat("%.1f GiB:", Gib(plan.total()));
  for (const PlannedPart& part : plan.parts) {
    absl::StrAppendFormat(&text, "%s %s %.1f", &part == plan.parts.data() ? "" : ",", part.name, Gib(part.bytes));
  }
  if (plan.host > 0) absl::StrAppendFormat(&text, "; %.1f of host memory", Gib(plan.host));
  return text;
}

double NeededOffload(const models::ModelDescription& model, const weights::Registry& registry,
                     const TrainerSettings& settings, const Algorithm& algorithm, int ranks, int64_t free_bytes) {
  TrainerSettings changed = settings;
  for (int step = 0;; ++step) {
    changed.optimizer.offload = std::min(1.0, step * kOffloadStep);
    if (changed.optimizer.offload == 1) return 1;
    if (PlanMemory(model, registry, changed, algorithm, ranks).total() <= free_bytes) return changed.optimizer.offload;
  }
}

absl::Status CheckPlan(const models::ModelDescription& model, const weights::Registry& registry,
                       const TrainerSettings& settings, const Algorithm& algorithm, int ranks, int64_t free_bytes) {
  const MemoryPlan plan = PlanMemory(model, registry, settings, algorithm, ranks);
  const bool calibrated = models::IsCalibrated(model.spec);
  if ((calibrated ? plan.total() : Counted(plan)) <= free_bytes) return absl::OkStatus();
  // Each change beside what the job has, the cheapest first; none that changes what is computed.
  TrainerSettings changed = settings;
  std::string change;
  auto fits = [&] { return PlanMemory(model, registry, changed, algorithm, ranks).total() <= free_bytes; };
  auto smaller = [&] {
    while (!fits() && changed.microbatch_tokens / 2 >= kLeastMicrobatch) changed.microbatch_tokens /= 2;
    if (changed.microbatch_tokens == settings.microbatch_tokens) return std::string();
    return absl::StrCat("trainer.microbatch_tokens: ", changed.microbatch_tokens);
  };
  const std::vector<std::function<std::string()>> changes = {
      smaller,
      [&] {
        changed.recompute = true;
        return std::string("trainer.recompute: true");
      },
      [&] {
        changed.recompute = true;
        const std::string less = smaller();
        return absl::StrCat("trainer.recompute: true", less.empty() ? "" : " and ", less);
      },
      [&] {
        changed.optimizer.offload = NeededOffload(model, registry, changed, algorithm, ranks, free_bytes);
        return absl::StrCat("trainer.offload: ", changed.optimizer.offload);
      },
      [&] {
        changed.recompute = true;
        smaller();
        changed.optimizer.offload = NeededOffload(model, registry, changed, algorithm, ranks, free_bytes);
        return absl::StrCat("trainer: {recompute: true, microbatch_tokens: ", changed.microbatch_tokens,
                            ", offload: ", changed.optimizer.offload, "}");
      }};
  for (const auto& make : changes) {
    if (settings.dtype != "bfloat16" && &make >= &changes[3]) break;  // fp32 weights are their own master copy
    changed = settings;
    change = make();
    if (!change.empty() && fits()) {
      change = absl::StrCat("it fits with ", change, ": ",
                            PlanText(PlanMemory(model, registry, changed, algorithm, ranks)));
      break;
    }
    change.clear();
  }
  if (change.empty()) {
    change = "no setting of the trainer makes it fit: take low-rank updates (model.lora), more ranks, or a GPU with more memory";
  }
  return absl::ResourceExhaustedError(absl::StrFormat("the job needs %s; free on the device are %.1f GiB; %s",
                                                      PlanText(plan), Gib(free_bytes), change));
}

}  // namespace rein::trainer
