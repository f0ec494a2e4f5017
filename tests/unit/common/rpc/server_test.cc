#include "common/rpc/server.h"

#include <mutex>

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "rein/v1/reward.grpc.pb.h"

namespace rein::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RefusingService final : public v1::RewardService::Service {
 public:
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRewardsRequest* request,
                     v1::ScoreRewardsReply*) override {
    if (request->items_size() == 0) return grpc::Status::OK;
    return ToGrpc(absl::InvalidArgumentError(std::string(kMaxStatusBytes + 100, 'x')));
  }
};

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = Server::Create(
        {.address = "127.0.0.1:0",
         .on_handled =
             [this](const HandledCall& call) {
               std::lock_guard<std::mutex> lock(mutex_);
               handled_.push_back(call.service + "." + call.method + " " + call.code);
             }},
        {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = Connect(server_->address());
  }

  absl::Status Score(int items) {
    auto stub = v1::RewardService::NewStub(channel_);
    grpc::ClientContext context;
    SetDeadline(context, absl::Seconds(10));
    v1::ScoreRewardsRequest request;
    for (int i = 0; i < items; ++i) request.add_items();
    v1::ScoreRewardsReply reply;
    return FromGrpc(stub->Score(&context, request, &reply));
  }

  // The answer of grpc.health.v1.Health/Check for the whole server, without its proto: field 1.
  int Health() {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    SetDeadline(context, absl::Seconds(10));
    grpc::CompletionQueue queue;
    grpc::ByteBuffer empty(nullptr, 0), reply;
    grpc::Slice nothing("");
    empty = grpc::ByteBuffer(&nothing, 1);
    auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", empty, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&reply, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + std::chrono::seconds(10));
    std::vector<grpc::Slice> slices;
    if (!status.ok() || !reply.Dump(&slices).ok() || slices.empty()) return -1;
    return slices[0].size() == 2 ? slices[0].begin()[1] : -1;
  }

  RefusingService service_;
  std::mutex mutex_;
  std::vector<std::string> handled_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ServerTest, CountsCallsByMethodAndCode) {
  EXPECT_TRUE(Score(0).ok());
  EXPECT_EQ(Score(1).code(), absl::StatusCode::kInvalidArgument);
  server_.reset();
  EXPECT_THAT(handled_, ElementsAre("rein.v1.RewardService.Score OK",
                                    "rein.v1.RewardService.Score INVALID_ARGUMENT"));
}

TEST_F(ServerTest, LongStatusTextsArriveCut) {
  EXPECT_EQ(Score(1).message().size(), kMaxStatusBytes);
}

TEST_F(ServerTest, AnswersTheStandardHealthService) {
  constexpr int kServing = 1, kNotServing = 2;
  EXPECT_EQ(Health(), kServing);
  server_->SetServing(false);
  EXPECT_EQ(Health(), kNotServing);
}

TEST_F(ServerTest, ATakenPortIsAnErrorThatNamesIt) {
  auto second = Server::Create(server_->address(), &service_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("cannot listen on " + server_->address()));
  EXPECT_THAT(second.status().message(), HasSubstr("the port is taken"));
}

TEST_F(ServerTest, AChannelWithoutAPeerIsUnavailable) {
  server_.reset();
  EXPECT_EQ(Score(0).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace rein::rpc
