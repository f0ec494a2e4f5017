// The network of a simulation: calls that are delayed, lost, repeated, answered twice or cut off.

#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "services/controller/actor_pool.h"
#include "tests/simulation/sim_world.h"

namespace rein::simulation {
namespace {

using services::Generator;
using services::Reference;
using services::Rewarder;
using services::Trainer;

constexpr absl::Duration kRetryAfter = absl::Seconds(3);

// One connection: the calls on it end when it is dropped.
class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(SimWorld& world, std::string name) : world_(world), name_(std::move(name)) {}

  void Drop() { dropped_ = true; }
  SimWorld& world() { return world_; }
  SimProcess& process() { return world_.process(name_); }

  // As the real client: the call is sent again until an answer comes.
  template <typename Reply>
  void Call(absl::Duration work, rpc::Done<Reply> done,
            std::function<absl::StatusOr<Reply>(SimProcess&)> serve) {
    auto call = std::make_shared<Pending<Reply>>();
    call->done = std::move(done);
    call->serve = std::move(serve);
    Try(work, call);
  }

  // Plays `event` at the process when it is there and awake; `gone` when it is not.
  void Deliver(absl::Duration delay, uint64_t life, std::function<void(SimProcess&)> event) {
    world_.queue().After(delay, [self = shared_from_this(), life, event = std::move(event)] {
      SimProcess& process = self->process();
      if (!process.alive || process.life != life) return;
      absl::Duration frozen = process.frozen_until - self->Now();
      if (frozen > absl::ZeroDuration()) return self->Deliver(frozen, life, event);
      event(process);
    });
  }

  // Plays `event` at the controller, unless the connection was dropped.
  void Return(absl::Duration delay, std::function<void()> event) {
    world_.queue().After(delay, [self = shared_from_this(), event = std::move(event)] {
      if (!self->dropped_) event();
    });
  }

  absl::Time Now() { return world_.now(); }
  bool dropped() const { return dropped_; }

 private:
  template <typename Reply>
  struct Pending {
    rpc::Done<Reply> done;
    std::function<absl::StatusOr<Reply>(SimProcess&)> serve;
    bool answered = false;
  };

  template <typename Reply>
  void Try(absl::Duration work, const std::shared_ptr<Pending<Reply>>& call) {
    if (dropped_ || call->answered) return;
    int copies = world_.Loses() ? 0 : 1;
    if (copies == 1 && world_.random().Chance(0.03)) copies = 2;
    for (int i = 0; i < copies; ++i) {
      Deliver(world_.Delay(), process().life, [this, work, call](SimProcess& process) {
        // The state changes when the work is done; a process that dies before has done nothing.
        Deliver(work, process.life, [this, call](SimProcess& worker) {
          absl::StatusOr<Reply> reply = call->serve(worker);
          if (world_.Loses()) return;
          Return(world_.Delay(), [call, reply] {
            if (std::exchange(call->answered, true)) return;
            call->done(reply);
          });
        });
      });
    }
    Return(work * 2 + kRetryAfter,
           [self = shared_from_this(), work, call] { self->Try(work, call); });
  }

  SimWorld& world_;
  const std::string name_;
  bool dropped_ = false;
};

template <typename Interface>
class Linked : public Interface {
 public:
  Linked(SimWorld& world, const std::string& name) : link_(std::make_shared<Link>(world, name)) {}
  ~Linked() override { link_->Drop(); }

 protected:
  absl::Duration Work(double low_seconds, double high_seconds) {
    return link_->world().random().Between(absl::Seconds(low_seconds), absl::Seconds(high_seconds));
  }

  template <typename Request, typename Reply>
  void Fenced(const Request& request, absl::Duration work, rpc::Done<Reply> done,
              std::function<absl::StatusOr<Reply>(SimProcess&)> serve) {
    link_->template Call<Reply>(work, std::move(done),
                                [fence = request.fence(),
                                 serve = std::move(serve)](SimProcess& p) -> absl::StatusOr<Reply> {
                                  absl::Status admitted = p.guard->Admit(fence);
                                  if (!admitted.ok()) return admitted;
                                  return serve(p);
                                });
  }

  std::shared_ptr<Link> link_;
};

class SimTrainer final : public Linked<Trainer> {
 public:
  using Linked::Linked;

  void Load(const v1::LoadTrainerRequest& request, absl::Duration,
            rpc::Done<v1::LoadTrainerReply> done) override {
    Fenced<v1::LoadTrainerRequest, v1::LoadTrainerReply>(
        request, Work(1, 3), std::move(done),
        [request](SimProcess& p) { return p.trainer->Load(request); });
  }
  void Update(const v1::UpdateRequest& request, absl::Duration,
              rpc::Done<v1::UpdateReply> done) override {
    Fenced<v1::UpdateRequest, v1::UpdateReply>(
        request, Work(0.5, 2), std::move(done),
        [request](SimProcess& p) { return p.trainer->Update(request); });
  }
  void Save(const v1::SaveRequest& request, absl::Duration,
            rpc::Done<v1::SaveReply> done) override {
    Fenced<v1::SaveRequest, v1::SaveReply>(
        request, Work(0.2, 1), std::move(done),
        [request](SimProcess& p) { return p.trainer->Save(request); });
  }
  void Score(const v1::ScorePolicyRequest& request, absl::Duration,
             rpc::Done<v1::ScorePolicyReply> done) override {
    link_->Call<v1::ScorePolicyReply>(
        absl::ZeroDuration(), std::move(done),
        [request](SimProcess& p) -> absl::StatusOr<v1::ScorePolicyReply> {
          return p.trainer->Score(request);
        });
  }
  void Status(absl::Duration, rpc::Done<v1::TrainerStatusReply> done) override {
    link_->Call<v1::TrainerStatusReply>(
        absl::ZeroDuration(), std::move(done),
        [](SimProcess& p) -> absl::StatusOr<v1::TrainerStatusReply> {
          return p.trainer->Status();
        });
  }
  void Publish(const v1::PublishRequest& request, absl::Duration,
               rpc::Done<v1::PublishReply> done) override {
    Fenced<v1::PublishRequest, v1::PublishReply>(
        request, Work(0.1, 0.5), std::move(done),
        [request, link = link_](SimProcess& p) { return PublishFrom(p, request, *link); });
  }

 private:
  static absl::StatusOr<v1::PublishReply> PublishFrom(SimProcess& trainer,
                                                      const v1::PublishRequest& request,
                                                      Link& link) {
    const SimWeights& weights = trainer.trainer->weights();
    if (weights.version.SerializeAsString() != request.version().SerializeAsString()) {
      return absl::FailedPreconditionError("another version is loaded");
    }
    v1::PublishReply reply;
    int taken = 0;
    *reply.mutable_version() = weights.version;
    for (const v1::WeightReceiver& receiver : request.receivers()) {
      SimProcess& process = link.world().process(receiver.name());
      v1::Fence fence = request.fence();
      fence.set_actor_epoch(receiver.actor_epoch());
      std::string error;
      bool awake = process.alive && process.frozen_until <= link.Now();
      if (!awake || link.world().random().Chance(link.world().options().faults ? 0.05 : 0)) {
        error = "no answer";
      } else if (absl::Status admitted = process.guard->Admit(fence); !admitted.ok()) {
        error = std::string(admitted.message());
      } else {
        error = process.model->Take(weights);
      }
      v1::PublishOutcome* outcome = reply.add_outcomes();
      outcome->set_name(receiver.name());
      outcome->set_error(error);
      taken += error.empty() ? 1 : 0;
    }
    if (taken == 0) return absl::UnavailableError("no receiver took the weights");
    return reply;
  }
};

class SimGenerator final : public Linked<Generator> {
 public:
  using Linked::Linked;

  void Load(const v1::LoadModelRequest& request, absl::Duration,
            rpc::Done<v1::LoadModelReply> done) override {
    Fenced<v1::LoadModelRequest, v1::LoadModelReply>(
        request, Work(0.5, 2), std::move(done),
        [request](SimProcess& p) { return p.model->Load(request); });
  }
  void Status(absl::Duration, rpc::Done<v1::ActorStatusReply> done) override {
    link_->Call<v1::ActorStatusReply>(
        absl::ZeroDuration(), std::move(done),
        [](SimProcess& p) -> absl::StatusOr<v1::ActorStatusReply> { return p.model->Status(); });
  }
  void Abort(const v1::AbortGenerateRequest&, absl::Duration,
             rpc::Done<v1::AbortGenerateReply>) override {}

  void Generate(const v1::GenerateRequest& request, absl::Duration,
                std::function<void(v1::Rollout)> on_rollout,
                std::function<void(absl::Status)> done) override {
    SimWorld& world = link_->world();
    world.CheckGenerate(link_->process().group, request);
    auto stream = std::make_shared<Stream>();
    stream->request = request;
    stream->on_rollout = std::move(on_rollout);
    stream->done = std::move(done);
    // gRPC tells the caller when the peer is gone; here a timer does.
    link_->Return(absl::Seconds(25),
                  [stream] { End(*stream, absl::UnavailableError("peer is gone")); });
    if (world.Loses()) return;
    link_->Deliver(world.Delay(), link_->process().life,
                   [stream, link = link_](SimProcess& process) {
                     absl::Status admitted = process.guard->Admit(stream->request.fence());
                     if (admitted.ok() && !process.model->weights().has_version) {
                       admitted = absl::FailedPreconditionError("no weights have come");
                     }
                     if (!admitted.ok()) {
                       return link->Return(link->world().Delay(),
                                           [stream, admitted] { End(*stream, admitted); });
                     }
                     Produce(stream, link, 0, process.life);
                   });
  }

 private:
  struct Stream {
    v1::GenerateRequest request;
    std::function<void(v1::Rollout)> on_rollout;
    std::function<void(absl::Status)> done;
    bool ended = false;
  };

  static void End(Stream& stream, const absl::Status& status) {
    if (std::exchange(stream.ended, true)) return;
    stream.done(status);
  }

  static void Produce(const std::shared_ptr<Stream>& stream, const std::shared_ptr<Link>& link,
                      int index, uint64_t life) {
    SimWorld& world = link->world();
    absl::Duration work = world.random().Between(absl::Milliseconds(100), absl::Seconds(1));
    link->Deliver(work, life, [stream, link, index, life](SimProcess& process) {
      SimWorld& world = link->world();
      if (link->dropped()) return;  // the server sees that its caller is gone
      if (index == stream->request.siblings_size()) {
        return link->Return(absl::Milliseconds(30), [stream] { End(*stream, absl::OkStatus()); });
      }
      ++world.truth_of(process.group).siblings_generated;
      v1::Rollout rollout =
          process.model->Generate(stream->request, stream->request.siblings(index));
      int copies = world.random().Chance(0.05) ? 2 : 1;
      for (int i = 0; i < copies; ++i) {
        link->Return(absl::Milliseconds(10), [stream, rollout] {
          if (!stream->ended) stream->on_rollout(rollout);
        });
      }
      if (world.Loses()) return;  // the stream breaks: the caller's timer ends it
      Produce(stream, link, index + 1, life);
    });
  }
};

class SimReference final : public Linked<Reference> {
 public:
  using Linked::Linked;

  void Load(const v1::LoadModelRequest& request, absl::Duration,
            rpc::Done<v1::LoadModelReply> done) override {
    Fenced<v1::LoadModelRequest, v1::LoadModelReply>(
        request, Work(0.5, 2), std::move(done),
        [request](SimProcess& p) { return p.model->Load(request); });
  }
  void Score(const v1::ScoreTokensRequest& request, absl::Duration,
             rpc::Done<v1::ScoreTokensReply> done) override {
    Fenced<v1::ScoreTokensRequest, v1::ScoreTokensReply>(
        request, Work(0.1, 0.5), std::move(done),
        [request](SimProcess& p) { return p.model->Score(request); });
  }
  void Status(absl::Duration, rpc::Done<v1::ActorStatusReply> done) override {
    link_->Call<v1::ActorStatusReply>(
        absl::ZeroDuration(), std::move(done),
        [](SimProcess& p) -> absl::StatusOr<v1::ActorStatusReply> { return p.model->Status(); });
  }
};

class SimRewarder final : public Linked<Rewarder> {
 public:
  using Linked::Linked;

  void Score(const v1::ScoreRewardsRequest& request, absl::Duration,
             rpc::Done<v1::ScoreRewardsReply> done) override {
    link_->Call<v1::ScoreRewardsReply>(
        Work(0.01, 0.3), std::move(done),
        [request](SimProcess&) -> absl::StatusOr<v1::ScoreRewardsReply> {
          return ScoreRewards(request);
        });
  }
};

// Has no lease and no fence: a user's process. Its episodes are gone when it dies.
class SimEnvironment final : public Linked<services::EnvironmentClient> {
 public:
  using Linked::Linked;

  void Reset(const v1::EnvironmentResetRequest& request, absl::Duration deadline,
             rpc::Done<v1::EnvironmentResetReply> done) override {
    Within<v1::EnvironmentResetReply>(
        deadline, std::move(done), [request](SimProcess& p) -> absl::StatusOr<v1::EnvironmentResetReply> {
          p.episodes[request.episode()] = request;
          v1::EnvironmentResetReply reply;
          if (request.seed() % 2 == 0) {
            v1::Message* message = reply.add_messages();
            message->set_role("user");
            message->set_content("begin");
          }
          return reply;
        });
  }
  void Step(const v1::EnvironmentStepRequest& request, absl::Duration deadline,
            rpc::Done<v1::EnvironmentStepReply> done) override {
    Within<v1::EnvironmentStepReply>(
        deadline, std::move(done), [request](SimProcess& p) -> absl::StatusOr<v1::EnvironmentStepReply> {
          auto found = p.episodes.find(request.episode());
          if (found == p.episodes.end()) return absl::NotFoundError("there is no such episode");
          return StepEpisode(found->second, request);
        });
  }
  void Close(const v1::EnvironmentCloseRequest& request, absl::Duration) override {
    link_->Deliver(absl::Milliseconds(10), link_->process().life,
                   [id = request.episode()](SimProcess& p) { p.episodes.erase(id); });
  }

 private:
  template <typename Reply>
  void Within(absl::Duration deadline, rpc::Done<Reply> done,
              std::function<absl::StatusOr<Reply>(SimProcess&)> serve) {
    auto answered = std::make_shared<bool>(false);
    auto once = [answered, done = std::move(done)](absl::StatusOr<Reply> reply) {
      if (!std::exchange(*answered, true)) done(std::move(reply));
    };
    link_->Return(deadline, [once] { once(absl::DeadlineExceededError("no answer in time")); });
    link_->template Call<Reply>(Work(0.05, 0.5), once, std::move(serve));
  }
};

class SimConnector final : public services::ActorConnector {
 public:
  explicit SimConnector(SimWorld& world) : world_(world) {}

  std::unique_ptr<Trainer> ConnectTrainer(const v1::Actor& actor) override {
    return std::make_unique<SimTrainer>(world_, actor.name());
  }
  std::unique_ptr<Generator> ConnectGenerator(const v1::Actor& actor) override {
    return std::make_unique<SimGenerator>(world_, actor.name());
  }
  std::unique_ptr<Reference> ConnectReference(const v1::Actor& actor) override {
    return std::make_unique<SimReference>(world_, actor.name());
  }
  std::unique_ptr<Rewarder> ConnectRewarder(const v1::Actor& actor) override {
    return std::make_unique<SimRewarder>(world_, actor.name());
  }
  std::unique_ptr<services::EnvironmentClient> ConnectEnvironment(const std::string& address) override {
    return std::make_unique<SimEnvironment>(world_, address);
  }

 private:
  SimWorld& world_;
};

}  // namespace

std::unique_ptr<services::ActorConnector> MakeSimConnector(SimWorld& world) {
  return std::make_unique<SimConnector>(world);
}

}  // namespace rein::simulation
