#include "services/trainer/settings_from_job.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "common/config/job_kind.h"
#include "services/role/trained_choice.h"

namespace rein::services {
namespace {

using trainer::LrSchedule;

LrSchedule ScheduleFromJob(const v1::JobConfig& job) {
  const v1::ScheduleConfig& config = job.trainer().schedule();
  LrSchedule schedule;
  schedule.peak = job.trainer().learning_rate();
  schedule.max_updates = std::max<int64_t>(1, config::UpdatesOf(job));
  switch (config.curve_case()) {
    case v1::ScheduleConfig::kConstant:
      schedule.warmup = config.constant().warmup();
      break;
    case v1::ScheduleConfig::kLinear:
      schedule.curve = LrSchedule::Curve::kLinear;
      schedule.warmup = config.linear().warmup();
      schedule.final = config.linear().final();
      break;
    case v1::ScheduleConfig::kCosine:
      schedule.curve = LrSchedule::Curve::kCosine;
      schedule.warmup = config.cosine().warmup();
      schedule.final = config.cosine().final();
      break;
    case v1::ScheduleConfig::kWsd:
      schedule.curve = LrSchedule::Curve::kWsd;
      schedule.warmup = config.wsd().warmup();
      schedule.decay = config.wsd().decay();
      schedule.final = config.wsd().final();
      break;
    case v1::ScheduleConfig::CURVE_NOT_SET:
      break;
  }
  return schedule;
}

trainer::RouterRules RouterFromJob(const v1::RouterConfig& config) {
  trainer::RouterRules rules;
  if (config.has_auxiliary_loss()) rules.auxiliary_loss = config.auxiliary_loss();
  using Level = nn::RouterRecord::Level;
  if (config.auxiliary_level() == v1::AUXILIARY_LEVEL_SEQUENCE) rules.level = Level::kSequence;
  if (config.auxiliary_level() == v1::AUXILIARY_LEVEL_GLOBAL) rules.level = Level::kGlobal;
  rules.z_loss = config.z_loss();
  rules.bias_rate = config.bias_rate();
  rules.capacity = config.capacity_factor();
  rules.replay = config.replay();
  return rules;
}

}  // namespace

absl::StatusOr<trainer::TrainerSettings> SettingsFromJob(const v1::JobConfig& job,
                                                         const std::string& device) {
  trainer::TrainerSettings settings;
  settings.random_weights = !job.model().has_path();
  settings.model_path = ModelPathOf(job.model());
  if (settings.model_path.empty()) {
    return absl::InvalidArgumentError("model: names neither a path nor a config");
  }
  settings.trained = TrainedChoiceOf(job.model());
  if (const v1::GrpoConfig* rl = config::PolicyGradientOf(job); rl != nullptr && rl->critic().has_lora()) {
    settings.critic_trained = {.lora = LoraChoiceOf(rl->critic().lora()), .base = settings.trained.base};
  }
  settings.seed = job.seed();
  settings.device = device;
  settings.dtype = job.model().dtype();
  settings.max_length = job.model().max_length();
  const v1::TrainerConfig& config = job.trainer();
  settings.microbatch_tokens = config.microbatch_tokens();
  settings.recompute = config.recompute();
  settings.token_figures = job.retention().token_figures();
  settings.max_grad_norm = config.max_grad_norm();
  settings.adamw = {config.beta1(), config.beta2(), config.epsilon(), config.weight_decay(), job.seed()};
  settings.optimizer.narrow_moments = config.moments() == "bfloat16";
  settings.offload_as_needed = config.offload() == "auto";
  if (!settings.offload_as_needed && !absl::SimpleAtod(config.offload(), &settings.optimizer.offload)) {
    settings.optimizer.offload = 0;  // absent: jobs that did not come through the reader
  }
  settings.schedule = ScheduleFromJob(job);
  settings.router = RouterFromJob(config.router());
  settings.mtp_loss = config.mtp_loss();
  return settings;
}

}  // namespace rein::services
