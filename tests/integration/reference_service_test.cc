// The reference service over real gRPC: load, weight sync, scores.

#include "services/reference/reference_service.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/policy/opened_model.h"
#include "common/policy/sequence_scorer.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "common/weights/channel/weight_service.h"
#include "tests/integration/policy_fixture.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

constexpr char kFolder[] = "tests/golden/models/llama";

class ReferenceServiceTest : public testing::Test {
 protected:
  absl::StatusOr<v1::LoadModelReply> Load(const std::string& job = "job") {
    v1::LoadModelRequest request;
    *request.mutable_fence() = NewFence(job);
    request.mutable_model()->set_path(kFolder);
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(30));
    v1::LoadModelReply reply;
    grpc::Status status = stub_->Load(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

  absl::StatusOr<v1::ScoreTokensReply> Score(std::vector<std::vector<uint32_t>> sequences,
                                             uint32_t prefix, double temperature = 1) {
    v1::ScoreTokensRequest request;
    *request.mutable_fence() = NewFence();
    request.set_temperature(temperature);
    for (const auto& tokens : sequences) {
      v1::TokenSequence* sequence = request.add_sequences();
      sequence->mutable_token_ids()->Add(tokens.begin(), tokens.end());
      sequence->set_prefix(prefix);
    }
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(30));
    v1::ScoreTokensReply reply;
    grpc::Status status = stub_->Score(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

  TrainerSide trainer_{kFolder};
  ProcessParts parts_;
  ReferenceServiceImpl service_{
      "cpu", {parts_.fence, parts_.replies, parts_.clock, parts_.metrics, *parts_.log}};
  weights::WeightServiceImpl weights_{[this] { return service_.receiver(); }, parts_.fence};
  std::unique_ptr<rpc::Server> server_ =
      *rpc::Server::Create({.address = "127.0.0.1:0"}, {&service_, &weights_});
  std::unique_ptr<v1::ReferenceService::Stub> stub_ =
      v1::ReferenceService::NewStub(rpc::Connect(server_->address()));
};

TEST_F(ReferenceServiceTest, ScoresWithTheWeightsThatCame) {
  EXPECT_THAT(std::string(Score({{1, 2}}, 1).status().message()), HasSubstr("call Load first"));
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(std::string(Score({{1, 2}}, 1).status().message()),
              HasSubstr("no weights have come"));
  absl::Status published = trainer_.Publish(server_->address(), {3, 0});
  ASSERT_TRUE(published.ok()) << published;
  auto reply = Score({{1, 2, 3, 4}, {5, 6, 7}}, 2, 0.7);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->version().lineage(), 3u);
  ASSERT_EQ(reply->sequences_size(), 2);
  ASSERT_EQ(reply->sequences(0).logprobs_size(), 2);
  ASSERT_EQ(reply->sequences(1).logprobs_size(), 1);

  policy::OpenedModel own = *policy::OpenModel({.path = kFolder, .device = "cpu"});
  ASSERT_TRUE(own.slots->LoadFolder(kFolder, own.description).ok());
  auto wanted = *policy::ScoreSequences(own.slots->decoder(), {{{1, 2, 3, 4}, 2}}, 0.7);
  EXPECT_EQ(reply->sequences(0).logprobs(0), wanted[0][0]);
  EXPECT_EQ(reply->sequences(0).logprobs(1), wanted[0][1]);
  EXPECT_EQ(service_.Standing().tokens_total(), 7u);
  EXPECT_THAT(parts_.metrics.Text(), HasSubstr("rein_reference_scored_tokens_total 7"));
}

TEST_F(ReferenceServiceTest, ManyCallersAtOnce) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(trainer_.Publish(server_->address(), {1, 0}).ok());
  auto alone = *Score({{9, 8, 7, 6, 5}}, 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 5; ++k) {
        auto reply = Score({{1, 2, 3}, {9, 8, 7, 6, 5}}, 1);
        ASSERT_TRUE(reply.ok()) << reply.status();
        EXPECT_EQ(reply->sequences(1).SerializeAsString(), alone.sequences(0).SerializeAsString());
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(ReferenceServiceTest, LoadingAgainKeepsOrReplaces) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(trainer_.Publish(server_->address(), {1, 0}).ok());
  ASSERT_TRUE(Load().ok());
  EXPECT_TRUE(Score({{1, 2}}, 1).ok()) << "the weights stay";
  ASSERT_TRUE(Load("other").ok());
  EXPECT_THAT(std::string(Score({{1, 2}}, 1).status().message()),
              HasSubstr("the model of job 'other' is loaded, the call is for 'job'"));
}

TEST_F(ReferenceServiceTest, MistakesAreNamed) {
  ASSERT_TRUE(Load().ok());
  ASSERT_TRUE(trainer_.Publish(server_->address(), {1, 0}).ok());
  auto error = [](const absl::StatusOr<v1::ScoreTokensReply>& reply) {
    EXPECT_TRUE(absl::IsInvalidArgument(reply.status())) << reply.status();
    return std::string(reply.status().message());
  };
  EXPECT_THAT(error(Score({{1, 2}, {1, 99999}}, 1)), HasSubstr("sequence 1: token 1 is 99999"));
  EXPECT_THAT(error(Score({{1, 2}}, 3)), HasSubstr("sequence 0: prefix is 3, want 1 to 2"));
  EXPECT_THAT(error(Score({{1, 2}}, 1, -1)), HasSubstr("temperature is -1, want above 0"));
}

}  // namespace
}  // namespace rein::services
