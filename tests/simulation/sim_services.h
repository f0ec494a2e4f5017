// The four services as the simulation plays them: the state that a real one would hold, behind the
// same fences, with arithmetic instead of tensors. Weights are a hash of all that was trained on,
// so that two runs with equal weights have trained on equal batches in equal order.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/rpc/fence_guard.h"
#include "rein/v1/environment.pb.h"
#include "rein/v1/reference.pb.h"
#include "rein/v1/reward.pb.h"
#include "rein/v1/rollout.pb.h"
#include "rein/v1/trainer.pb.h"

namespace rein::simulation {

uint64_t Mix(uint64_t hash, uint64_t value);

// What outlives every process, and what the run must never do.
struct SimTruth {
  struct Checkpoint {
    uint64_t number = 0;
    uint64_t digest = 0;
  };
  std::map<std::string, Checkpoint> checkpoints;         // by path
  std::map<std::pair<uint64_t, uint64_t>, int> trained;  // (lineage, update) -> times
  std::map<uint64_t, uint64_t> batches;                  // update -> hash
  uint64_t updates_made = 0;
  uint64_t siblings_generated = 0;
  std::vector<std::string> violations;
};

// Weights of a process.
struct SimWeights {
  std::string job;
  bool loaded = false;
  bool has_version = false;
  v1::PolicyVersion version;
  uint64_t digest = 0;
};

class SimTrainerService {
 public:
  explicit SimTrainerService(SimTruth& truth) : truth_(truth) {}

  absl::StatusOr<v1::LoadTrainerReply> Load(const v1::LoadTrainerRequest& request);
  absl::StatusOr<v1::UpdateReply> Update(const v1::UpdateRequest& request);
  absl::StatusOr<v1::SaveReply> Save(const v1::SaveRequest& request);
  // Each target has a log-prob of -1 / (1 + number of the version, at most 2): a loss that falls, then stays.
  v1::ScorePolicyReply Score(const v1::ScorePolicyRequest& request) const;
  v1::TrainerStatusReply Status() const;
  const SimWeights& weights() const { return weights_; }

 private:
  SimTruth& truth_;
  SimWeights weights_;
  std::string loaded_id_;
  std::optional<v1::UpdateReply> last_reply_;
  std::map<std::string, v1::SaveReply> saved_;  // by request id
};

// A generator or a reference.
class SimModelService {
 public:
  absl::StatusOr<v1::LoadModelReply> Load(const v1::LoadModelRequest& request);
  // As WeightService does it: a version that is not newer is refused, a repeat is fine.
  std::string Take(const SimWeights& weights);
  v1::ActorStatusReply Status() const;
  const SimWeights& weights() const { return weights_; }

  // One sibling, a function of the weights and its name alone.
  v1::Rollout Generate(const v1::GenerateRequest& request, uint32_t sibling) const;
  absl::StatusOr<v1::ScoreTokensReply> Score(const v1::ScoreTokensRequest& request) const;

 private:
  SimWeights weights_;
};

// Prompts 3, 10, 17, ... have one sibling that nobody can score; prompts 5, 16, ... have none that
// can.
v1::ScoreRewardsReply ScoreRewards(const v1::ScoreRewardsRequest& request);

// Episodes have 1 to 3 turns by their seed; what is shown and earned depends on the seed, the turn and the text alone.
// Sibling 0 of prompts 4, 13, ... earns NaN.
v1::EnvironmentStepReply StepEpisode(const v1::EnvironmentResetRequest& begun, const v1::EnvironmentStepRequest& step);

}  // namespace rein::simulation
