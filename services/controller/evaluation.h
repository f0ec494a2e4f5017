// Evaluation scores held-out data once, under one version of the weights: every dataset with every way to sample, and
// the loss of its answers, or of what else its lines teach, where that is asked for.
//
// Its prompts are named 0, 1, ... like the groups of a ledger, but nothing of it is kept: after a
// crash it begins again. Not thread-safe.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/controller.pb.h"
#include "rein/v1/trainer.pb.h"
#include "services/controller/prompt_source.h"

namespace rein::services {

// One held-out dataset; `prompts` must outlive who uses it.
struct HeldOutData {
  std::string name;
  PromptSource* prompts = nullptr;
};

class Evaluation {
 public:
  // Reads every prompt that is to be completed. `update` is the number of the weights; `generates`: completions are
  // scored; `validates`: so are the answers of the first dataset, by their loss.
  static absl::StatusOr<Evaluation> Begin(const std::vector<HeldOutData>& data,
                                          const v1::JobConfig& job, uint64_t update, bool generates,
                                          bool validates);

  // One completion.
  struct Sample {
    std::optional<v1::Rollout> rollout;
    std::vector<v1::Message> prompt;  // that it answers
    std::optional<v1::RewardResult> result;
    std::string given_up;  // why it has no result; such a sample scores 0

    bool done() const { return result.has_value() || !given_up.empty(); }
  };
  // A prompt of a dataset, sampled in one way.
  struct Item {
    uint64_t slice = 0;
    uint64_t line = 0;  // of its dataset
    std::shared_ptr<const Prompt> prompt;
    std::vector<Sample> samples;

    bool done() const;
    bool generated() const;
    std::vector<uint32_t> MissingSamples() const;   // without a rollout, not given up
    std::vector<uint32_t> UnscoredSamples() const;  // with a rollout, not done
  };

  uint64_t update() const { return update_; }
  std::vector<Item>& items() { return items_; }
  const std::vector<Item>& items() const { return items_; }
  bool Done() const;

  // How the draws of an item are keyed: no training group has such a name.
  v1::GroupId GroupOf(uint64_t item) const;
  // Where its prompt comes from.
  PromptSource& SourceOf(uint64_t item) const { return *slices_.at(items_.at(item).slice).prompts; }
  // How an item is sampled.
  v1::SamplingParams SamplingOf(uint64_t item) const;

  // Where the loss is asked for: lines whose answers have not been scored, and what was found of some.
  bool validating() const { return validation_left_ > 0; }
  uint64_t next_line() const { return validation_lines_ - validation_left_; }
  void AddScores(uint64_t lines, const v1::ScorePolicyReply& scores);

  v1::EvalResult Result() const;

 private:
  struct Slice {
    std::string dataset;
    v1::EvalSampling sampling;
    PromptSource* prompts = nullptr;
  };

  Evaluation(const v1::JobConfig& job, uint64_t update) : job_(job), update_(update) {}

  v1::EvalSlice FiguresOf(uint64_t slice) const;
  void AddFigures(v1::EvalSlice& slice) const;

  v1::JobConfig job_;
  uint64_t update_;
  std::vector<Slice> slices_;
  std::vector<Item> items_;
  uint64_t validation_lines_ = 0, validation_left_ = 0;
  double loss_sum_ = 0;
  uint64_t loss_tokens_ = 0;
  std::map<std::string, double> figure_sums_;  // where lines are measured, each times its weight
  double figure_weight_ = 0;
};

// The ways to sample held-out prompts: that of `eval` itself, without a name, then the others; lengths filled in.
std::vector<v1::EvalSampling> EvalSettings(const v1::JobConfig& job);

// Whether the held-out loss has not fallen for `patience` evaluations in a row; 0: never.
bool OutOfPatience(const std::vector<v1::EvalResult>& evals, uint64_t patience);

}  // namespace rein::services
