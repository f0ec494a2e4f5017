// A trainer of two ranks behind real gRPC servers: rank 0 is called, the other follows, and both have what
// one rank alone would have.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/config/defaults.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/status/fatal.h"
#include "services/trainer/trainer_service.h"

namespace rein::services {
namespace {

// One rank's process, but for the process.
struct Rank {
  explicit Rank(const std::vector<std::string>& peers, const std::string& address = "127.0.0.1:0", uint32_t rank = 0)
      : fence(clock),
        service("cpu", {.peers = peers, .timeout = absl::Seconds(30), .rank = rank},
                {fence, replies, clock, metrics, *log,
                 [this](const absl::Status& status) { given_up.set_value(status); }}) {
    fence.Open();
    auto created = rpc::Server::Create(address, &service);
    for (int i = 0; i < 200 && !created.ok(); ++i) {  // a connection may have been given a port that was free for a moment
      absl::SleepFor(absl::Milliseconds(50));
      created = rpc::Server::Create(address, &service);
    }
    server = *std::move(created);
    stub = v1::TrainerService::NewStub(rpc::Connect(server->address()));
  }

  sync::RealClock clock;
  rpc::FenceGuard fence;
  rpc::ReplyCache replies;
  telemetry::Metrics metrics;
  std::unique_ptr<telemetry::Log> log = *telemetry::Log::Create({.role = "trainer"});
  std::promise<absl::Status> given_up;
  TrainerServiceImpl service;
  std::unique_ptr<rpc::Server> server;
  std::unique_ptr<v1::TrainerService::Stub> stub;
};

int next_request = 0;

template <typename Request>
void Address(Request* request) {
  request->mutable_fence()->set_request_id(absl::StrCat("r", ++next_request));
  request->mutable_fence()->set_job("digits");
  request->mutable_fence()->set_controller_epoch(1);
  request->mutable_fence()->set_actor_epoch(1);
}

grpc::Status Load(v1::TrainerService::Stub& stub, v1::LoadTrainerReply* loaded,
                  const std::string& request_id = "") {
  v1::LoadTrainerRequest load;
  Address(&load);
  if (!request_id.empty()) load.mutable_fence()->set_request_id(request_id);
  load.mutable_job()->set_name("digits");
  load.mutable_job()->mutable_model()->set_config("tests/golden/models/qwen3");
  load.mutable_job()->mutable_sft()->set_updates(10);
  load.mutable_job()->mutable_trainer()->set_learning_rate(1e-2);
  config::ApplyDefaults(*load.mutable_job());
  load.set_lineage(1);
  grpc::ClientContext context;
  rpc::SetDeadline(context, absl::Seconds(50));
  return stub.Load(&context, load, loaded);
}

grpc::Status Update(v1::TrainerService::Stub& stub, uint64_t update, v1::UpdateReply* reply) {
  v1::UpdateRequest request;
  Address(&request);
  request.set_update(update);
  for (uint32_t i = 0; i < 6; ++i) {
    v1::TrainingSequence* s = request.add_sequences();
    for (uint32_t t = 0; t < 6 + i; ++t) s->add_token_ids((i * 13 + t * 7 + update) % 61);
    s->set_loss_mask(std::string(3, '\0') + std::string(3 + i, '\1'));
  }
  grpc::ClientContext call;
  rpc::SetDeadline(call, absl::Seconds(50));
  return stub.Update(&call, request, reply);
}

// Loads, makes two Updates, saves; returns the digests.
std::vector<uint64_t> Drive(v1::TrainerService::Stub& stub, const std::string& folder) {
  std::vector<uint64_t> digests;
  v1::LoadTrainerReply loaded;
  grpc::Status status = Load(stub, &loaded);
  EXPECT_TRUE(status.ok()) << status.error_message();
  digests.push_back(loaded.digest());
  for (uint64_t update : {1, 2}) {
    v1::UpdateReply reply;
    status = Update(stub, update, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    digests.push_back(reply.digest());
  }
  v1::SaveRequest save;
  Address(&save);
  save.set_path(folder);
  v1::SaveReply saved;
  grpc::ClientContext call;
  rpc::SetDeadline(call, absl::Seconds(50));
  status = stub.Save(&call, save, &saved);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(std::filesystem::exists(folder + "/optimizer.safetensors"));
  return digests;
}

TEST(TrainerRanksTest, TwoRanksTrainAsOne) {
  const std::string folder = absl::StrCat(testing::TempDir(), "/trainer_ranks_", getpid());
  Rank second({});
  Rank first({second.server->address()});
  std::vector<uint64_t> digests = Drive(*first.stub, folder + "/two");
  EXPECT_EQ(digests.size(), 3u);
  EXPECT_EQ(second.service.Standing().digest(), digests[2]) << "the other rank has the same weights";
  EXPECT_EQ(second.service.Standing().version().number(), 2u);
  Rank alone({});
  EXPECT_EQ(Drive(*alone.stub, folder + "/one")[0], digests[0]) << "the same random weights";
  std::filesystem::remove_all(folder);
}

TEST(TrainerRanksTest, AMissingRankIsNamed) {
  Rank first({"127.0.0.1:1"});
  v1::LoadTrainerReply reply;
  grpc::Status status = Load(*first.stub, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("trainer rank 1: "));
}

TEST(TrainerRanksTest, APeerThatIsAnotherRankSaysSo) {
  Rank second({}, "127.0.0.1:0", 2), third({}, "127.0.0.1:0", 1);  // in the other order
  Rank first({second.server->address(), third.server->address()});
  v1::LoadTrainerReply reply;
  grpc::Status status = Load(*first.stub, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), testing::MatchesRegex("trainer rank (1: .* as rank 2 and is called as rank 1|2: .* as rank 1 and is called as rank 2) of 3: "
                                                            "rank 0's --peers must name ranks 1, 2, ... in this order"));
  status = Load(*second.stub, &reply);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("was started as rank 2 and is called as rank 0"));
  Rank right({}, "127.0.0.1:0", 1);
  Rank leader({right.server->address()});
  EXPECT_TRUE(Load(*leader.stub, &reply).ok());
}

TEST(TrainerRanksTest, ALoadThatMissedARankSucceedsOnceAllAreThere) {
  std::string address = Rank({}).server->address();  // not there yet
  Rank second({});
  Rank first({second.server->address(), address});
  v1::LoadTrainerReply reply;
  EXPECT_EQ(Load(*first.stub, &reply, "load/1").error_code(), grpc::StatusCode::UNAVAILABLE);
  Rank third({}, address);
  grpc::Status status = Load(*first.stub, &reply, "load/1");
  EXPECT_TRUE(status.ok()) << status.error_message();
  v1::UpdateReply updated;
  status = Update(*first.stub, 1, &updated);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(third.service.Standing().digest(), updated.digest());
}

TEST(TrainerRanksTest, WhenOneIsGoneTheOthersAnswerAndGiveUp) {
  auto second = std::make_unique<Rank>(std::vector<std::string>());
  auto third = std::make_unique<Rank>(std::vector<std::string>());
  Rank first({second->server->address(), third->server->address()});
  v1::LoadTrainerReply loaded;
  ASSERT_TRUE(Load(*first.stub, &loaded).ok());
  third.reset();
  v1::UpdateReply reply;
  grpc::Status status = Update(*first.stub, 1, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_THAT(status.error_message(), testing::HasSubstr("process group: "));
  EXPECT_TRUE(IsFatal(first.given_up.get_future().get()));
  EXPECT_TRUE(IsFatal(second->given_up.get_future().get()));
}

}  // namespace
}  // namespace rein::services
