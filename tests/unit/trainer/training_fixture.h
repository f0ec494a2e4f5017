// A tiny trainer and random completions, for tests of whole Updates.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "trainer/policy_trainer.h"

namespace rein::trainer {

TrainerSettings Settings();

std::unique_ptr<PolicyTrainer> Make(const TrainerSettings& settings, const Algorithm& algorithm);

// Random sequences of 1 to 9 targets, `siblings` behind the prompt of each of `groups`, without log-probs.
std::vector<TrainingSequence> RandomSequences(int groups, int siblings);

// The same with the trainer's own log-probs as those that sampled.
std::vector<TrainingSequence> OnPolicy(PolicyTrainer& trainer, int groups, int siblings);

// A test failure and NaN when there is no such metric.
double Find(const std::vector<Metric>& metrics, const std::string& name);

}  // namespace rein::trainer
