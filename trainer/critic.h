// Critic estimates, for each target token, the reward still to come: the model of PPO's baseline, with its own
// weights and optimizer.
//
//   Create ( Values | Accumulate* Step )*
//
// The value of a target is read at the token before it. Not thread-safe; see ParameterSet for ranks.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "trainer/algorithms/algorithm.h"
#include "trainer/parameter_set.h"
#include "trainer/training_sequence.h"
#include "trainer/update_batch.h"

namespace rein::trainer {

struct CriticSums {
  // Afterwards every rank holds the sums of all. Every rank must call it.
  absl::Status ReduceOver(parallel::ProcessGroup& group);
  double ClippedShare() const { return tokens > 0 ? clipped / tokens : 0; }

  double loss = 0;     // sum over tokens of weight * loss
  double clipped = 0;  // tokens where the clipped value decides
  double tokens = 0;
};

// 1 - variance(return - value) / variance(return) over all targets: 1 for a critic that knows all, 0 for one
// that knows the mean.
double ExplainedVariance(const UpdateBatch& batch);

class Critic {
 public:
  // `source.scalar_head` is set.
  static absl::StatusOr<std::unique_ptr<Critic>> Create(const CriticSettings& settings,
                                                        const ParameterSource& source,
                                                        const std::string& device,
                                                        const std::string& dtype,
                                                        const OptimizerPlacement& placement,
                                                        parallel::ProcessGroup& group);

  // Values of the members' targets, at (*values)[member]. ABORTED names the first that is not finite.
  absl::Status Values(const std::vector<TrainingSequence>& sequences,
                      const std::vector<size_t>& members,
                      std::vector<std::vector<float>>* values) const;

  // Adds the gradients of one microbatch towards batch.returns.
  absl::Status Accumulate(const UpdateBatch& batch, const Algorithm& algorithm,
                          const std::vector<size_t>& members, bool recompute, CriticSums* sums);

  const CriticSettings& settings() const { return settings_; }
  ParameterSet& parameters() { return *parameters_; }
  const ParameterSet& parameters() const { return *parameters_; }

 private:
  Critic(CriticSettings settings, std::unique_ptr<ParameterSet> parameters)
      : settings_(std::move(settings)), parameters_(std::move(parameters)) {}

  CriticSettings settings_;
  std::unique_ptr<ParameterSet> parameters_;
};

}  // namespace rein::trainer
