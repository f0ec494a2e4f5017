#include "services/rollout/rollout_client.h"

#include <future>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "rein/v1/rollout.grpc.pb.h"

namespace rein::services {
namespace {

using ::testing::ElementsAre;

// Sends each sibling that was asked for, then ends; sibling 99 is never sent.
class EchoRollout final : public v1::RolloutService::Service {
 public:
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateReply>* writer) override {
    for (uint32_t sibling : request->siblings()) {
      while (sibling == 99 && !context->IsCancelled()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      v1::GenerateReply reply;
      reply.mutable_rollout()->set_sibling(sibling);
      writer->Write(reply);
    }
    if (request->siblings().empty()) {
      return rpc::ToGrpc(absl::InvalidArgumentError("siblings: is empty"));
    }
    return grpc::Status::OK;
  }
};

class RolloutClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = *rpc::Server::Create("127.0.0.1:0", &service_);
    generator_ = ConnectGenerator(server_->address());
  }

  void Generate(const std::vector<uint32_t>& siblings) {
    v1::GenerateRequest request;
    request.mutable_siblings()->Add(siblings.begin(), siblings.end());
    generator_->Generate(
        request, absl::Seconds(30),
        [this](v1::Rollout rollout) {
          seen_.push_back(rollout.sibling());
          if (seen_.size() == 1) first_.set_value();
        },
        [this](absl::Status status) { ended_.set_value(std::move(status)); });
  }

  EchoRollout service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<Generator> generator_;
  std::vector<uint32_t> seen_;
  std::promise<void> first_;
  std::promise<absl::Status> ended_;
};

TEST_F(RolloutClientTest, GivesEachSiblingThenTheEnd) {
  Generate({3, 1, 2});
  EXPECT_TRUE(ended_.get_future().get().ok());
  EXPECT_THAT(seen_, ElementsAre(3, 1, 2));
}

TEST_F(RolloutClientTest, CarriesTheError) {
  Generate({});
  EXPECT_EQ(ended_.get_future().get(), absl::InvalidArgumentError("siblings: is empty"));
}

TEST_F(RolloutClientTest, DestructionEndsTheStream) {
  Generate({1, 99});
  first_.get_future().wait();
  generator_.reset();
  EXPECT_EQ(ended_.get_future().get().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(seen_, ElementsAre(1));
}

}  // namespace
}  // namespace rein::services
