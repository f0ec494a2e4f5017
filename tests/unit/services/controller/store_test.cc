#include "services/controller/store.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/controller/actor_registry.h"
#include "services/controller/store_schema.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/store_test";
    std::filesystem::remove_all(folder_);
    Open();
  }

  void Open() {
    store_.reset();
    auto store = Store::Open({.folder = folder_});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  JobRecord Job(const std::string& name) {
    JobRecord job{.name = name, .request_id = "r-" + name, .config_hash = "abc"};
    job.config.set_name(name);
    job.digest = 0xFEDCBA9876543210;
    return job;
  }

  std::string folder_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, KeepsWhatWasCommittedAndNothingElse) {
  ASSERT_TRUE(store_->InsertJob(Job("first")).ok());
  ASSERT_TRUE(store_->Commit().ok());
  JobRecord changed = Job("first");
  changed.updates_done = 7;
  ASSERT_TRUE(store_->UpdateJob(changed).ok());
  ASSERT_TRUE(store_->InsertJob(Job("second")).ok());
  Open();  // as after a crash
  std::vector<JobRecord> jobs = *store_->ReadJobs();
  ASSERT_EQ(jobs.size(), 1);
  EXPECT_EQ(jobs[0].name, "first");
  EXPECT_EQ(jobs[0].updates_done, 0);
  EXPECT_EQ(jobs[0].digest, 0xFEDCBA9876543210);
  EXPECT_EQ(jobs[0].config.name(), "first");
}

TEST_F(StoreTest, EventsAreNumberedPerJobWithoutGaps) {
  for (const char* job : {"a", "b", "a"}) {
    v1::JobEvent event;
    event.set_message(job);
    ASSERT_TRUE(store_->AppendEvent(job, event).ok());
  }
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  std::vector<v1::JobEvent> events = *store_->ReadEvents("a", 0);
  ASSERT_EQ(events.size(), 2);
  EXPECT_EQ(events[0].sequence(), 1);
  EXPECT_EQ(events[1].sequence(), 2);
  EXPECT_EQ(store_->ReadEvents("a", 1)->size(), 1);
}

TEST_F(StoreTest, CheckpointsEvalsAndUpdatesComeBack) {
  v1::Checkpoint checkpoint;
  checkpoint.set_path("p");
  for (uint32_t number : {1, 2}) {
    checkpoint.set_number(number);
    ASSERT_TRUE(store_->InsertCheckpoint("a", checkpoint).ok());
  }
  ASSERT_TRUE(store_->DeleteCheckpoint("a", 1).ok());
  v1::EvalResult eval;
  eval.set_update(3);
  ASSERT_TRUE(store_->PutEval("a", eval).ok());
  eval.set_accuracy(0.5);
  ASSERT_TRUE(store_->PutEval("a", eval).ok());
  v1::UpdateRecord update;
  update.set_update(4);
  ASSERT_TRUE(store_->PutUpdate("a", update).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  ASSERT_EQ(store_->ReadCheckpoints("a")->size(), 1);
  EXPECT_EQ(store_->ReadCheckpoints("a")->front().number(), 2);
  ASSERT_EQ(store_->ReadEvals("a")->size(), 1);
  EXPECT_EQ(store_->ReadEvals("a")->front().accuracy(), 0.5);
  EXPECT_EQ((*store_->ReadUpdate("a", 9))->update(), 4);
  EXPECT_FALSE(store_->ReadUpdate("a", 3)->has_value());
}

TEST_F(StoreTest, ASecondControllerOnTheFolderIsRefused) {
  auto second = Store::Open({.folder = folder_});
  EXPECT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("database is locked"));
}

TEST_F(StoreTest, AStoreOfAnOlderSchemaIsBroughtUpToDate) {
  const std::string folder = folder_ + "/old";
  std::filesystem::create_directories(folder);
  auto database = *Database::Open(folder + "/controller.db", /*durable=*/true);
  ASSERT_TRUE(database->Begin().ok());
  ASSERT_TRUE(database->Execute(kSchemaSteps[0]).ok());
  ASSERT_TRUE(database->Execute("PRAGMA user_version = 1; INSERT INTO jobs VALUES (1, CAST('old' AS BLOB), 'r', "
                                "x'', 'h', 3, '', 1, 0, 9, 4, 1, 2, 7, 0, 5, 0, 'out')")
                  .ok());
  ASSERT_TRUE(database->Commit().ok());
  database.reset();
  auto store = Store::Open({.folder = folder});
  ASSERT_TRUE(store.ok()) << store.status();
  std::vector<JobRecord> jobs = *(*store)->ReadJobs();
  ASSERT_EQ(jobs.size(), 1);
  EXPECT_EQ(jobs[0].name, "old");
  EXPECT_EQ(jobs[0].updates_done, 4);
  EXPECT_FALSE(jobs[0].pausing);
  jobs[0].pausing = true;
  ASSERT_TRUE((*store)->UpdateJob(jobs[0]).ok());
  EXPECT_TRUE((*store)->ReadJobs()->front().pausing);
}

TEST_F(StoreTest, AStoreOfANewerSchemaIsRefused) {
  ASSERT_TRUE(store_->database().Execute("PRAGMA user_version = 99").ok());
  store_.reset();
  absl::Status status = Store::Open({.folder = folder_}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("schema version 99, this program knows up to"));
}

class ActorRegistryTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    OpenRegistry();
  }

  void OpenRegistry() { registry_ = *ActorRegistry::Open(*store_, clock_, absl::Seconds(10)); }

  absl::StatusOr<v1::RegisterReply> Register(const std::string& name, const std::string& life) {
    v1::RegisterRequest request;
    request.set_role("rollout");
    request.set_name(name);
    request.set_address("127.0.0.1:1");
    request.set_incarnation(life);
    return registry_->Register(request);
  }

  absl::Status Beat(const std::string& name, uint64_t epoch) {
    v1::HeartbeatRequest request;
    request.set_name(name);
    request.set_actor_epoch(epoch);
    return registry_->Heartbeat(request).status();
  }

  sync::VirtualClock clock_{absl::FromUnixSeconds(1000)};
  std::unique_ptr<ActorRegistry> registry_;
};

TEST_F(ActorRegistryTest, ALeaseThatRanOutEndsTheEpoch) {
  uint64_t epoch = Register("rollout-0", "x")->actor_epoch();
  clock_.Advance(absl::Seconds(9));
  EXPECT_TRUE(Beat("rollout-0", epoch).ok());
  clock_.Advance(absl::Seconds(9));
  registry_->ExpireLeases();
  EXPECT_EQ(registry_->Actors()[0].state(), kActorReady);
  clock_.Advance(absl::Seconds(2));
  absl::Status late = Beat("rollout-0", epoch);
  EXPECT_EQ(late.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(late.message(), "the lease of rollout-0 ran out: register again");
  registry_->ExpireLeases();
  EXPECT_EQ(registry_->Actors()[0].state(), kActorLost);
  EXPECT_GT(Register("rollout-0", "x")->actor_epoch(), epoch);
  EXPECT_EQ(Beat("rollout-0", epoch).message(),
            "actor epoch 1 of rollout-0 is over, the current one is 2");
}

TEST_F(ActorRegistryTest, ANewProcessTakesTheNameAndTheOldOneCannotTakeItBack) {
  ASSERT_TRUE(Register("rollout-0", "old").ok());
  ASSERT_TRUE(Register("rollout-0", "new").ok());
  absl::Status status = Register("rollout-0", "old").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another process has taken the name"));
  clock_.Advance(absl::Seconds(11));  // the new one is gone as well
  EXPECT_TRUE(Register("rollout-0", "old").ok());
}

TEST_F(ActorRegistryTest, EpochsGoOnAfterARestartOfTheController) {
  uint64_t epoch = Register("rollout-0", "x")->actor_epoch();
  uint64_t controller = registry_->controller_epoch();
  registry_.reset();
  Open();
  OpenRegistry();
  EXPECT_EQ(registry_->controller_epoch(), controller + 1);
  EXPECT_TRUE(Beat("rollout-0", epoch).ok());
  EXPECT_GT(Register("rollout-1", "y")->actor_epoch(), epoch);
}

TEST_F(ActorRegistryTest, WrongRegistrationsAreNamed) {
  v1::RegisterRequest request;
  request.set_role("generator");
  EXPECT_EQ(registry_->Register(request).status().message(),
            "role: wants trainer, rollout, reference or reward, got 'generator'");
  EXPECT_EQ(Beat("nobody", 1), absl::NotFoundError("no actor nobody is registered"));
}

}  // namespace
}  // namespace rein::services
