#include "services/role/role_process.h"

#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "common/version/build_version.h"
#include "rein/v1/reward.grpc.pb.h"
#include "tests/unit/common/rpc/health.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

class FencedService final : public v1::RewardService::Service {
 public:
  explicit FencedService(rpc::FenceGuard& fence) : fence_(fence) {}
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRewardsRequest*,
                     v1::ScoreRewardsReply*) override {
    v1::Fence fence;
    fence.set_request_id("r");
    return rpc::ToGrpc(fence_.Admit(fence));
  }

 private:
  rpc::FenceGuard& fence_;
};

class RefusingService final : public v1::RewardService::Service {
 public:
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRewardsRequest*, v1::ScoreRewardsReply*) override {
    return rpc::ToGrpc(absl::UnavailableError("NOT_LEADER: waits"));
  }
};

int RunReward(std::vector<std::string> arguments,
              const std::function<absl::Status(RoleProcess&)>& body) {
  arguments.insert(arguments.begin(), "rein-reward");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  return RunRole({.role = "reward", .build = version::ThisBuild()}, argv.size(), argv.data(), body);
}

TEST(RoleProcessTest, ServesUntilItIsStopped) {
  std::string page, ready, version;
  absl::Status scored = absl::UnknownError("not called");
  int code = RunReward({"--log-file", "/dev/null"}, [&](RoleProcess& process) {
    FencedService service(process.fence());
    std::thread visitor;
    process.OnListening([&](const std::string& address, const std::string& admin) {
      visitor = std::thread([&, address, admin] {
        httplib::Client http(admin.substr(0, admin.rfind(':')),
                             std::stoi(admin.substr(admin.rfind(':') + 1)));
        while (ready != "ready\n") ready = http.Get("/readyz")->body;
        auto stub = v1::RewardService::NewStub(rpc::Connect(address));
        grpc::ClientContext context;
        rpc::SetDeadline(context, absl::Seconds(10));
        v1::ScoreRewardsReply reply;
        scored = rpc::FromGrpc(stub->Score(&context, v1::ScoreRewardsRequest(), &reply));
        page = http.Get("/metrics")->body;
        process.Stop();
      });
    });
    absl::Status status = process.Serve({&service}, [] { return ActorReport{}; });
    visitor.join();
    return status;
  });
  EXPECT_EQ(code, 0);
  EXPECT_TRUE(scored.ok()) << scored;  // no controller: the fence is open
  EXPECT_THAT(page, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Score\","
                              "grpc_service=\"rein.v1.RewardService\"} 1"));
  EXPECT_THAT(page, HasSubstr("rein_build_info{"));
}

TEST(RoleProcessTest, GivesUpAfterAnErrorThatANewProcessMayNotHave) {
  absl::Status ended;
  int code = RunReward({"--log-file", "/dev/null"}, [&](RoleProcess& process) {
    FencedService service(process.fence());
    process.OnListening([&](const std::string&, const std::string&) {
      process.deps().GiveUpIfFatal(absl::UnavailableError("only busy"));
      process.deps().GiveUpIfFatal(Fatal(absl::UnavailableError("the GPU is gone")));
      process.deps().GiveUpIfFatal(Fatal(absl::UnavailableError("and again")));
    });
    return ended = process.Serve({&service}, [] { return ActorReport{}; });
  });
  EXPECT_EQ(code, 9);
  EXPECT_EQ(ended.message(), "the GPU is gone");
}

TEST(RoleProcessTest, StandsByUntilItMayServeAtTheSameAddresses) {
  const std::string file = testing::TempDir() + "/stand_by.address";
  std::string refused, waiting_ready, address_before, address_after, ready;
  int waiting_health = 0, leading_health = 0;
  int code = RunReward({"--log-file", "/dev/null", "--address-file", file}, [&](RoleProcess& process) -> absl::Status {
    int asked = 0;
    auto take = [&]() -> absl::StatusOr<bool> {
      if (++asked == 2) return absl::UnavailableError("the store is away");  // told, and asked again
      if (asked == 3) {
        std::string admin;
        std::ifstream(file) >> address_before >> admin;
        httplib::Client http(admin.substr(0, admin.rfind(':')), std::stoi(admin.substr(admin.rfind(':') + 1)));
        waiting_ready = http.Get("/readyz")->body;
        waiting_health = rpc::AskHealth(rpc::Connect(address_before));
        auto stub = v1::RewardService::NewStub(rpc::Connect(address_before));
        grpc::ClientContext context;
        rpc::SetDeadline(context, absl::Seconds(10));
        v1::ScoreRewardsReply reply;
        refused = stub->Score(&context, v1::ScoreRewardsRequest(), &reply).error_message();
      }
      return asked > 3;
    };
    RefusingService waits;
    absl::StatusOr<bool> leads = process.StandBy(take, waits, [] { return absl::UnavailableError("NOT_LEADER: waits"); });
    if (!leads.ok() || !*leads) return absl::InternalError("does not lead");
    FencedService service(process.fence());
    std::thread visitor;
    process.OnListening([&](const std::string& address, const std::string& admin) {
      address_after = address;
      visitor = std::thread([&, address, admin] {
        httplib::Client http(admin.substr(0, admin.rfind(':')), std::stoi(admin.substr(admin.rfind(':') + 1)));
        while (ready != "ready\n") ready = http.Get("/readyz")->body;
        leading_health = rpc::AskHealth(rpc::Connect(address));
        process.Stop();
      });
    });
    absl::Status status = process.Serve({&service}, [] { return ActorReport{}; });
    visitor.join();
    return status;
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(refused, "NOT_LEADER: waits");
  EXPECT_EQ(waiting_ready, "not ready\n");
  EXPECT_EQ(waiting_health, rpc::kNotServing);
  EXPECT_EQ(leading_health, rpc::kServing);
  EXPECT_EQ(address_before, address_after);
}

TEST(RoleProcessTest, AStopWhileItStandsByIsNoError) {
  absl::StatusOr<bool> leads = true;
  int code = RunReward({"--log-file", "/dev/null"}, [&](RoleProcess& process) {
    auto take = [&]() -> absl::StatusOr<bool> {
      process.Stop();
      return false;
    };
    RefusingService waits;
    leads = process.StandBy(take, waits, [] { return absl::UnavailableError("waits"); });
    return leads.status();
  });
  EXPECT_EQ(code, 0);
  ASSERT_TRUE(leads.ok());
  EXPECT_FALSE(*leads);
}

TEST(RoleProcessTest, AWrongFlagIsExitCode2AndTheBodyIsNotCalled) {
  auto never = [](RoleProcess&) -> absl::Status {
    ADD_FAILURE() << "called";
    return absl::OkStatus();
  };
  testing::internal::CaptureStderr();
  EXPECT_EQ(RunReward({"--treads", "2"}, never), 2);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("--treads"));
  EXPECT_EQ(RunReward({"--log-file", "/nowhere/at/all"}, never), 3);
}

TEST(RoleProcessTest, VersionNamesTheProgramAndItsSources) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(RunReward({"--version"}, [](RoleProcess&) { return absl::InternalError("called"); }),
            0);
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("rein-reward 0.1.0 ("));
}

TEST(RoleProcessTest, ATakenPortIsExitCode7) {
  v1::RewardService::Service service;
  auto holder = rpc::Server::Create("127.0.0.1:0", &service);
  ASSERT_TRUE(holder.ok());
  int code = RunReward({"--log-file", "/dev/null", "--listen", (*holder)->address()},
                       [&](RoleProcess& process) {
                         FencedService second(process.fence());
                         return process.Serve({&second}, [] { return ActorReport{}; });
                       });
  EXPECT_EQ(code, 7);
}

}  // namespace
}  // namespace rein::services
