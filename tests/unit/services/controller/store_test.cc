#include "services/controller/store.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/controller/actor_registry.h"
#include "services/controller/sqlite_database.h"
#include "services/controller/store_schema.h"
#include "tests/unit/services/controller/store_place.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;

class StoreTest : public ::testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override {
    if (!place_.Make(GetParam(), "store_test")) GTEST_SKIP() << fakes::PostgresProcess::why_not();
    Open();
  }

  // As after a crash: what was not committed is gone.
  void Open() {
    store_.reset();
    auto store = place_.Open();
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  JobRecord Job(const std::string& name) {
    JobRecord job{.name = name, .request_id = "r-" + name, .config_hash = "abc"};
    job.config.set_name(name);
    job.digest = 0xFEDCBA9876543210;
    return job;
  }

  StorePlace place_;
  std::unique_ptr<Store> store_;
};
REIN_FOR_EACH_STORE(StoreTest);

TEST_P(StoreTest, KeepsWhatWasCommittedAndNothingElse) {
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

TEST_P(StoreTest, EventsAreNumberedPerJobWithoutGaps) {
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

TEST_P(StoreTest, CheckpointsEvalsAndUpdatesComeBack) {
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

TEST_P(StoreTest, TextsAreBytes) {
  const std::string bytes("\xff\x00 \xc3\xa4 ' \\ ?", 10);
  JobRecord job = Job("bytes");
  job.message = bytes;
  job.submitted_at = 1.0 / 3;
  ASSERT_TRUE(store_->InsertJob(job).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  ASSERT_EQ(store_->ReadJobs()->size(), 1);
  EXPECT_EQ(store_->ReadJobs()->front().message, bytes);
  EXPECT_EQ(store_->ReadJobs()->front().submitted_at, 1.0 / 3);
}

TEST_P(StoreTest, WhatIsTakenBackIsGoneAndTheRestGoesOn) {
  ASSERT_TRUE(store_->InsertJob(Job("kept")).ok());
  ASSERT_TRUE(store_->Commit().ok());
  ASSERT_TRUE(store_->InsertJob(Job("taken back")).ok());
  EXPECT_EQ(store_->ReadJobs()->size(), 2);  // a read sees the writes before it
  store_->database().Rollback();
  EXPECT_EQ(store_->ReadJobs()->size(), 1);
  ASSERT_TRUE(store_->InsertJob(Job("next")).ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  ASSERT_EQ(store_->ReadJobs()->size(), 2);
  EXPECT_EQ(store_->ReadJobs()->back().name, "next");
}

TEST_P(StoreTest, ARefusedWriteIsNamedAndStopsNothingAfterIt) {
  ASSERT_TRUE(store_->InsertJob(Job("twice")).ok());
  ASSERT_TRUE(store_->Commit().ok());
  absl::Status refused = store_->InsertJob(Job("twice"));
  if (refused.ok()) refused = store_->Commit();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists) << refused;
  store_->database().Rollback();
  EXPECT_EQ(*store_->Increment("c"), 1);
  EXPECT_TRUE(store_->Commit().ok());
}

TEST_P(StoreTest, CountersNeverGoBack) {
  EXPECT_EQ(*store_->Increment("c"), 1);
  EXPECT_EQ(*store_->Increment("c"), 2);
  EXPECT_EQ(*store_->Increment("d"), 1);
  ASSERT_TRUE(store_->Commit().ok());
  const uint64_t epoch = *store_->ControllerEpoch();
  Open();
  EXPECT_EQ(*store_->Increment("c"), 3);
  EXPECT_GT(*store_->ControllerEpoch(), epoch);
}

TEST_P(StoreTest, ADeletedJobLeavesNoRow) {
  v1::JobEvent event;
  for (const char* name : {"gone", "stays"}) {
    ASSERT_TRUE(store_->InsertJob(Job(name)).ok());
    ASSERT_TRUE(store_->AppendEvent(name, event).ok());
  }
  ASSERT_TRUE(store_->DeleteJob("gone").ok());
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  ASSERT_EQ(store_->ReadJobs()->size(), 1);
  EXPECT_TRUE(store_->ReadEvents("gone", 0)->empty());
  EXPECT_EQ(store_->ReadEvents("stays", 0)->size(), 1);
}

TEST_P(StoreTest, AnAbandonedStoreCommitsNothing) {
  store_->database().Abandon();
  ASSERT_TRUE(store_->InsertJob(Job("never")).ok());
  EXPECT_TRUE(store_->Commit().ok());
  EXPECT_EQ(store_->ReadJobs()->size(), 1);
  Open();
  EXPECT_TRUE(store_->ReadJobs()->empty());
}

TEST_P(StoreTest, AStoreOfAnOlderSchemaIsBroughtUpToDate) {
  std::unique_ptr<Database> database;
  StoreOptions options{.folder = place_.folder() + "/old"};
  std::filesystem::create_directories(options.folder);
  std::unique_ptr<LeaderLease> lease;
  if (GetParam() == StoreKind::kSqlite) {
    database = *SqliteDatabase::Open(options.folder + "/controller.db");
  } else {
    const PostgresAddress address = place_.server()->NewDatabase();
    lease = *LeaderLease::Open(address, "test", absl::Seconds(60));
    ASSERT_TRUE(*lease->TryTake());
    options.postgres = PostgresOptions{.address = address, .epoch = lease->epoch()};
    database = *PostgresDatabase::Open(*options.postgres);
  }
  ASSERT_TRUE(database->ApplySchemaStep(kSchemaSteps[0], 1).ok());
  ASSERT_TRUE(database
                  ->Prepare("INSERT INTO jobs VALUES (1, ?, ?, ?, ?, 3, ?, 1, 0, 9, 4, 1, 2, 7, 0, 5, 0, ?)")
                  .Bind(1, std::string("old"))
                  .Bind(2, std::string("r"))
                  .Bind(3, std::string())
                  .Bind(4, std::string("h"))
                  .Bind(5, std::string())
                  .Bind(6, std::string("out"))
                  .Run()
                  .ok());
  v1::UpdateRecord record;
  for (const auto& [name, value] : {std::pair<const char*, double>{"reward", 0.5}, {"seconds", 3}}) {
    v1::Metric* metric = record.add_metrics();
    metric->set_name(name);
    metric->set_value(value);
  }
  for (uint64_t number : {3, 4, 5}) {
    record.mutable_metrics(0)->set_value(static_cast<double>(number) / 8);
    ASSERT_TRUE(database->Prepare("INSERT INTO updates VALUES (?, ?, ?)")
                    .Bind(1, std::string("old")).Bind(2, number).Bind(3, record.SerializeAsString()).Run().ok());
  }
  ASSERT_TRUE(database->Commit().ok());
  database.reset();
  auto store = Store::Open(options);
  ASSERT_TRUE(store.ok()) << store.status();
  std::vector<JobRecord> jobs = *(*store)->ReadJobs();
  ASSERT_EQ(jobs.size(), 1);
  EXPECT_EQ(jobs[0].name, "old");
  EXPECT_EQ(jobs[0].updates_done, 4);
  EXPECT_FALSE(jobs[0].pausing);
  EXPECT_EQ(jobs[0].expired, 0);
  EXPECT_EQ(jobs[0].group, "");
  ASSERT_EQ(jobs[0].figures.metrics_size(), 1) << "what a list shows, no more";
  EXPECT_EQ(jobs[0].figures.metrics(0).value(), 0.5) << "of update 4: the fifth was rolled back";
  jobs[0].pausing = true;
  ASSERT_TRUE((*store)->UpdateJob(jobs[0]).ok());
  EXPECT_TRUE((*store)->ReadJobs()->front().pausing);
}

// All of it or nothing, whichever write fails; and what another has open is not touched.
TEST_P(StoreTest, ATransactionIsKeptWholeOrTakenBack) {
  auto insert = [&](const std::string& name) { return [this, name] { return store_->InsertJob(Job(name)); }; };
  ASSERT_TRUE(store_->Transact(insert("first")).ok());
  absl::Status status = store_->Transact([&]() -> absl::Status {
    EXPECT_TRUE(store_->InsertJob(Job("second")).ok());
    absl::Status twice = store_->InsertJob(Job("first"));
    return twice.ok() ? store_->ReadJobs().status() : twice;  // a server says so with the next read
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
  EXPECT_FALSE(store_->database().HasOpenWrites());
  EXPECT_EQ(store_->ReadJobs()->size(), 1);
  ASSERT_TRUE(store_->InsertJob(Job("open")).ok());
  EXPECT_EQ(store_->Transact(insert("third")).code(), absl::StatusCode::kInternal);
  ASSERT_TRUE(store_->Commit().ok());
  Open();
  std::vector<JobRecord> jobs = *store_->ReadJobs();
  ASSERT_EQ(jobs.size(), 2);
  EXPECT_EQ(jobs[1].name, "open");
}

// Where the database ends a transaction by itself, as on a full disk, nothing that comes after is kept on its own.
TEST(SqliteStoreTest, AfterAWriteThatFailedNothingIsKeptUntilTheRollback) {
  StorePlace place;
  ASSERT_TRUE(place.Make(StoreKind::kSqlite, "store_test_full"));
  auto store = *place.Open();
  JobRecord job{.name = "kept"};
  ASSERT_TRUE(store->InsertJob(job).ok());
  ASSERT_TRUE(store->Commit().ok());
  auto pages = store->database().Prepare("PRAGMA page_count");
  ASSERT_TRUE(pages.Next());
  auto bound = store->database().Prepare(absl::StrCat("PRAGMA max_page_count = ", pages.Unsigned(0) + 4));
  ASSERT_TRUE(bound.Next());
  job.name = "small";
  ASSERT_TRUE(store->InsertJob(job).ok());
  job.name = "large";
  job.message = std::string(1 << 20, 'x');
  EXPECT_EQ(store->InsertJob(job).code(), absl::StatusCode::kResourceExhausted);
  job = {.name = "after"};
  EXPECT_FALSE(store->InsertJob(job).ok());
  EXPECT_FALSE(store->Commit().ok());
  store->database().Rollback();
  EXPECT_EQ(store->ReadJobs()->size(), 1);
  job.name = "later";
  ASSERT_TRUE(store->InsertJob(job).ok());
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_EQ(store->ReadJobs()->size(), 2);
}

TEST_P(StoreTest, AStoreOfANewerSchemaIsRefused) {
  ASSERT_TRUE(store_->database().ApplySchemaStep("", 99).ok());
  store_.reset();
  absl::Status status = place_.Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("schema version 99, this program knows up to"));
}

TEST(SqliteStoreTest, ASecondControllerOnTheFolderIsRefused) {
  StorePlace place;
  ASSERT_TRUE(place.Make(StoreKind::kSqlite, "store_test_two"));
  auto first = place.Open();
  auto second = place.Open();
  EXPECT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("database is locked"));
}

class ActorRegistryTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    if (store_ != nullptr) OpenRegistry();
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
REIN_FOR_EACH_STORE(ActorRegistryTest);

TEST_P(ActorRegistryTest, ALeaseThatRanOutEndsTheEpoch) {
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

TEST_P(ActorRegistryTest, ANewProcessTakesTheNameAndTheOldOneCannotTakeItBack) {
  ASSERT_TRUE(Register("rollout-0", "old").ok());
  ASSERT_TRUE(Register("rollout-0", "new").ok());
  absl::Status status = Register("rollout-0", "old").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another process has taken the name"));
  clock_.Advance(absl::Seconds(11));  // the new one is gone as well
  EXPECT_TRUE(Register("rollout-0", "old").ok());
}

TEST_P(ActorRegistryTest, AnActorIsOfAGroup) {
  v1::RegisterRequest request;
  request.set_role("trainer");
  request.set_name("trainer");
  request.set_address("127.0.0.1:1");
  request.set_incarnation("x");
  ASSERT_TRUE(registry_->Register(request).ok());
  request.set_group("second");
  request.set_incarnation("y");
  absl::Status taken = registry_->Register(request).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(taken.message(), "trainer is an actor of group default at 127.0.0.1:1: give this one of group second its own --name");
  request.set_name("second-trainer");
  ASSERT_TRUE(registry_->Register(request).ok());
  request.set_group("a/b");
  EXPECT_EQ(registry_->Register(request).status().message(),
            "group: wants at most 63 of a-z, 0-9 and -, not - in front; got 'a/b'");
  request.set_group("rewards");
  request.set_role("reward");
  request.set_name("reward");
  ASSERT_TRUE(registry_->Register(request).ok());
  // What an older controller has stored says none.
  ActorRecord old;
  old.actor.set_role("rollout");
  old.actor.set_name("old");
  old.actor.set_state(kActorReady);
  ASSERT_TRUE(store_->PutActor(old).ok());
  ASSERT_TRUE(store_->Commit().ok());
  registry_.reset();
  Open();
  OpenRegistry();
  ASSERT_EQ(registry_->ActorsOf("second").size(), 1);
  EXPECT_EQ(registry_->ActorsOf("second")[0].name(), "second-trainer");
  EXPECT_EQ(registry_->ActorsOf("default").size(), 2);
  const std::map<std::string, bool> groups = {{"default", true}, {"rewards", false}, {"second", true}};
  EXPECT_EQ(registry_->Groups(), groups);
  clock_.Advance(absl::Seconds(11));
  registry_->ExpireLeases();
  EXPECT_FALSE(registry_->Groups().at("second")) << "a trainer that is lost is none";
}

TEST_P(ActorRegistryTest, EpochsGoOnAfterARestartOfTheController) {
  uint64_t epoch = Register("rollout-0", "x")->actor_epoch();
  uint64_t controller = registry_->controller_epoch();
  registry_.reset();
  Open();
  OpenRegistry();
  EXPECT_EQ(registry_->controller_epoch(), controller + 1);
  EXPECT_TRUE(Beat("rollout-0", epoch).ok());
  EXPECT_GT(Register("rollout-1", "y")->actor_epoch(), epoch);
}

TEST_P(ActorRegistryTest, TheRanksOfATrainerShareTheirFate) {
  auto join = [&](const std::string& name, uint32_t rank, const std::string& address) {
    v1::RegisterRequest request;
    request.set_role("trainer");
    request.set_name(name);
    request.set_address(address);
    request.set_incarnation(name);
    request.set_rank(rank);
    if (rank == 0) request.add_peers("127.0.0.1:2");
    return registry_->Register(request);
  };
  auto state = [&](const std::string& name) {
    registry_->ExpireLeases();
    for (const v1::Actor& actor : registry_->Actors()) {
      if (actor.name() == name) return actor.state();
    }
    return std::string("unknown");
  };
  const uint64_t other = join("other", 1, "127.0.0.1:9")->actor_epoch();  // of no group here
  const uint64_t rank = join("trainer-1", 1, "127.0.0.1:2")->actor_epoch();
  const uint64_t leader = join("trainer-0", 0, "127.0.0.1:1")->actor_epoch();
  clock_.Advance(absl::Seconds(9));
  for (auto [name, epoch] : {std::pair{"trainer-1", rank}, {"trainer-0", leader}, {"other", other}}) {
    EXPECT_TRUE(Beat(name, epoch).ok());
  }
  EXPECT_EQ(registry_->Actors()[2].rank(), 1);
  clock_.Advance(absl::Seconds(9));
  EXPECT_TRUE(Beat("trainer-0", leader).ok());
  EXPECT_EQ(state("trainer-0"), kActorReady);
  clock_.Advance(absl::Seconds(2));  // rank 1 is frozen
  EXPECT_EQ(state("trainer-1"), kActorLost);
  EXPECT_EQ(state("trainer-0"), kActorLost);
  EXPECT_EQ(Beat("trainer-0", leader).message(),
            "the lease of trainer-0, or of another rank of it, ran out: register again");
  absl::Status early = join("trainer-0", 0, "127.0.0.1:1").status();
  EXPECT_EQ(early.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(early.message(), "rank 1 of this trainer (trainer-1 at 127.0.0.1:2) is lost: it has to be back first");
  EXPECT_TRUE(join("trainer-1", 1, "127.0.0.1:2").ok());
  EXPECT_GT(join("trainer-0", 0, "127.0.0.1:1")->actor_epoch(), leader);
  EXPECT_EQ(state("trainer-0"), kActorReady);
}

TEST_P(ActorRegistryTest, WrongRegistrationsAreNamed) {
  v1::RegisterRequest request;
  request.set_role("generator");
  EXPECT_EQ(registry_->Register(request).status().message(),
            "role: wants trainer, rollout, reference or reward, got 'generator'");
  EXPECT_EQ(Beat("nobody", 1), absl::NotFoundError("no actor nobody is registered"));
}

}  // namespace
}  // namespace rein::services
