// The rollout service over real gRPC: load, weight sync, streams of siblings, aborts, new weights.

#include "services/rollout/rollout_service.h"

#include <map>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "common/weights/channel/weight_service.h"
#include "tests/integration/policy_fixture.h"

namespace rein::services {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kFolder[] = "tests/golden/models/qwen3";

class RolloutServiceTest : public testing::Test {
 protected:
  v1::LoadModelRequest LoadRequest(const std::string& job = "job") {
    v1::LoadModelRequest request;
    *request.mutable_fence() = NewFence(job);
    request.mutable_model()->set_path(kFolder);
    request.mutable_rollout()->set_kv_tokens(4096);
    request.mutable_rollout()->set_page_tokens(4);
    return request;
  }

  absl::StatusOr<v1::LoadModelReply> Load(const v1::LoadModelRequest& request) {
    return Call<v1::LoadModelReply>(request, &v1::RolloutService::Stub::Load);
  }

  template <typename Reply, typename Request>
  absl::StatusOr<Reply> Call(const Request& request,
                             grpc::Status (v1::RolloutService::Stub::*method)(grpc::ClientContext*,
                                                                              const Request&,
                                                                              Reply*)) {
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(30));
    Reply reply;
    grpc::Status status = (stub_.get()->*method)(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

  void LoadAndPublish() {
    ASSERT_TRUE(Load(LoadRequest()).ok());
    absl::Status status = trainer_.Publish(server_->address(), {1, 0});
    ASSERT_TRUE(status.ok()) << status;
  }

  static v1::GenerateRequest Request(uint64_t prompt, uint32_t siblings, uint32_t tokens) {
    v1::GenerateRequest request;
    *request.mutable_fence() = NewFence();
    request.mutable_group()->set_prompt(prompt);
    for (uint32_t id : {3u, 1u, 4u, 1u, 5u, 9u}) request.add_prompt_token_ids(id + prompt % 7);
    for (uint32_t s = 0; s < siblings; ++s) request.add_siblings(s);
    request.mutable_sampling()->set_max_tokens(tokens);
    request.mutable_sampling()->set_ignore_eos(true);
    request.mutable_sampling()->set_seed(5);
    return request;
  }

  absl::StatusOr<std::map<uint32_t, v1::Rollout>> Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(30));
    auto reader = stub_->Generate(&context, request);
    std::map<uint32_t, v1::Rollout> rollouts;
    v1::GenerateReply reply;
    while (reader->Read(&reply)) rollouts[reply.rollout().sibling()] = reply.rollout();
    grpc::Status status = reader->Finish();
    if (!status.ok()) return rpc::FromGrpc(status);
    return rollouts;
  }

  std::string GenerateError(const v1::GenerateRequest& request) {
    return std::string(Generate(request).status().message());
  }

  TrainerSide trainer_{kFolder};
  ProcessParts parts_;
  RolloutServiceImpl service_{
      "cpu", {parts_.fence, parts_.replies, parts_.clock, parts_.metrics, *parts_.log}};
  weights::WeightServiceImpl weights_{[this] { return service_.receiver(); }, parts_.fence};
  std::unique_ptr<rpc::Server> server_ =
      *rpc::Server::Create({.address = "127.0.0.1:0"}, {&service_, &weights_});
  std::unique_ptr<v1::RolloutService::Stub> stub_ =
      v1::RolloutService::NewStub(rpc::Connect(server_->address()));
};

TEST_F(RolloutServiceTest, GeneratesWhatWasPublished) {
  auto loaded = Load(LoadRequest());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->parameters(), static_cast<uint64_t>(trainer_.registry.parameter_count()));
  EXPECT_EQ(loaded->kv_tokens(), 4096u);
  EXPECT_THAT(GenerateError(Request(1, 1, 3)), HasSubstr("no weights have come yet"));
  absl::Status status = trainer_.Publish(server_->address(), {1, 0});
  ASSERT_TRUE(status.ok()) << status;
  auto rollouts = Generate(Request(1, 4, 6));
  ASSERT_TRUE(rollouts.ok()) << rollouts.status();
  ASSERT_THAT(*rollouts, SizeIs(4));
  for (const auto& [sibling, rollout] : *rollouts) {
    EXPECT_EQ(rollout.group().prompt(), 1u);
    EXPECT_EQ(rollout.completion().token_ids_size(), 6);
    EXPECT_EQ(rollout.completion().behaviour_logprobs_size(), 6);
    EXPECT_EQ(rollout.completion().finish_reason(), v1::FINISH_REASON_LENGTH);
    ASSERT_EQ(rollout.completion().versions_size(), 1);
    EXPECT_EQ(rollout.completion().versions(0).tokens(), 6u);
    EXPECT_EQ(rollout.completion().versions(0).version().lineage(), 1u);
  }
  while (service_.Standing().tokens_total() < 24) std::this_thread::yield();  // noted after the step
  v1::ActorStatusReply standing = service_.Standing();
  EXPECT_EQ(standing.job(), "job");
  EXPECT_NE(standing.digest(), 0u);
  EXPECT_THAT(parts_.metrics.Text(),
              HasSubstr("rein_rollout_requests_total{finish_reason=\"length\",rl_job=\"job\"} 4"));
}

TEST_F(RolloutServiceTest, TheSameRequestGivesTheSameTokensWhateverElseRuns) {
  LoadAndPublish();
  std::map<uint32_t, v1::Rollout> alone = *Generate(Request(1, 3, 20));
  std::vector<std::map<uint32_t, v1::Rollout>> together(12);
  std::vector<std::thread> threads;
  for (uint64_t p = 0; p < together.size(); ++p) {
    threads.emplace_back([&, p] { together[p] = *Generate(Request(p, 3, 20)); });
  }
  for (auto& thread : threads) thread.join();
  for (uint32_t sibling : {0, 1, 2}) {
    EXPECT_EQ(together[1][sibling].SerializeAsString(), alone[sibling].SerializeAsString());
  }
  // A sibling asked for on its own is the same sibling.
  v1::GenerateRequest one = Request(1, 0, 20);
  one.add_siblings(2);
  EXPECT_EQ((*Generate(one))[2].SerializeAsString(), alone[2].SerializeAsString());
}

TEST_F(RolloutServiceTest, NewWeightsGiveOtherLogprobs) {
  LoadAndPublish();
  v1::Rollout before = (*Generate(Request(1, 1, 4)))[0];
  ASSERT_TRUE(trainer_.Publish(server_->address(), {1, 1}, /*scale=*/1.5).ok());
  v1::GenerateRequest request = Request(1, 1, 4);
  request.mutable_version()->set_lineage(1);
  request.mutable_version()->set_number(1);
  v1::Rollout after = (*Generate(request))[0];
  EXPECT_EQ(after.completion().versions(0).version().number(), 1u);
  EXPECT_NE(after.completion().behaviour_logprobs(0), before.completion().behaviour_logprobs(0));
  request.mutable_version()->set_number(0);
  EXPECT_THAT(GenerateError(request), HasSubstr("policy version 1.1 is in use, want 1.0"));
}

TEST_F(RolloutServiceTest, WeightsMayWaitForWhatIsUnderWay) {
  LoadAndPublish();
  std::map<uint32_t, v1::Rollout> rollouts;
  std::thread generation([&] { rollouts = *Generate(Request(1, 4, 100)); });
  while (service_.Standing().requests_running() == 0) std::this_thread::yield();
  ASSERT_TRUE(trainer_.Publish(server_->address(), {1, 1}, 1.5, weights::InFlight::kFinish).ok());
  generation.join();
  for (const auto& [sibling, rollout] : rollouts) {
    ASSERT_EQ(rollout.completion().versions_size(), 1);
    EXPECT_EQ(rollout.completion().versions(0).version().number(), 0u);
  }
}

TEST_F(RolloutServiceTest, PausesResumesAndAborts) {
  LoadAndPublish();
  v1::PauseRequest pause;
  *pause.mutable_fence() = NewFence();
  ASSERT_TRUE(Call<v1::PauseReply>(pause, &v1::RolloutService::Stub::Pause).ok());
  std::map<uint32_t, v1::Rollout> first, second;
  std::thread a([&] { first = *Generate(Request(1, 2, 5)); });
  std::thread b([&] { second = *Generate(Request(2, 2, 5)); });
  while (service_.Standing().requests_waiting() < 4) std::this_thread::yield();
  v1::AbortGenerateRequest abort;
  *abort.mutable_fence() = NewFence();
  *abort.add_groups() = Request(2, 1, 1).group();
  for (int repeat = 0; repeat < 2; ++repeat) {
    auto aborted = Call<v1::AbortGenerateReply>(abort, &v1::RolloutService::Stub::Abort);
    ASSERT_TRUE(aborted.ok()) << aborted.status();
    EXPECT_EQ(aborted->aborted(), 2u) << "a repeat gets the first answer";
  }
  b.join();
  EXPECT_EQ(second[0].completion().finish_reason(), v1::FINISH_REASON_ABORT);
  v1::ResumeRequest resume;
  *resume.mutable_fence() = NewFence();
  ASSERT_TRUE(Call<v1::ResumeReply>(resume, &v1::RolloutService::Stub::Resume).ok());
  a.join();
  EXPECT_EQ(first[1].completion().token_ids_size(), 5);
}

TEST_F(RolloutServiceTest, ACallerThatGoesAwayFreesEverything) {
  LoadAndPublish();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request(1, 4, 110));
  while (service_.Standing().requests_running() == 0) std::this_thread::yield();
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  for (int i = 0; i < 2000 && service_.Standing().requests_running() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(service_.Standing().requests_running(), 0u);
  EXPECT_EQ(service_.Standing().kv_usage(), 0);
}

TEST_F(RolloutServiceTest, AnotherLoadEndsWhatRuns) {
  LoadAndPublish();
  std::map<uint32_t, v1::Rollout> rollouts;
  std::thread generation([&] { rollouts = *Generate(Request(1, 2, 110)); });
  while (service_.Standing().requests_running() == 0) std::this_thread::yield();
  ASSERT_TRUE(Load(LoadRequest("job")).ok()) << "the same again changes nothing";
  EXPECT_TRUE(service_.Standing().has_version());
  ASSERT_TRUE(Load(LoadRequest("other")).ok());
  generation.join();
  EXPECT_THAT(rollouts, SizeIs(2));
  EXPECT_FALSE(service_.Standing().has_version()) << "its weights are still to come";
  EXPECT_THAT(GenerateError(Request(1, 1, 3)),
              HasSubstr("the model of job 'other' is loaded, the call is for 'job'"));
}

TEST_F(RolloutServiceTest, MistakesAreNamed) {
  EXPECT_THAT(GenerateError(Request(1, 1, 3)), HasSubstr("no model is loaded: call Load first"));
  v1::LoadModelRequest bad = LoadRequest();
  bad.mutable_model()->set_path("/no/such/model");
  EXPECT_THAT(std::string(Load(bad).status().message()), HasSubstr("/no/such/model"));
  bad = LoadRequest();
  bad.mutable_model()->set_dtype("float16");
  EXPECT_THAT(std::string(Load(bad).status().message()), HasSubstr("want float32 or bfloat16"));
  LoadAndPublish();
  v1::GenerateRequest request = Request(1, 1, 3);
  request.set_prompt_token_ids(0, 100'000);
  EXPECT_THAT(GenerateError(request), HasSubstr("prompt token 0 is 100000, want an id below"));
  request = Request(1, 1, 3);
  for (int i = 0; i < 5000; ++i) request.add_prompt_token_ids(1);
  absl::Status status = Generate(request).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the prompt has 5006 tokens, want at most"));
  request = Request(1, 1, 3);
  request.mutable_sampling()->set_top_p(2);
  EXPECT_THAT(GenerateError(request), HasSubstr("top_p is 2, want above 0 and at most 1"));
  request = Request(1, 1, 3);
  request.mutable_fence()->clear_request_id();
  EXPECT_THAT(GenerateError(request), HasSubstr("request"));
}

}  // namespace
}  // namespace rein::services
