#include "services/trainer/trainer_session.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/config/defaults.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

v1::LoadTrainerRequest LoadRequest(const std::string& checkpoint = "", uint64_t lineage = 1) {
  v1::LoadTrainerRequest request;
  request.mutable_fence()->set_job("digits");
  v1::JobConfig& job = *request.mutable_job();
  job.set_name("digits");
  job.mutable_model()->set_config("tests/golden/models/qwen3");
  job.mutable_grpo()->set_updates(10);
  job.mutable_trainer()->set_learning_rate(1e-2);
  config::ApplyDefaults(job);
  request.set_lineage(lineage);
  request.set_checkpoint_path(checkpoint);
  return request;
}

std::unique_ptr<TrainerSession> Open(const v1::LoadTrainerRequest& request) {
  auto session = TrainerSession::Open(request, "cpu");
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

v1::UpdateRequest Batch(uint64_t update) {
  v1::UpdateRequest request;
  request.set_update(update);
  for (uint32_t i = 0; i < 4; ++i) {
    v1::TrainingSequence* s = request.add_sequences();
    for (uint32_t id : {5u, 6u, 7u + i, 8u + static_cast<uint32_t>(update)}) s->add_token_ids(id);
    s->set_loss_mask(std::string("\0\0\1\1", 4));
    s->add_behaviour_logprobs(-4);
    s->add_behaviour_logprobs(-4);
    s->set_group(i / 2);
    s->set_reward(i % 2);
    s->set_id(absl::StrCat("0/", i / 2, "/", i));
  }
  return request;
}

class TrainerSessionTest : public testing::Test {
 protected:
  TrainerSessionTest() { fs::create_directories(folder_); }
  ~TrainerSessionTest() override { fs::remove_all(folder_); }

  std::string folder_ = absl::StrCat(testing::TempDir(), "/trainer_session_", getpid());
};

TEST_F(TrainerSessionTest, UpdatesAreIdempotentByNumber) {
  auto session = Open(LoadRequest());
  auto first = session->Update(Batch(1));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->version().number(), 1u);
  EXPECT_EQ(first->advantages_size(), 4);
  auto again = session->Update(Batch(1));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(session->version().number(), 1u);
  absl::Status skipped = session->Update(Batch(3)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(skipped));
  EXPECT_THAT(std::string(skipped.message()), HasSubstr("got update 3, the next is 2"));
}

TEST_F(TrainerSessionTest, AResumedRunHasTheBitsOfAnUninterruptedOne) {
  auto whole = Open(LoadRequest());
  ASSERT_TRUE(whole->Update(Batch(1)).ok());
  v1::SaveRequest save;
  save.set_path(folder_ + "/checkpoint-1");
  save.set_controller_state("cursor 7");
  ASSERT_TRUE(whole->Save(save).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(whole->Save(save).status()));
  auto resumed = Open(LoadRequest(save.path(), 2));
  EXPECT_EQ(resumed->Loaded().controller_state(), "cursor 7");
  EXPECT_EQ(resumed->version().lineage(), 2u);
  EXPECT_EQ(resumed->version().number(), 1u);
  EXPECT_EQ(resumed->digest(), whole->digest());
  for (uint64_t update : {2, 3}) {
    ASSERT_TRUE(whole->Update(Batch(update)).ok());
    ASSERT_TRUE(resumed->Update(Batch(update)).ok());
    EXPECT_EQ(resumed->digest(), whole->digest());
  }
}

TEST_F(TrainerSessionTest, ADamagedCheckpointIsRefused) {
  auto session = Open(LoadRequest());
  v1::SaveRequest save;
  save.set_path(folder_ + "/c");
  ASSERT_TRUE(session->Save(save).ok());
  std::fstream file(save.path() + "/optimizer.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('\x55');
  file.close();
  absl::Status status = TrainerSession::Open(LoadRequest(save.path()), "cpu").status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("optimizer.safetensors"));
}

// A child saves in a loop and is killed at some moment: whatever has its final name is whole.
TEST_F(TrainerSessionTest, KilledWhileSavingLeavesOnlyWholeCheckpoints) {
  for (int delay_ms : {3, 11, 29}) {
    pid_t child = fork();
    if (child == 0) {
      at::set_num_threads(1);  // the pool of threads stayed in the parent
      auto session = TrainerSession::Open(LoadRequest(), "cpu");
      for (int i = 0;; ++i) {
        v1::SaveRequest save;
        save.set_path(absl::StrCat(folder_, "/", delay_ms, "-", i));
        if (!(*session)->Save(save).ok()) _exit(1);
      }
    }
    while (!fs::exists(absl::StrCat(folder_, "/", delay_ms, "-0"))) usleep(1000);
    usleep(delay_ms * 1000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  int whole = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().filename().string()[0] == '.') continue;
    EXPECT_TRUE(TrainerSession::Open(LoadRequest(entry.path()), "cpu").ok()) << entry.path();
    ++whole;
  }
  EXPECT_GE(whole, 3);
}

TEST_F(TrainerSessionTest, ServesTheWeightsOfAJobThatOnlyEvaluates) {
  v1::LoadTrainerRequest request = LoadRequest();
  request.mutable_job()->mutable_evaluate();
  auto session = TrainerSession::Open(request, "cpu");
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_NE((*session)->digest(), 0u);
}

TEST_F(TrainerSessionTest, SaysWhyAModelCannotBeLoaded) {
  v1::LoadTrainerRequest request = LoadRequest();
  request.mutable_job()->mutable_model()->set_config("/nonexistent/config.json");
  EXPECT_TRUE(absl::IsNotFound(TrainerSession::Open(request, "cpu").status()));
  request = LoadRequest();
  request.mutable_job()->mutable_model()->set_max_length(1000);
  EXPECT_THAT(std::string(TrainerSession::Open(request, "cpu").status().message()),
              HasSubstr("model.max_length is 1000, but the model's context is 64"));
}

}  // namespace
}  // namespace rein::services
