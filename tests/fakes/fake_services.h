// FakeServices are the four services behind a run loop, without network or time: each answer is
// ready at once and handed over by Pump(). A test replaces the answers that it is about.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/controller/actor_pool.h"
#include "tests/simulation/sim_services.h"

namespace rein::fakes {

class FakeServices final : public services::ActorConnector {
 public:
  FakeServices() : trainer_service(truth) {}

  // Set: answers instead of the service; OK lets the service answer.
  std::function<absl::Status(const v1::UpdateRequest&)> on_update;
  std::function<absl::Status(const v1::SaveRequest&)> on_save;
  std::function<absl::Status(const v1::LoadTrainerRequest&)> on_load;
  std::function<absl::Status(const v1::LoadModelRequest&)> on_load_model;
  std::function<absl::Status(const v1::GenerateRequest&)> on_generate;
  std::function<absl::Status(const v1::ScoreRewardsRequest&)> on_score;
  std::function<absl::Status(const v1::ScoreTokensRequest&)> on_reference;
  std::function<void(const v1::LoadModelRequest&)> on_load_reference;  // looks
  // Answers of environments; unset: the simulated one's.
  std::function<absl::StatusOr<v1::EnvironmentResetReply>(const v1::EnvironmentResetRequest&)> on_reset;
  std::function<absl::StatusOr<v1::EnvironmentStepReply>(const v1::EnvironmentStepRequest&)> on_step;
  std::vector<std::string> closed;        // episodes
  std::vector<std::string> environments;  // addresses that were connected to
  std::map<std::string, v1::EnvironmentResetRequest> episodes;
  std::function<void(v1::Rollout&)> on_rollout;  // changes what was generated
  std::function<bool(const v1::GenerateRequest&)> holds;  // true: its answers wait for Release()
  std::vector<v1::GroupId> aborted;
  std::function<void(const v1::PublishRequest&)> on_publish;  // looks

  simulation::SimTruth truth;
  simulation::SimTrainerService trainer_service;
  simulation::SimModelService generator_service, reference_service;
  int publishes = 0;
  v1::JobConfig loaded_job;

  // Hands over what has been answered, at most so much of it; false when there was nothing.
  bool Pump(size_t most = SIZE_MAX) {
    std::deque<std::function<void()>> answers;
    if (answers_.size() <= most) {
      answers.swap(answers_);
    } else {
      auto end = answers_.begin() + static_cast<std::ptrdiff_t>(most);
      answers.assign(std::make_move_iterator(answers_.begin()), std::make_move_iterator(end));
      answers_.erase(answers_.begin(), end);
    }
    for (auto& answer : answers) answer();
    return !answers.empty();
  }
  size_t waiting() const { return answers_.size(); }
  void Later(std::function<void()> answer) { answers_.push_back(std::move(answer)); }
  void Hold(std::function<void()> answer) { held_.push_back(std::move(answer)); }
  // Hands what `holds` has held back to Pump().
  void Release() {
    holds = nullptr;
    for (auto& answer : std::exchange(held_, {})) Later(std::move(answer));
  }

  std::unique_ptr<services::Trainer> ConnectTrainer(const v1::Actor&) override;
  std::unique_ptr<services::Generator> ConnectGenerator(const v1::Actor&) override;
  std::unique_ptr<services::Reference> ConnectReference(const v1::Actor&) override;
  std::unique_ptr<services::Rewarder> ConnectRewarder(const v1::Actor&) override;
  std::unique_ptr<services::EnvironmentClient> ConnectEnvironment(const std::string& address) override;

 private:
  std::deque<std::function<void()>> answers_;
  std::vector<std::function<void()>> held_;
};

}  // namespace rein::fakes
