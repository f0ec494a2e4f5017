// The reward service over real gRPC: rules, remote scorers, what a client sees of mistakes.

#include "services/reward/reward_service.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "services/reward/remote_scorer.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

v1::ScoreRewardsRequest Request(const std::string& text) {
  v1::ScoreRewardsRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

// A user's scorer: the length of the text, and an error for an empty one.
class LengthScorer final : public v1::RewardService::Service {
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRewardsRequest* request,
                     v1::ScoreRewardsReply* reply) override {
    for (const v1::RewardItem& item : request->items()) {
      v1::RewardResult* result = reply->add_results();
      result->set_reward(static_cast<double>(item.completion().text().size()));
      if (item.completion().text().empty()) result->set_error("nothing to score");
    }
    return grpc::Status::OK;
  }
};

class RewardServiceTest : public testing::Test {
 protected:
  absl::StatusOr<v1::ScoreRewardsReply> Score(const v1::ScoreRewardsRequest& request,
                                              absl::Duration timeout = absl::Seconds(20)) {
    auto stub = v1::RewardService::NewStub(rpc::Connect(server_->address()));
    grpc::ClientContext context;
    rpc::SetDeadline(context, timeout);
    v1::ScoreRewardsReply reply;
    grpc::Status status = stub->Score(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

  sync::RealClock clock_;
  telemetry::Metrics metrics_;
  std::unique_ptr<reward::Scorer> scorer_ = *reward::Scorer::Create(
      {.threads = 2, .remote = MakeRemoteScorer(), .observer = MeasureRules(metrics_)}, clock_);
  RewardServiceImpl service_{*scorer_, clock_};
  std::unique_ptr<rpc::Server> server_ = *rpc::Server::Create("127.0.0.1:0", &service_);
};

TEST_F(RewardServiceTest, ScoresABatch) {
  v1::ScoreRewardsRequest request =
      Request("rules { numeric {} } rules { format { regex: '\\\\d+' } weight: 0.5 }");
  for (int i = 0; i < 1000; ++i) {
    v1::RewardItem* item = request.add_items();
    item->mutable_completion()->set_text(i % 2 == 0 ? std::to_string(i)
                                                    : "so " + std::to_string(i));
    item->set_answer(std::to_string(i));
  }
  auto reply = Score(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->results_size(), 1000);
  EXPECT_EQ(reply->results(10).reward(), 1.5);
  EXPECT_EQ(reply->results(11).reward(), 1.0);
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("rein_reward_requests_total{result=\"ok\",reward=\"numeric\"} 1000"));
}

TEST_F(RewardServiceTest, AsksAUsersScorer) {
  LengthScorer users;
  auto users_server = *rpc::Server::Create("127.0.0.1:0", &users);
  v1::ScoreRewardsRequest request = Request("items { completion { text: 'four' } } items {}");
  v1::RewardConfig* rule = request.add_rules();
  rule->mutable_remote()->set_address(users_server->address());
  rule->set_weight(0.5);
  auto reply = Score(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->results(0).reward(), 2.0);
  EXPECT_EQ(reply->results(1).error(), "remote: nothing to score");
}

TEST_F(RewardServiceTest, AnAbsentScorerCostsItsRolloutsAndSaysWhichItIs) {
  auto reply =
      Score(Request("rules { remote { address: '127.0.0.1:1' } timeout_seconds: 0.2 } "
                    "rules { exact_match {} } items {}"));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_THAT(reply->results(0).error(), HasSubstr("remote: 127.0.0.1:1: "));
  EXPECT_EQ(reply->results(0).parts(0).name(), "exact_match");
}

TEST_F(RewardServiceTest, ProgramsAreRunAndWhatTheyMayNotIsCounted) {
  v1::ScoreRewardsRequest request = Request("rules { code {} timeout_seconds: 60 }");
  for (const char* program : {"print(2 * int(input()))", "import _socket\n_socket.socket()"}) {
    v1::RewardItem* item = request.add_items();
    item->mutable_completion()->set_text(program);
    (*item->mutable_columns()->mutable_fields())["tests"].set_string_value(
        R"([{"input": "3", "output": "6"}])");
  }
  auto reply = Score(request, absl::Seconds(90));
  if (absl::IsInvalidArgument(reply.status())) GTEST_SKIP() << "NOT tried: " << reply.status();
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->results(0).error(), "");
  EXPECT_EQ(reply->results(0).reward(), 1.0);
  EXPECT_EQ(reply->results(1).reward(), 0.0);
  EXPECT_THAT(reply->results(1).parts(0).note(), HasSubstr("refused: socket"));
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("rein_reward_refused_programs_total{reward=\"code\"} 1"));
}

TEST_F(RewardServiceTest, WrongRulesAreRefused) {
  absl::Status status = Score(Request("rules { regex { pattern: '(' } } items {}")).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rewards[0] (regex): pattern '('"));
}

}  // namespace
}  // namespace rein::services
