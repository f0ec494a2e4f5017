#include "services/cli/mismatch_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kTokens = 4, kStages = 4;  // two layers

v1::ActorTrace Trace(const std::string& actor, const std::string& role) {
  v1::ActorTrace trace;
  trace.set_actor(actor);
  trace.set_role(role);
  v1::TraceLayersReply& reply = *trace.mutable_trace();
  reply.mutable_version()->set_lineage(1);
  reply.mutable_version()->set_number(7);
  reply.set_digest(0xabc);
  reply.set_stages(kStages);
  for (uint64_t i = 0; i < kStages * kTokens; ++i) {
    reply.add_state_digests(100 + i);
    reply.add_state_norms(2);
  }
  for (float logprob : {-0.5f, -1.25f}) reply.add_logprobs(logprob);
  reply.set_in_steps(role == "rollout");
  return trace;
}

class MismatchTextTest : public testing::Test {
 protected:
  MismatchTextTest() {
    reply_.set_job("maths");
    v1::Rollout& rollout = *reply_.mutable_rollout()->mutable_rollout();
    reply_.mutable_rollout()->set_update(8);
    rollout.mutable_group()->set_prompt(17);
    rollout.set_sibling(3);
    for (uint32_t id : {5, 6}) rollout.add_prompt_token_ids(id);
    v1::Completion& completion = *rollout.mutable_completion();
    for (uint32_t id : {7, 8}) completion.add_token_ids(id);
    for (float logprob : {-0.5f, -1.25f}) completion.add_behaviour_logprobs(logprob);
    *completion.add_versions()->mutable_version() = trainer_.trace().version();
  }

  std::string Text() {
    reply_.clear_traces();
    for (const auto* trace : {&rollout_, &trainer_}) *reply_.add_traces() = *trace;
    return MismatchText(reply_);
  }

  v1::TraceRolloutReply reply_;
  v1::ActorTrace trainer_ = Trace("trainer-0", "trainer"), rollout_ = Trace("rollout-0", "rollout");
};

TEST_F(MismatchTextTest, EqualActorsTakeOneLine) {
  std::string text = Text();
  EXPECT_THAT(text, HasSubstr("update 8 · prompt 17 · sibling 3 · policy 1.7 · 2 + 2 tokens\n"));
  EXPECT_THAT(text, HasSubstr("rollout-0  1.7 0000000000000abc  token by token  equal in all 2\n"));
  EXPECT_THAT(text, HasSubstr("trainer-0 and rollout-0: log-probs equal in all 2; the same bits in all 4 stages\n"));
  EXPECT_THAT(text, Not(HasSubstr("STAGE")));
}

TEST_F(MismatchTextTest, WhatAnEnvironmentShowedWasNotSampled) {
  v1::Rollout& rollout = *reply_.mutable_rollout()->mutable_rollout();
  rollout.mutable_completion()->mutable_token_ids()->Add(9);
  v1::Turn& first = *rollout.add_turns();
  first.set_tokens(1);
  first.set_observation_tokens(1);
  rollout.add_turns()->set_tokens(1);
  for (auto* trace : {&rollout_, &trainer_}) {
    trace->mutable_trace()->clear_logprobs();
    for (float logprob : {-0.5f, -7.0f, -1.25f}) trace->mutable_trace()->add_logprobs(logprob);
  }
  EXPECT_THAT(Text(), HasSubstr("token by token  equal in all 2\n"));
  reply_.set_filtered(true);
  EXPECT_THAT(Text(), HasSubstr("not comparable: sampled from what filters or penalties left"));
}

TEST_F(MismatchTextTest, TheFirstStageThatDiffersIsNamed) {
  for (int i : {1 * kTokens + 3, 2 * kTokens + 2, 2 * kTokens + 3}) {
    rollout_.mutable_trace()->set_state_digests(i, 1);
    rollout_.mutable_trace()->set_state_norms(i, 1.5);
  }
  rollout_.mutable_trace()->set_logprobs(1, -1.5);
  std::string text = Text();
  EXPECT_THAT(text, HasSubstr("log-probs differ in 1 of 2, by 0.25 at most; the first stage to differ is layer 0, at token 3 "
                              "(completion token 1)\n"));
  EXPECT_THAT(text, HasSubstr("embeddings  0\n"));
  EXPECT_THAT(text, HasSubstr("layer 0     1                   3      0.25\n"));
  EXPECT_THAT(text, HasSubstr("layer 1     2                   2      0.25\n"));
}

TEST_F(MismatchTextTest, OtherWeightsAreNotCompared) {
  rollout_.mutable_trace()->mutable_version()->set_number(6);
  std::string text = Text();
  EXPECT_THAT(text, HasSubstr("rollout-0  1.6 0000000000000abc  token by token  not comparable: 1.7 sampled it\n"));
  EXPECT_THAT(text, HasSubstr("rein pause maths && rein debug mismatch maths"));
  rollout_.set_role("reference");
  EXPECT_THAT(Text(), HasSubstr("as a frozen reference has"));
}

TEST_F(MismatchTextTest, EqualVersionsOfOtherWeightsAreCorrupt) {
  rollout_.mutable_trace()->set_digest(0xdef);
  EXPECT_THAT(Text(), HasSubstr("the same version, but other weights"));
}

TEST_F(MismatchTextTest, AnActorThatFailedSaysWhy) {
  rollout_.clear_trace();
  rollout_.set_error("job 'maths' is not loaded");
  std::string text = Text();
  EXPECT_THAT(text, HasSubstr("job 'maths' is not loaded\n"));
  EXPECT_THAT(text, Not(HasSubstr("trainer-0 and rollout-0")));
}

}  // namespace
}  // namespace rein::cli
