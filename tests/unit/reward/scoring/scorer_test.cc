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

TEST_F(ScorerTest, StepsOfARemoteScorerAreKeptWhereTheyAddUp) {
  remote_ = [](const std::string&, const v1::ScoreRewardsRequest&, absl::Duration) {
    v1::ScoreRewardsReply reply;
    for (double sum : {0.75, 0.9}) {
      v1::RewardResult* result = reply.add_results();
      result->set_reward(sum);
      for (uint32_t end : {4u, 9u}) {
        v1::StepReward* step = result->add_steps();
        step->set_end(end);
        step->set_reward(end == 4 ? 0.25 : 0.5);
      }
    }
    return absl::StatusOr<v1::ScoreRewardsReply>(reply);
  };
  v1::ScoreRewardsReply reply = *Score("rules { remote { address: 'host:1' } } items {} items {}");
  ASSERT_EQ(reply.results(0).parts(0).steps_size(), 2);
  EXPECT_EQ(reply.results(0).parts(0).steps(1).end(), 9u);
  EXPECT_EQ(reply.results(1).error(), "remote: gave 0.9, but its steps add up to 0.75");
  reply = *Score("rules { remote { address: 'host:1' } clip { max: 0.5 } } items {} items {}");
  EXPECT_EQ(reply.results(0).reward(), 0.5);
  EXPECT_EQ(reply.results(0).parts(0).steps_size(), 0) << "a bound leaves no step its own";
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

TEST_F(ScorerTest, AScoreOutsideItsDeclaredRangeIsAFaultOfItsRollout) {
  remote_ = [](const std::string&, const v1::ScoreRewardsRequest& request,
               absl::Duration) -> absl::StatusOr<v1::ScoreRewardsReply> {
    v1::ScoreRewardsReply reply;
    for (const v1::RewardItem& item : request.items())
      reply.add_results()->set_reward(std::stod(item.id()));
    return reply;
  };
  const std::string rule = "rules { remote { address: 'a:1' } range { min: 0 max: 1 } }";
  v1::ScoreRewardsReply reply = *Score(rule +
                                       "items { id: '0' } items { id: '1' } items { id: '1.5' } "
                                       "items { id: '-1' } items { id: 'nan' }");
  EXPECT_EQ(reply.results(0).error(), "");
  EXPECT_EQ(reply.results(1).reward(), 1);
  EXPECT_EQ(reply.results(2).error(), "remote: gave 1.5, outside its declared range [0, 1]");
  EXPECT_EQ(reply.results(2).reward(), 0);
  EXPECT_THAT(reply.results(3).error(), HasSubstr("gave -1, outside"));
  EXPECT_EQ(reply.results(4).error(), "remote: gave nan, want a finite number");
  EXPECT_EQ(Score("rules { remote { address: 'a:1' } range { min: 0 } } items { id: '-1' }")
                ->results(0)
                .error(),
            "remote: gave -1, outside its declared range [0, infinity)");
}

TEST_F(ScorerTest, PartsAndSumAreClipped) {
  v1::ScoreRewardsReply reply = *Score(R"pb(
    rules {
      length { max_tokens: 2 }
      clip { min: -1 }
      weight: 3
    }
    rules {
      exact_match {}
      weight: 5
    }
    clip { min: -2 max: 4 }
    items {
      completion {
        text: "a"
        token_ids: [ 1, 2, 3, 4, 5, 6 ]
      }
      answer: "b"
    }
    items {
      completion { text: "a" token_ids: 1 }
      answer: "a"
    })pb");
  EXPECT_EQ(reply.results(0).parts(0).score(), -1);
  EXPECT_EQ(reply.results(0).reward(), -2) << "-3, clipped";
  EXPECT_EQ(reply.results(1).reward(), 4) << "5, clipped";
  EXPECT_EQ(reply.results(1).parts(1).score(), 1) << "parts are kept";
}

TEST_F(ScorerTest, AGateReplacesTheWholeReward) {
  v1::ScoreRewardsReply reply = *Score(R"pb(
    rules {
      exact_match {}
      name: "right"
    }
    rules {
      format { regex: "[0-9]+" }
      weight: 0
      name: "digits"
      gate { at_least: 1 otherwise: -0.5 }
    }
    rules {
      length { max_tokens: 2 }
      weight: 0
      gate { at_least: 0 otherwise: -2 }
    }
    clip { min: -1 }
    items {
      completion { text: "7" token_ids: 1 }
      answer: "7"
    }
    items {
      completion { text: "x" token_ids: 1 }
      answer: "x"
    }
    items {
      completion {
        text: "7"
        token_ids: [ 1, 2, 3 ]
      }
      answer: "7"
    }
    items {
      completion {
        text: "x"
        token_ids: [ 1, 2, 3 ]
      }
      answer: "x"
    })pb");
  EXPECT_EQ(reply.results(0).reward(), 1);
  EXPECT_EQ(reply.results(0).gated_by(), "");
  EXPECT_EQ(reply.results(1).reward(), -0.5);
  EXPECT_EQ(reply.results(1).gated_by(), "digits");
  EXPECT_EQ(reply.results(1).parts(0).score(), 1) << "parts are kept";
  EXPECT_EQ(reply.results(2).reward(), -2) << "what a gate gives is not clipped";
  EXPECT_EQ(reply.results(2).gated_by(), "length");
  EXPECT_EQ(reply.results(3).gated_by(), "digits") << "the first gate counts";
}

TEST_F(ScorerTest, RewardsGoByTheColumnsOfAPrompt) {
  const std::string gsm = "fields { key: 'source' value { string_value: 'gsm' } }";
  const std::string level = "fields { key: 'source' value { number_value: 3 } }";
  int asked = 0;
  remote_ = [&](const std::string&, const v1::ScoreRewardsRequest& request,
                absl::Duration) -> absl::StatusOr<v1::ScoreRewardsReply> {
    asked = request.items_size();
    v1::ScoreRewardsReply reply;
    for (int i = 0; i < asked; ++i) reply.add_results()->set_reward(0.5);
    return reply;
  };
  v1::ScoreRewardsReply reply = *Score(
      "rules { numeric {} when { column: 'source' is: 'gsm' } } rules { remote { address: 'a:1' } "
      "when { column: 'source' is: ['math', '3'] } }"
      "items { completion { text: '4' } answer: '4' columns { " +
      gsm + " } } items { columns { " + level +
      " } }"
      "items { columns { fields { key: 'source' value { string_value: 'code' } } } } items {}");
  ASSERT_EQ(reply.results(0).parts_size(), 1);
  EXPECT_EQ(reply.results(0).parts(0).name(), "numeric");
  EXPECT_EQ(reply.results(0).reward(), 1);
  ASSERT_EQ(reply.results(1).parts_size(), 1);
  EXPECT_EQ(reply.results(1).reward(), 0.5);
  EXPECT_EQ(asked, 1) << "a scorer is asked for its own prompts only";
  EXPECT_EQ(reply.results(2).error(), "no reward is for this prompt: source is code");
  EXPECT_EQ(reply.results(3).error(), "no reward is for this prompt: source is absent");
}

TEST_F(ScorerTest, NotesAreKept) {
  remote_ = [](const std::string&, const v1::ScoreRewardsRequest&,
               absl::Duration) -> absl::StatusOr<v1::ScoreRewardsReply> {
    v1::ScoreRewardsReply reply;
    reply.add_results()->add_parts()->set_note(std::string(511, 'a') + "\xC3\xA9");
    return reply;
  };
  v1::ScoreRewardsReply reply = *Score(
      "rules { remote { address: 'a:1' } } rules { json { schema: '{\"minimum\": 2}' } } items { "
      "completion { text: '1' } }");
  EXPECT_EQ(reply.results(0).parts(0).note(), std::string(511, 'a')) << "cut between characters";
  EXPECT_EQ(reply.results(0).parts(1).note(), "1 is below 2");
}

TEST_F(ScorerTest, WrongBoundsAndRoutesAreRefused) {
  auto error = [&](const std::string& settings) {
    return Error("rules { numeric {} " + settings + " } items {}");
  };
  EXPECT_THAT(error("range { min: 2 max: 1 }"), HasSubstr("range [2, 1] is empty"));
  EXPECT_THAT(error("clip { min: nan }"), HasSubstr("is empty"));
  EXPECT_THAT(error("gate { at_least: nan }"), HasSubstr("gate wants finite numbers"));
  EXPECT_THAT(error("when { is: 'a' }"), HasSubstr("when.column is empty"));
  EXPECT_THAT(error("when { column: 'a' }"), HasSubstr("when.is names no value"));
  EXPECT_THAT(Error("rules { numeric {} } clip { min: 2 max: 1 }"),
              HasSubstr("clip of the sum [2, 1] is empty"));
  EXPECT_THAT(Error("rules { script { name: 'Klingon' } }"), HasSubstr("is no Unicode script"));
  EXPECT_THAT(Error("rules { json { schema: '{' } }"), HasSubstr("rewards[0] (json)"));
}

}  // namespace
}  // namespace rein::reward
