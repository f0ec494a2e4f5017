// RewardModel is a trained reward model that scores finished conversations.
//
//   REIN_ASSIGN_OR_RETURN(auto model, RewardModel::Open(config.model(), "cuda:0"));
//   std::vector<absl::StatusOr<double>> scores = model->Score(items);
//
// Calls that come while another one computes wait together and are computed as one batch. Thread-safe.

#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/data/prompt_encoder.h"
#include "common/policy/opened_model.h"
#include "common/policy/sequence_scorer.h"
#include "rein/v1/job.pb.h"
#include "rein/v1/reward.pb.h"

namespace rein::services {

class RewardModel {
 public:
  // Loads the folder; `device` is cpu or cuda:N. INVALID_ARGUMENT when it is no reward model or has no tokenizer,
  // else as policy::OpenModel().
  static absl::StatusOr<std::unique_ptr<RewardModel>> Open(const v1::ModelReward& config,
                                                           const std::string& device);

  // One result for each item, in order: the score of the last token of its prompt and completion, written as training
  // wrote them; of a model of steps, what their scores come to. An item that does not fit the model has its own error.
  std::vector<absl::StatusOr<v1::RewardResult>> Score(const std::vector<v1::RewardItem>& items);

  uint64_t parameters() const { return static_cast<uint64_t>(model_.slots->registry().parameter_count()); }

 private:
  // One call that waits for its scores.
  struct Waiting {
    std::vector<policy::ScoredSequence> sequences;
    std::vector<std::vector<uint32_t>> places;  // whose scores are wanted
    absl::StatusOr<std::vector<std::vector<float>>> scores = absl::UnknownError("not computed");
    bool done = false;
  };
  // An item as the model reads it.
  struct Encoded {
    policy::ScoredSequence sequence;
    std::vector<uint32_t> places;  // tokens where it is read
    std::vector<uint32_t> ends;    // of a model of steps: bytes of the completion up to the end of each
  };

  RewardModel(policy::OpenedModel model, const v1::ModelReward& config);

  absl::StatusOr<Encoded> Encode(const v1::RewardItem& item) const;
  void Compute(std::vector<std::shared_ptr<Waiting>> calls);

  policy::OpenedModel model_;
  const v1::ModelReward config_;
  const data::PromptEncoder encoder_;
  std::mutex waiting_mutex_;
  std::deque<std::shared_ptr<Waiting>> waiting_;
  std::mutex forward_mutex_;  // held by a forward pass
};

}  // namespace rein::services
