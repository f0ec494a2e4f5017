// The reference service over real gRPC: load, weight sync, scores.

#include "services/reference/reference_service.h"

#include <filesystem>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "common/data/prompt_encoder.h"
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
    return Send(request);
  }

  absl::StatusOr<v1::LoadModelReply> Send(const v1::LoadModelRequest& request) {
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
  RewardModelServiceImpl reward_models_{
      service_, {parts_.fence, parts_.replies, parts_.clock, parts_.metrics, *parts_.log}};
  weights::WeightServiceImpl weights_{[this] { return service_.receiver(); }, parts_.fence};
  std::unique_ptr<rpc::Server> server_ =
      *rpc::Server::Create({.address = "127.0.0.1:0"}, {&service_, &reward_models_, &weights_});
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

// A reward model with random weights and the tokenizer of configs/models/digits.
std::string MakeRewardModel() {
  const std::string folder = testing::TempDir() + "/judge";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  models::ModelDescription model =
      *models::WithScalarHead(*models::DescribeModel("configs/models/digits"));
  auto registry = *weights::Registry::Create(models::DecoderParameters(model.spec));
  at::Tensor arena = at::zeros({registry.arena_elements()}, at::kFloat);
  models::InitializeWeights(model.spec, registry, 5, arena);
  for (const weights::Parameter& p : registry.parameters()) {  // a head of its own: a new one is 0
    if (p.spec.name.find("score") == std::string::npos) continue;
    arena.narrow(0, p.offset, p.elements).copy_(at::linspace(-1, 1, p.elements));
  }
  EXPECT_TRUE(models::SaveModelFolder(folder, model, registry, arena, "configs/models/digits").ok());
  return folder;
}

class RewardModelTest : public ReferenceServiceTest {
 protected:
  absl::StatusOr<v1::LoadModelReply> Load(const std::string& folder, bool policy) {
    v1::LoadModelRequest request;
    *request.mutable_fence() = NewFence("job");
    if (policy) request.mutable_model()->set_path(kFolder);
    *request.add_reward_models() = Config(folder);
    return Send(request);
  }

  static v1::ModelReward Config(const std::string& folder) {
    v1::ModelReward config;
    config.set_path(folder);
    config.set_chat_template(false);
    return config;
  }

  absl::StatusOr<v1::ScoreRewardsReply> Rewards(const std::string& folder,
                                                const std::vector<std::string>& completions) {
    return Rewards(Config(folder), completions);
  }

  absl::StatusOr<v1::ScoreRewardsReply> Rewards(const v1::ModelReward& config,
                                                const std::vector<std::string>& completions) {
    v1::ScoreRewardsRequest request;
    *request.add_rules()->mutable_model() = config;
    for (const std::string& text : completions) {
      v1::RewardItem* item = request.add_items();
      v1::Message* message = item->add_prompt();
      message->set_role("user");
      message->set_content("max(1,2,3,4,5)");
      item->mutable_completion()->set_text(text);
    }
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(30));
    v1::ScoreRewardsReply reply;
    grpc::Status status = v1::RewardService::NewStub(rpc::Connect(server_->address()))
                              ->Score(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }
};

TEST_F(RewardModelTest, ScoresTheLastTokenOfWhatTrainingWouldRead) {
  const std::string folder = MakeRewardModel();
  EXPECT_TRUE(absl::IsUnavailable(Rewards(folder, {"5"}).status())) << "nothing is loaded";
  ASSERT_TRUE(Load(folder, /*policy=*/false).ok());
  auto reply = Rewards(folder, {"5", "4"});
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->results_size(), 2);

  policy::OpenedModel own =
      *policy::OpenModel({.path = folder, .device = "cpu", .load_weights = true});
  data::PromptEncoder encoder(*own.text, {.chat_template = false});
  data::PromptRow row{.messages = {{"user", "max(1,2,3,4,5)"}}, .is_text = true, .answer = "4",
                      .has_answer = true};
  std::vector<uint32_t> tokens = encoder.EncodeAnswer(row)->token_ids;
  at::NoGradGuard no_grad;
  std::vector<int64_t> ids(tokens.begin(), tokens.end());
  at::Tensor hidden_TD = own.slots->decoder().Hidden(
      at::tensor(ids, at::kLong), nn::PackedSequences({static_cast<int64_t>(ids.size())}, at::kCPU));
  const float wanted = own.slots->decoder().Scores(hidden_TD).select(0, -1).item<float>();
  EXPECT_NEAR(reply->results(1).reward(), wanted, 1e-5);
  EXPECT_NE(reply->results(0).reward(), reply->results(1).reward());
  EXPECT_THAT(std::string(Score({{1, 2}}, 1).status().message()),
              HasSubstr("only reward models are loaded"));
  EXPECT_EQ(service_.receiver(), nullptr) << "no weights are awaited";
}

TEST_F(RewardModelTest, AModelOfStepsScoresEachWhereItEnds) {
  const std::string folder = MakeRewardModel();
  v1::LoadModelRequest load;
  *load.mutable_fence() = NewFence("job");
  v1::ModelReward config = Config(folder);
  config.mutable_steps()->set_separator("+");
  config.mutable_steps()->set_reduce(v1::STEP_REDUCTION_SUM);
  *load.add_reward_models() = config;
  ASSERT_TRUE(Send(load).ok());
  auto reply = Rewards(config, {"12+3", "12+4", "12"});
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->results(0).steps_size(), 2);
  ASSERT_EQ(reply->results(2).steps_size(), 1);
  EXPECT_EQ(reply->results(0).steps(0).end(), 2u);
  EXPECT_EQ(reply->results(0).steps(1).end(), 4u);
  EXPECT_EQ(reply->results(0).steps(0).reward(), reply->results(2).reward()) << "what follows a step does not matter";
  EXPECT_NE(reply->results(0).steps(1).reward(), reply->results(1).steps(1).reward());
  EXPECT_NEAR(reply->results(0).reward(), reply->results(0).steps(0).reward() + reply->results(0).steps(1).reward(), 1e-9);
}

TEST_F(RewardModelTest, StandsBesideAPolicy) {
  const std::string folder = MakeRewardModel();
  ASSERT_TRUE(Load(folder, /*policy=*/true).ok());
  ASSERT_TRUE(trainer_.Publish(server_->address(), {1, 0}).ok());
  EXPECT_TRUE(Score({{1, 2}}, 1).ok());
  EXPECT_TRUE(Rewards(folder, {"5"}).ok());
}

TEST_F(RewardModelTest, CallsThatWaitTogetherGetTheirOwnScores) {
  const std::string folder = MakeRewardModel();
  ASSERT_TRUE(Load(folder, /*policy=*/false).ok());
  std::vector<double> alone;
  for (int i = 0; i < 8; ++i) {
    alone.push_back(Rewards(folder, {std::to_string(i)})->results(0).reward());
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 10; ++k) {
        auto reply = Rewards(folder, {std::to_string(i), std::to_string((i + 1) % 8)});
        ASSERT_TRUE(reply.ok()) << reply.status();
        EXPECT_EQ(reply->results(0).reward(), alone[i]);
        EXPECT_EQ(reply->results(1).reward(), alone[(i + 1) % 8]);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(RewardModelTest, MistakesAreNamed) {
  EXPECT_THAT(std::string(Load(kFolder, false).status().message()),
              HasSubstr("reward model: tests/golden/models/llama is a causal language model, want "
                        "...ForSequenceClassification with one label"));
  const std::string folder = MakeRewardModel();
  ASSERT_TRUE(Load(folder, false).ok());
  std::string longer(3000, '1');
  auto reply = Rewards(folder, {longer, "5"});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_THAT(reply->results(0).error(), HasSubstr("the model's context"));
  EXPECT_EQ(reply->results(1).error(), "") << "the others are scored";
}

}  // namespace
}  // namespace rein::services
