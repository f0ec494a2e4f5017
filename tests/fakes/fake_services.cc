#include "tests/fakes/fake_services.h"

namespace rein::fakes {
namespace {

template <typename Request>
absl::Status Ask(const std::function<absl::Status(const Request&)>& hook, const Request& request) {
  return hook ? hook(request) : absl::OkStatus();
}

// A connection: as with the real ones, who closes it is not called any more.
class Connection {
 public:
  explicit Connection(FakeServices& fakes) : fakes_(fakes) {}

 protected:
  std::function<void()> WhileOpen(std::function<void()> answer) {
    return [open = std::weak_ptr<bool>(open_), answer = std::move(answer)] {
      if (!open.expired()) answer();
    };
  }
  void Later(std::function<void()> answer) { fakes_.Later(WhileOpen(std::move(answer))); }

  FakeServices& fakes_;

 private:
  const std::shared_ptr<bool> open_ = std::make_shared<bool>(true);
};

class FakeTrainer final : public services::Trainer, private Connection {
 public:
  using Connection::Connection;

  void Load(const v1::LoadTrainerRequest& request, absl::Duration,
            rpc::Done<v1::LoadTrainerReply> done) override {
    fakes_.loaded_job = request.job();
    absl::Status status = Ask(fakes_.on_load, request);
    Answer(status, [&] { return fakes_.trainer_service.Load(request); }, std::move(done));
  }
  void Update(const v1::UpdateRequest& request, absl::Duration,
              rpc::Done<v1::UpdateReply> done) override {
    absl::Status status = Ask(fakes_.on_update, request);
    Answer(status, [&] { return fakes_.trainer_service.Update(request); }, std::move(done));
  }
  void Save(const v1::SaveRequest& request, absl::Duration,
            rpc::Done<v1::SaveReply> done) override {
    absl::Status status = Ask(fakes_.on_save, request);
    Answer(status, [&] { return fakes_.trainer_service.Save(request); }, std::move(done));
  }
  void Score(const v1::ScorePolicyRequest& request, absl::Duration,
             rpc::Done<v1::ScorePolicyReply> done) override {
    v1::ScorePolicyReply reply = fakes_.trainer_service.Score(request);
    Later([reply, done] { done(reply); });
  }
  void Status(absl::Duration, rpc::Done<v1::TrainerStatusReply> done) override {
    v1::TrainerStatusReply reply = fakes_.trainer_service.Status();
    Later([reply, done] { done(reply); });
  }
  void Publish(const v1::PublishRequest& request, absl::Duration,
               rpc::Done<v1::PublishReply> done) override {
    ++fakes_.publishes;
    if (fakes_.on_publish) fakes_.on_publish(request);
    v1::PublishReply reply;
    for (const v1::WeightReceiver& receiver : request.receivers()) {
      bool reference = receiver.name().rfind("reference", 0) == 0;
      auto& service = reference ? fakes_.reference_service : fakes_.generator_service;
      v1::PublishOutcome* outcome = reply.add_outcomes();
      outcome->set_name(receiver.name());
      outcome->set_error(service.Take(fakes_.trainer_service.weights()));
    }
    Later([reply, done] { done(reply); });
  }

 private:
  template <typename Reply>
  void Answer(const absl::Status& status, const std::function<absl::StatusOr<Reply>()>& serve,
              rpc::Done<Reply> done) {
    absl::StatusOr<Reply> reply = status.ok() ? serve() : status;
    Later([reply, done] { done(reply); });
  }
  template <typename Serve, typename Reply>
  void Answer(const absl::Status& status, Serve serve, rpc::Done<Reply> done) {
    Answer<Reply>(status, std::function<absl::StatusOr<Reply>()>(serve), std::move(done));
  }
};

class FakeGenerator final : public services::Generator, private Connection {
 public:
  using Connection::Connection;

  void Load(const v1::LoadModelRequest& request, absl::Duration,
            rpc::Done<v1::LoadModelReply> done) override {
    absl::Status status = Ask(fakes_.on_load_model, request);
    auto reply = fakes_.generator_service.Load(request);
    if (!status.ok()) reply = status;
    Later([reply, done] { done(reply); });
  }
  void Generate(const v1::GenerateRequest& request, absl::Duration,
                std::function<void(v1::Rollout)> on_rollout,
                std::function<void(absl::Status)> done) override {
    absl::Status status = Ask(fakes_.on_generate, request);
    const bool held = fakes_.holds && fakes_.holds(request);
    auto answer = [&](std::function<void()> call) { held ? fakes_.Hold(WhileOpen(std::move(call))) : Later(std::move(call)); };
    for (uint32_t sibling : request.siblings()) {
      if (!status.ok()) break;
      v1::Rollout rollout = fakes_.generator_service.Generate(request, sibling);
      if (fakes_.on_rollout) fakes_.on_rollout(rollout);
      answer([rollout, on_rollout] { on_rollout(rollout); });
    }
    answer([status, done] { done(status); });
  }
  void Abort(const v1::AbortGenerateRequest& request, absl::Duration,
             rpc::Done<v1::AbortGenerateReply> done) override {
    fakes_.aborted.insert(fakes_.aborted.end(), request.groups().begin(), request.groups().end());
    Later([done] { done(v1::AbortGenerateReply()); });
  }
  void Status(absl::Duration, rpc::Done<v1::ActorStatusReply> done) override {
    v1::ActorStatusReply reply = fakes_.generator_service.Status();
    Later([reply, done] { done(reply); });
  }
};

class FakeReference final : public services::Reference, private Connection {
 public:
  using Connection::Connection;

  void Load(const v1::LoadModelRequest& request, absl::Duration,
            rpc::Done<v1::LoadModelReply> done) override {
    if (fakes_.on_load_reference) fakes_.on_load_reference(request);
    auto reply = fakes_.reference_service.Load(request);
    Later([reply, done] { done(reply); });
  }
  void Score(const v1::ScoreTokensRequest& request, absl::Duration,
             rpc::Done<v1::ScoreTokensReply> done) override {
    absl::StatusOr<v1::ScoreTokensReply> reply = fakes_.reference_service.Score(request);
    if (absl::Status status = Ask(fakes_.on_reference, request); !status.ok()) reply = status;
    Later([reply, done] { done(reply); });
  }
  void Status(absl::Duration, rpc::Done<v1::ActorStatusReply> done) override {
    v1::ActorStatusReply reply = fakes_.reference_service.Status();
    Later([reply, done] { done(reply); });
  }
};

class FakeRewarder final : public services::Rewarder, private Connection {
 public:
  using Connection::Connection;

  void Score(const v1::ScoreRewardsRequest& request, absl::Duration,
             rpc::Done<v1::ScoreRewardsReply> done) override {
    absl::Status status = Ask(fakes_.on_score, request);
    absl::StatusOr<v1::ScoreRewardsReply> reply = simulation::ScoreRewards(request);
    if (!status.ok()) reply = status;
    Later([reply, done] { done(reply); });
  }
};

class FakeEnvironment final : public services::EnvironmentClient, private Connection {
 public:
  using Connection::Connection;

  void Reset(const v1::EnvironmentResetRequest& request, absl::Duration,
             rpc::Done<v1::EnvironmentResetReply> done) override {
    fakes_.episodes[request.episode()] = request;
    absl::StatusOr<v1::EnvironmentResetReply> reply = v1::EnvironmentResetReply();
    if (fakes_.on_reset) reply = fakes_.on_reset(request);
    Later([reply, done] { done(reply); });
  }
  void Step(const v1::EnvironmentStepRequest& request, absl::Duration,
            rpc::Done<v1::EnvironmentStepReply> done) override {
    absl::StatusOr<v1::EnvironmentStepReply> reply =
        fakes_.on_step ? fakes_.on_step(request) : simulation::StepEpisode(fakes_.episodes[request.episode()], request);
    Later([reply, done] { done(reply); });
  }
  void Close(const v1::EnvironmentCloseRequest& request, absl::Duration) override {
    fakes_.closed.push_back(request.episode());
  }
};

}  // namespace

std::unique_ptr<services::EnvironmentClient> FakeServices::ConnectEnvironment(const std::string& address) {
  environments.push_back(address);
  return std::make_unique<FakeEnvironment>(*this);
}

std::unique_ptr<services::Trainer> FakeServices::ConnectTrainer(const v1::Actor&) {
  return std::make_unique<FakeTrainer>(*this);
}

std::unique_ptr<services::Generator> FakeServices::ConnectGenerator(const v1::Actor&) {
  return std::make_unique<FakeGenerator>(*this);
}

std::unique_ptr<services::Reference> FakeServices::ConnectReference(const v1::Actor&) {
  return std::make_unique<FakeReference>(*this);
}

std::unique_ptr<services::Rewarder> FakeServices::ConnectRewarder(const v1::Actor&) {
  return std::make_unique<FakeRewarder>(*this);
}

}  // namespace rein::fakes
