#include "reward/scoring/scorer.h"

#include <limits>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace rein::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ScorerTest : public testing::Test {
 protected:
  absl::StatusOr<v1::ScoreRewardsReply> Score(const std::string& request_text) {
    v1::ScoreRewardsRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(request_text, &request));
    ScorerOptions options;
    if (remote_) options.remote = remote_;
    options.observer = [this](const std::string& rule, const RuleScores&) {
      seen_.push_back(rule);
    };
    return (*Scorer::Create(options, clock_))->Score(request, clock_.Now() + absl::Seconds(20));
  }

  std::string Error(const std::string& request_text) {
    absl::Status status = Score(request_text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  }

  RemoteScorer remote_;
  std::vector<std::string> seen_;
  sync::RealClock clock_;
};

TEST_F(ScorerTest, SumsWeightedParts) {
  v1::ScoreRewardsReply reply = *Score(R"pb(
    rules {
      numeric {}
      weight: 2
    }
    rules {
      format { regex: "-?[0-9]+" }
      weight: 0.25
      name: "short"
    }
    rules {
      exact_match {}
      weight: 0
    }
    items {
      completion { text: "42" }
      answer: "42"
    }
    items {
      completion { text: "It is 42" }
      answer: "42"
    }
    items {
      completion { text: "no" }
      answer: "42"
    })pb");
  ASSERT_EQ(reply.results_size(), 3);
  EXPECT_EQ(reply.results(0).reward(), 2.25);
  EXPECT_EQ(reply.results(1).reward(), 2);
  EXPECT_EQ(reply.results(2).reward(), 0);
  EXPECT_EQ(reply.results(0).parts(1).name(), "short");
  EXPECT_EQ(reply.results(0).parts(1).score(), 1);
  EXPECT_EQ(reply.results(0).parts(1).weight(), 0.25);
  EXPECT_EQ(reply.results(0).parts(2).score(), 1) << "weight 0 is still measured";
  EXPECT_THAT(seen_, ElementsAre("numeric", "short", "exact_match"));
}

TEST_F(ScorerTest, AnItemThatCannotBeScoredSaysWhy) {
  v1::ScoreRewardsReply reply = *Score(R"pb(
    rules { numeric {} }
    rules { boxed_math {} }
    items {
      completion { text: "\\boxed{1}" }
      answer: "one"
    }
    items {
      completion { text: "\\boxed{1}" }
      answer: "1"
    })pb");
  EXPECT_EQ(reply.results(0).error(), "numeric: the answer 'one' holds no number");
  EXPECT_EQ(reply.results(0).reward(), 0);
  EXPECT_EQ(reply.results(1).error(), "");
  EXPECT_EQ(reply.results(1).reward(), 2);
}

TEST_F(ScorerTest, ListsEveryWrongRule) {
  EXPECT_THAT(
      Error("rules { regex { pattern: '(' } } rules { numeric {} } "
            "rules { length {} name: 'short' } rules { numeric {} timeout_seconds: 0 }"),
      ::testing::AllOf(HasSubstr("rewards[0] (regex): pattern '('"),
                       HasSubstr("\nrewards[2] (short): max_tokens must be"),
                       HasSubstr("\nrewards[3] (numeric): timeout_seconds 0 is not above 0")));
  EXPECT_THAT(Error(""), HasSubstr("no rules"));
  EXPECT_THAT(Error("rules { remote { address: 'h:1' } }"), HasSubstr("not served here"));
}

TEST_F(ScorerTest, ForwardsToARemoteScorer) {
  remote_ = [](const std::string& address, const v1::ScoreRewardsRequest& request,
               absl::Duration timeout) {
    EXPECT_EQ(address, "host:1");
    EXPECT_EQ(timeout, absl::Seconds(3));
    EXPECT_EQ(request.rules_size(), 0);
    v1::ScoreRewardsReply reply;
    reply.add_results()->set_reward(0.5);
    reply.add_results()->set_error("no such task");
    reply.add_results()->set_reward(std::numeric_limits<double>::quiet_NaN());
    EXPECT_EQ(request.items_size(), 3);
    return reply;
  };
  v1::ScoreRewardsReply reply = *Score(
      "rules { remote { address: 'host:1' } weight: 2 timeout_seconds: 3 } items {} items {} items "
      "{}");
  EXPECT_EQ(reply.results(0).reward(), 1.0);
  EXPECT_EQ(reply.results(1).error(), "remote: no such task");
  EXPECT_EQ(reply.results(2).error(), "remote: gave nan, want a finite number");
}

TEST_F(ScorerTest, ARemoteThatFailsCostsItsItems) {
  remote_ = [](const std::string&, const v1::ScoreRewardsRequest&, absl::Duration) {
    return absl::StatusOr<v1::ScoreRewardsReply>(absl::UnavailableError("connection refused"));
  };
  v1::ScoreRewardsReply reply = *Score("rules { remote { address: 'host:1' } } items {}");
  EXPECT_EQ(reply.results(0).error(), "remote: connection refused");
}

TEST_F(ScorerTest, ARewardModelIsAskedAtTheReferencesInTurn) {
  std::vector<std::string> asked;
  remote_ = [&](const std::string& address, const v1::ScoreRewardsRequest& request,
                absl::Duration timeout) {
    asked.push_back(address);
    EXPECT_EQ(timeout, absl::Minutes(10)) << "a model waits for its device";
    EXPECT_EQ(request.rules_size(), 1);
    EXPECT_EQ(request.rules(0).model().path(), "judge");
    v1::ScoreRewardsReply reply;
    for (int i = 0; i < request.items_size(); ++i) reply.add_results()->set_reward(-1.5);
    return reply;
  };
  v1::ScoreRewardsRequest request;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "rules { model { path: 'judge' } weight: 2 } rules { exact_match {} weight: 0 } items {} "
      "model_scorers: 'a:1' model_scorers: 'b:1'",
      &request));
  auto scorer = *Scorer::Create({.remote = remote_}, clock_);
  for (int call = 0; call < 2; ++call) {
    auto reply = scorer->Score(request, clock_.Now() + absl::Minutes(20));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->results(0).reward(), -3.0);
    EXPECT_EQ(reply->results(0).parts(0).name(), "model");
  }
  EXPECT_THAT(asked, ElementsAre("a:1", "b:1"));
}

TEST_F(ScorerTest, ARewardModelWantsAReference) {
  remote_ = [](const std::string&, const v1::ScoreRewardsRequest&, absl::Duration) {
    return absl::StatusOr<v1::ScoreRewardsReply>(absl::UnavailableError("never asked"));
  };
  EXPECT_THAT(Error("rules { model { path: 'judge' } } items {}"),
              HasSubstr("rewards[0] (model): a reward model is served by a reference, and none"));
}

TEST(ScorerCreateTest, WantsAThread) {
  sync::RealClock clock;
  EXPECT_TRUE(absl::IsInvalidArgument(Scorer::Create({.threads = 0}, clock).status()));
}

}  // namespace
}  // namespace rein::reward
