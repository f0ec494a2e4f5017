// Makes the TrainingBatch of one Update from the ledger, and the figures that describe it.

#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/controller.pb.h"
#include "rein/v1/trainer.pb.h"
#include "services/controller/decision.h"
#include "services/controller/ledger.h"
#include "services/controller/prompt_source.h"

namespace rein::services {

// Whether a completion's log-probs are of the policy's whole distribution: nothing filtered or penalised.
bool DrawsFromAll(const v1::GrpoConfig& rl);

struct TrainingBatch {
  std::vector<v1::TrainingSequence> sequences;
  std::vector<v1::Metric> metrics;  // reward, its parts, lengths, tokens, lag
};

struct RolloutBatchOptions {
  // The last sibling of each group is no part of the batch; its reward is the greedy_reward of the others.
  bool greedy_sibling = false;
  // The weights to be trained, where generators draw from their whole distribution; what they sampled alone is marked
  // on_policy.
  std::optional<Version> current;
  std::string environment;          // name of the reward that an environment gives, whose turns earn their own
  PromptSource* prompts = nullptr;  // tell where in a completion the steps end that a scorer has judged
};

// From stored rollouts; siblings that could not be scored are left out. `update` is the number that this batch makes.
absl::StatusOr<TrainingBatch> BatchOfRollouts(Ledger& ledger, const std::vector<uint64_t>& orders, uint64_t update,
                                              const RolloutBatchOptions& options = {});

// What a line of the data teaches, as sequences of group number `group`. `train_on_prompt`: prompts are targets too.
absl::StatusOr<std::vector<v1::TrainingSequence>> SequencesOfLine(PromptSource& prompts,
                                                                  uint64_t line, uint32_t group,
                                                                  bool train_on_prompt);

// From the answers of the data. `train_on_prompt`: prompts are targets too.
absl::StatusOr<TrainingBatch> BatchOfTexts(const Ledger& ledger, PromptSource& prompts,
                                           const std::vector<uint64_t>& orders,
                                           bool train_on_prompt);

}  // namespace rein::services
