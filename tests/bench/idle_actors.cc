// The actors of a job that compute nothing, in one process, over real gRPC: what a controller does beside them is
// the controller's own. Serves until SIGTERM or SIGINT, then prints one JSON line with the latency that the
// controller added between their answers and its next calls. controller_load.py runs it.
//
//   idle_actors --controller HOST:PORT [--seconds 2] [--tokens 256]

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "common/version/build_version.h"
#include "rein/v1/reward.grpc.pb.h"
#include "rein/v1/rollout.grpc.pb.h"
#include "rein/v1/trainer.grpc.pb.h"
#include "services/role/lease_client.h"
#include "tests/bench/percentile.h"
#include "tests/simulation/sim_services.h"

namespace rein {
namespace {

// Calls closures when they are due, on a thread of its own.
class Timer {
 public:
  ~Timer() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void At(absl::Time due, std::function<void()> call) {
    std::lock_guard<std::mutex> lock(mutex_);
    calls_.emplace(due, std::move(call));
    if (calls_.begin()->first == due) changed_.notify_all();
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stop_) {
      if (calls_.empty()) {
        changed_.wait(lock);
      } else if (absl::Time due = calls_.begin()->first; due > absl::Now()) {
        changed_.wait_for(lock, absl::ToChronoNanoseconds(due - absl::Now()));
      } else {
        auto call = std::move(calls_.extract(calls_.begin()).mapped());
        lock.unlock();
        call();
        lock.lock();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<absl::Time, std::function<void()>> calls_;
  bool stop_ = false;
  std::thread thread_{[this] { Run(); }};
};

// What the controller added: from an answer that gRPC took until the call that it made possible.
class Latencies {
 public:
  void Issued(size_t rollouts) {
    std::lock_guard<std::mutex> lock(mutex_);
    running_ += rollouts;
    most_ = std::max(most_, running_);
  }
  void Answered(const std::string& rollout) {
    std::lock_guard<std::mutex> lock(mutex_);
    answered_[rollout] = absl::Now();
    ++finished_;
    --running_;
  }
  // A group is scored once its last sibling has come.
  void Scoring(const std::vector<std::string>& rollouts) {
    std::lock_guard<std::mutex> lock(mutex_);
    absl::Time last = absl::InfinitePast();
    for (const std::string& rollout : rollouts) {
      last = std::max(last, answered_[rollout]);
      answered_.erase(rollout);
    }
    last_score_ = absl::Now();
    to_reward_.push_back(absl::ToDoubleMilliseconds(last_score_ - last));
  }
  void Training() {
    std::lock_guard<std::mutex> lock(mutex_);
    to_update_.push_back(absl::ToDoubleMilliseconds(absl::Now() - last_score_));
  }

  nlohmann::ordered_json Json() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {{"concurrent_rollouts", most_},
            {"rollouts", finished_},
            {"answer_to_reward_p50_ms", Percentile(to_reward_, 0.5)},
            {"answer_to_reward_p99_ms", Percentile(to_reward_, 0.99)},
            {"last_score_to_update_median_ms", Percentile(to_update_, 0.5)}};
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, absl::Time> answered_;
  std::vector<double> to_reward_, to_update_;
  absl::Time last_score_;
  size_t running_ = 0, finished_ = 0, most_ = 0;
};

// State that the roles share; the simulation's services are the arithmetic behind the doors.
struct Shared {
  double seconds = 2;  // mean time of a completion; each takes half to one and a half of it
  int tokens = 256;
  std::mutex mutex;
  simulation::SimTruth truth;
  simulation::SimTrainerService trainer{truth};
  simulation::SimModelService generator;
  std::mt19937 random{1};
  Latencies latencies;
  Timer timer;
};

class IdleTrainer final : public v1::TrainerService::Service {
 public:
  explicit IdleTrainer(Shared& shared) : shared_(shared) {}

  grpc::Status Load(grpc::ServerContext*, const v1::LoadTrainerRequest* request, v1::LoadTrainerReply* reply) override {
    std::lock_guard<std::mutex> lock(shared_.mutex);
    return rpc::Answer(shared_.trainer.Load(*request), reply);
  }
  grpc::Status Update(grpc::ServerContext*, const v1::UpdateRequest* request, v1::UpdateReply* reply) override {
    shared_.latencies.Training();
    std::lock_guard<std::mutex> lock(shared_.mutex);
    return rpc::Answer(shared_.trainer.Update(*request), reply);
  }
  grpc::Status Save(grpc::ServerContext*, const v1::SaveRequest* request, v1::SaveReply* reply) override {
    std::lock_guard<std::mutex> lock(shared_.mutex);
    return rpc::Answer(shared_.trainer.Save(*request), reply);
  }
  grpc::Status Publish(grpc::ServerContext*, const v1::PublishRequest* request, v1::PublishReply* reply) override {
    std::lock_guard<std::mutex> lock(shared_.mutex);
    for (const v1::WeightReceiver& receiver : request->receivers()) {
      v1::PublishOutcome* outcome = reply->add_outcomes();
      outcome->set_name(receiver.name());
      outcome->set_error(shared_.generator.Take(shared_.trainer.weights()));
    }
    return grpc::Status::OK;
  }
  grpc::Status Status(grpc::ServerContext*, const v1::TrainerStatusRequest*, v1::TrainerStatusReply* reply) override {
    std::lock_guard<std::mutex> lock(shared_.mutex);
    *reply = shared_.trainer.Status();
    return grpc::Status::OK;
  }

 private:
  Shared& shared_;
};

// Writes each sibling when it is due. Deletes itself.
class TimedStream final : public grpc::ServerWriteReactor<v1::GenerateReply> {
 public:
  TimedStream(Shared& shared, const v1::GenerateRequest& request) : shared_(shared), left_(request.siblings_size()) {
    shared.latencies.Issued(static_cast<size_t>(left_));
    const absl::Time now = absl::Now();
    std::lock_guard<std::mutex> lock(shared.mutex);
    for (uint32_t sibling : request.siblings()) {
      v1::GenerateReply reply;
      *reply.mutable_rollout() = shared.generator.Generate(request, sibling);
      v1::Completion& completion = *reply.mutable_rollout()->mutable_completion();
      while (completion.token_ids_size() < shared.tokens) {
        completion.add_token_ids(static_cast<uint32_t>(completion.token_ids_size() % 20));
        completion.add_behaviour_logprobs(-0.25f);
      }
      completion.set_text(absl::StrCat(request.group().data_epoch(), "/", request.group().prompt(), "/",
                                       request.group().attempt(), "/", sibling));  // its name
      completion.mutable_versions(0)->set_tokens(static_cast<uint32_t>(completion.token_ids_size()));
      double share = std::uniform_real_distribution<double>(0.5, 1.5)(shared.random);
      shared.timer.At(now + absl::Seconds(shared.seconds * share), [this, reply] { Add(reply); });
    }
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock<std::mutex> lock(mutex_);
    if (ok) shared_.latencies.Answered(queue_.front().rollout().completion().text());
    queue_.pop_front();
    writing_ = false;
    Continue(lock);
  }
  void OnDone() override { delete this; }

 private:
  void Add(const v1::GenerateReply& reply) {
    std::unique_lock<std::mutex> lock(mutex_);
    queue_.push_back(reply);
    --left_;
    Continue(lock);
  }
  void Continue(std::unique_lock<std::mutex>& lock) {
    if (writing_) return;
    if (!queue_.empty()) {
      writing_ = true;
      const v1::GenerateReply* next = &queue_.front();
      lock.unlock();
      StartWrite(next);
    } else if (left_ == 0) {
      lock.unlock();
      Finish(grpc::Status::OK);
    }
  }

  Shared& shared_;
  std::mutex mutex_;
  std::deque<v1::GenerateReply> queue_;  // the front is being written
  int left_;                             // not due yet
  bool writing_ = false;
};

class IdleGenerator final : public v1::RolloutService::WithCallbackMethod_Generate<v1::RolloutService::Service> {
 public:
  explicit IdleGenerator(Shared& shared) : shared_(shared) {}

  grpc::Status Load(grpc::ServerContext*, const v1::LoadModelRequest* request, v1::LoadModelReply* reply) override {
    std::lock_guard<std::mutex> lock(shared_.mutex);
    return rpc::Answer(shared_.generator.Load(*request), reply);
  }
  grpc::ServerWriteReactor<v1::GenerateReply>* Generate(grpc::CallbackServerContext*,
                                                        const v1::GenerateRequest* request) override {
    return new TimedStream(shared_, *request);
  }
  grpc::Status Status(grpc::ServerContext*, const v1::ActorStatusRequest*, v1::ActorStatusReply* reply) override {
    std::lock_guard<std::mutex> lock(shared_.mutex);
    *reply = shared_.generator.Status();
    return grpc::Status::OK;
  }

 private:
  Shared& shared_;
};

class IdleRewarder final : public v1::RewardService::Service {
 public:
  explicit IdleRewarder(Shared& shared) : shared_(shared) {}

  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRewardsRequest* request,
                     v1::ScoreRewardsReply* reply) override {
    std::vector<std::string> names;
    for (const v1::RewardItem& item : request->items()) {
      names.push_back(item.completion().text());
      reply->add_results()->set_reward(item.id().back() % 2);  // groups with signal
    }
    shared_.latencies.Scoring(names);
    return grpc::Status::OK;
  }

 private:
  Shared& shared_;
};

int Run(Shared& shared, const std::string& controller) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  IdleTrainer trainer(shared);
  IdleGenerator generator(shared);
  IdleRewarder rewarder(shared);
  auto server = rpc::Server::Create({.address = "127.0.0.1:0"}, {&trainer, &generator, &rewarder});
  if (!server.ok()) return std::cerr << server.status() << "\n", 1;
  sync::RealClock clock;
  auto log = telemetry::Log::Create({});
  if (!log.ok()) return std::cerr << log.status() << "\n", 1;
  std::deque<rpc::FenceGuard> guards;
  std::vector<std::unique_ptr<services::LeaseClient>> leases;
  for (const char* role : {"trainer", "rollout", "reward"}) {
    services::LeaseOptions options{.controller = controller};
    options.identity.set_role(role);
    options.identity.set_name(absl::StrCat(role, "-0"));
    options.identity.set_address((*server)->address());
    *options.identity.mutable_build() = version::ThisBuild();
    options.report = [] { return services::ActorReport{}; };
    leases.push_back(services::LeaseClient::Start(std::move(options), guards.emplace_back(clock), clock, **log));
  }
  int signal = 0;
  sigwait(&stop, &signal);
  std::cout << shared.latencies.Json() << "\n";
  return 0;
}

}  // namespace
}  // namespace rein

int main(int argc, char** argv) {
  rein::Shared shared;
  std::string controller;
  CLI::App app("Serves every role of a job without computing anything");
  app.add_option("--controller", controller, "host:port")->required();
  app.add_option("--seconds", shared.seconds, "Mean time of a completion");
  app.add_option("--tokens", shared.tokens, "Tokens of a completion");
  CLI11_PARSE(app, argc, argv);
  return rein::Run(shared, controller);
}
