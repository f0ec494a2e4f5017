#include "services/role/lease_client.h"

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "rein/v1/controller.grpc.pb.h"

namespace rein::services {
namespace {

constexpr double kLeaseSeconds = 0.09;

// Issues epochs and forgets its actors on request.
class FakeRegistry final : public v1::ControllerService::Service {
 public:
  grpc::Status Register(grpc::ServerContext*, const v1::RegisterRequest* request,
                        v1::RegisterReply* reply) override {
    std::lock_guard<std::mutex> lock(mutex_);
    registrations_.push_back(*request);
    reply->set_actor_epoch(++epoch_);
    reply->set_controller_epoch(7);
    reply->set_lease_seconds(kLeaseSeconds);
    return grpc::Status::OK;
  }

  grpc::Status Heartbeat(grpc::ServerContext*, const v1::HeartbeatRequest* request,
                         v1::HeartbeatReply* reply) override {
    std::lock_guard<std::mutex> lock(mutex_);
    heartbeats_.push_back(*request);
    reply->set_controller_epoch(7);
    if (request->actor_epoch() == epoch_ && !forget_) return grpc::Status::OK;
    forget_ = false;
    return rpc::ToGrpc(absl::FailedPreconditionError("this epoch is over"));
  }

  void Forget() {
    std::lock_guard<std::mutex> lock(mutex_);
    forget_ = true;
  }

  std::vector<v1::RegisterRequest> registrations() {
    std::lock_guard<std::mutex> lock(mutex_);
    return registrations_;
  }

  std::vector<v1::HeartbeatRequest> heartbeats() {
    std::lock_guard<std::mutex> lock(mutex_);
    return heartbeats_;
  }

 private:
  std::mutex mutex_;
  uint64_t epoch_ = 0;
  bool forget_ = false;
  std::vector<v1::RegisterRequest> registrations_;
  std::vector<v1::HeartbeatRequest> heartbeats_;
};

// A controller that waits for another's lease.
class WaitingRegistry final : public v1::ControllerService::Service {
 public:
  grpc::Status Register(grpc::ServerContext*, const v1::RegisterRequest*, v1::RegisterReply*) override {
    return rpc::ToGrpc(absl::UnavailableError("NOT_LEADER: this controller waits"));
  }
  grpc::Status Heartbeat(grpc::ServerContext*, const v1::HeartbeatRequest*, v1::HeartbeatReply*) override {
    return rpc::ToGrpc(absl::UnavailableError("NOT_LEADER: this controller waits"));
  }
};

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

v1::Fence FenceOf(uint64_t actor_epoch) {
  v1::Fence fence;
  fence.set_request_id("r");
  fence.set_controller_epoch(7);
  fence.set_actor_epoch(actor_epoch);
  return fence;
}

class LeaseClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    StartServer("127.0.0.1:0");
    log_ = *telemetry::Log::Create({.role = "trainer", .actor = "trainer-0", .file = "/dev/null"});
    LeaseOptions options{.controller = server_->address(),
                         .report =
                             [] {
                               ActorReport report{.load = "idle"};
                               report.version.set_number(4);
                               report.trainer.emplace().set_job("digits");
                               return report;
                             },
                         .on_new_epoch = [this](uint64_t epoch) { last_epoch_ = epoch; }};
    options.identity.set_role("trainer");
    options.identity.set_name("trainer-0");
    lease_ = LeaseClient::Start(std::move(options), guard_, clock_, *log_);
  }

  void StartServer(const std::string& address) { server_ = Serve(address, registry_); }

  // A connection may have been given a port that was free for a moment: until it has gone.
  static std::unique_ptr<rpc::Server> Serve(const std::string& address, FakeRegistry& registry) {
    auto server = rpc::Server::Create(address, &registry);
    EXPECT_TRUE(Eventually([&] {
      if (!server.ok()) server = rpc::Server::Create(address, &registry);
      return server.ok();
    })) << server.status();
    return *std::move(server);
  }

  FakeRegistry registry_;
  sync::RealClock clock_;
  rpc::FenceGuard guard_{clock_};
  std::unique_ptr<telemetry::Log> log_;
  std::unique_ptr<rpc::Server> server_;
  std::atomic<uint64_t> last_epoch_ = 0;
  std::unique_ptr<LeaseClient> lease_;
};

TEST_F(LeaseClientTest, RegistersAndKeepsTheLeaseAlive) {
  ASSERT_TRUE(lease_->WaitUntilRegistered(absl::Seconds(10)));
  EXPECT_TRUE(Eventually([&] { return registry_.heartbeats().size() >= 4; }));
  EXPECT_EQ(registry_.registrations()[0].trainer().job(), "digits");
  EXPECT_FALSE(registry_.registrations()[0].incarnation().empty());
  EXPECT_EQ(registry_.heartbeats()[0].version().number(), 4);
  EXPECT_EQ(registry_.heartbeats()[0].load(), "idle");
  EXPECT_TRUE(Eventually([&] { return guard_.Admit(FenceOf(1)).ok(); }));
}

TEST_F(LeaseClientTest, RegistersAgainWhenItsEpochIsOver) {
  ASSERT_TRUE(lease_->WaitUntilRegistered(absl::Seconds(10)));
  registry_.Forget();
  ASSERT_TRUE(Eventually([&] { return last_epoch_ == 2; }));
  EXPECT_FALSE(guard_.Admit(FenceOf(1)).ok());
  EXPECT_TRUE(Eventually([&] { return guard_.Admit(FenceOf(2)).ok(); }));
  auto registrations = registry_.registrations();
  EXPECT_EQ(registrations[0].incarnation(), registrations[1].incarnation());
}

TEST_F(LeaseClientTest, TheFenceClosesWhileTheControllerIsAwayAndOpensWhenItIsBack) {
  ASSERT_TRUE(lease_->WaitUntilRegistered(absl::Seconds(10)));
  std::string address = server_->address();
  server_.reset();
  EXPECT_TRUE(Eventually([&] { return !guard_.Admit(FenceOf(1)).ok(); }));
  StartServer(address);
  EXPECT_TRUE(Eventually([&] { return guard_.Admit(FenceOf(1)).ok(); }));
}

// Two controllers: the one that was asked first waits, and the one that leads is lost later.
TEST_F(LeaseClientTest, FollowsTheControllerThatLeads) {
  lease_.reset();  // the fixture's own: this registry knows one actor
  WaitingRegistry waits;
  FakeRegistry next;  // outlives the server that calls it
  auto other = *rpc::Server::Create("127.0.0.1:0", &waits);
  const std::string first = other->address(), second = server_->address();
  LeaseOptions options{.controller = first + "," + second, .report = [] { return ActorReport(); }};
  options.identity.set_name("follower");
  rpc::FenceGuard guard(clock_);
  auto lease = LeaseClient::Start(std::move(options), guard, clock_, *log_);
  ASSERT_TRUE(lease->WaitUntilRegistered(absl::Seconds(10)));
  const uint64_t epoch = guard.actor_epoch();
  server_.reset();  // the leader is gone
  other.reset();
  other = Serve(first, next);
  EXPECT_TRUE(Eventually([&] { return !next.heartbeats().empty(); }));
  EXPECT_EQ(next.heartbeats()[0].actor_epoch(), epoch);
}

}  // namespace
}  // namespace rein::services
