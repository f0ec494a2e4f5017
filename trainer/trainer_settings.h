// How a PolicyTrainer trains, apart from the algorithm.

#pragma once

#include <cstdint>
#include <string>

#include "common/models/lora.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/lr_schedule.h"
#include "trainer/parameter_set.h"
#include "trainer/router_rules.h"

namespace rein::trainer {

struct TrainerSettings {
  std::string model_path;  // Hugging Face or PEFT adapter folder; or a config for random weights
  models::TrainedChoice trained;  // of the policy
  models::TrainedChoice critic_trained;
  bool random_weights = false;
  uint64_t seed = 1;
  std::string device = "cpu";  // cpu or cuda:N
  std::string dtype;           // float32 or bfloat16 of the compute arena; empty: by device
  int64_t max_length = 0;      // longest sequence; 0: the model's context
  int64_t microbatch_tokens = 8192;
  bool recompute = false;
  // Neighbours' common prompt is computed once, with the same gradients but for rounding, where the model allows it.
  bool share_prompts = true;
  bool token_figures = false;  // UpdateResult::figures are wanted, of algorithms that learn from what was sampled
  double max_grad_norm = 1;
  AdamWSettings adamw;
  OptimizerPlacement optimizer;
  bool offload_as_needed = false;  // optimizer.offload is then what the device lacks
  RouterRules router;
  double mtp_loss = 0;  // weight of the loss of multi-token prediction
  LrSchedule schedule;
};

}  // namespace rein::trainer
