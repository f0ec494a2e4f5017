// Several groups of actors under one controller: who runs where, and that runs share one store without harm.

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config/job_reader.h"
#include "services/controller/controller.h"
#include "services/controller/placement.h"
#include "tests/fakes/fake_prompts.h"
#include "tests/fakes/fake_services.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

// The services of each group are its own.
class GroupsConnector final : public ActorConnector {
 public:
  std::unique_ptr<Trainer> ConnectTrainer(const v1::Actor& actor) override { return Of(actor.group()).ConnectTrainer(actor); }
  std::unique_ptr<Generator> ConnectGenerator(const v1::Actor& actor) override { return Of(actor.group()).ConnectGenerator(actor); }
  std::unique_ptr<Reference> ConnectReference(const v1::Actor& actor) override { return Of(actor.group()).ConnectReference(actor); }
  std::unique_ptr<Rewarder> ConnectRewarder(const v1::Actor& actor) override { return Of(actor.group()).ConnectRewarder(actor); }
  std::unique_ptr<EnvironmentClient> ConnectEnvironment(const std::string& address) override {
    return Of(config::kDefaultGroup).ConnectEnvironment(address);
  }
  fakes::FakeServices& Of(const std::string& group) {
    auto& services = groups_[group];
    if (services == nullptr) services = std::make_unique<fakes::FakeServices>();
    return *services;
  }
  bool Pump() {
    bool any = false;
    for (auto& [group, services] : groups_) any = services->Pump() || any;
    return any;
  }

 private:
  std::map<std::string, std::unique_ptr<fakes::FakeServices>> groups_;
};

absl::StatusOr<v1::RegisterReply> Register(ActorRegistry& registry, const std::string& group, const std::string& role) {
  v1::RegisterRequest request;
  request.set_role(role);
  request.set_group(group);
  request.set_name(group + "-" + role);
  request.set_address("fake");
  request.set_device("cpu");
  request.set_incarnation(group);
  return registry.Register(request);
}

JobRecord Named(const std::string& name, const std::string& group = "", const std::string& owner = "") {
  JobRecord job{.name = name, .owner = owner};
  if (!group.empty()) job.config.mutable_placement()->set_group(group);
  return job;
}

TEST(PlacementTest, AJobRunsOnTheGroupThatItNamesElseOnTheFirstFreeOneWithATrainer) {
  const JobRecord other = Named("other");
  ActorGroups groups = {{"a", {}}, {"b", {.has_trainer = true, .runs = &other}}, {"c", {.has_trainer = true}}, {"d", {.has_trainer = true}}};
  EXPECT_EQ(GroupFor(Named("job"), groups), "c");
  EXPECT_EQ(GroupFor(Named("job", "d"), groups), "d");
  EXPECT_EQ(GroupFor(Named("job", "a"), groups), std::nullopt);
  EXPECT_EQ(GroupFor(Named("job", "b"), groups), std::nullopt);
  EXPECT_EQ(GroupFor(Named("job", "e"), groups), std::nullopt);
  EXPECT_EQ(GroupFor(Named("job"), {}), std::nullopt);
}

TEST(PlacementTest, AJobThatWaitsSaysWhy) {
  const JobRecord one = Named("one"), two = Named("two", "", "maths");
  ActorGroups groups = {{"a", {}}, {"b", {.has_trainer = true, .runs = &one}}};
  EXPECT_EQ(WhyItWaits(Named("job"), groups), "waits for a free group: b runs one");
  EXPECT_EQ(WhyItWaits(Named("job", "b"), groups), "waits for its group: b runs one");
  EXPECT_EQ(WhyItWaits(Named("job", "a"), groups), "waits for a trainer: no trainer of group a is here");
  EXPECT_EQ(WhyItWaits(Named("job", "e"), groups), "waits for a trainer: no trainer of group e is here");
  EXPECT_EQ(WhyItWaits(Named("job"), {{"a", {}}}), "waits for a trainer");
  groups["b"].runs = nullptr;
  EXPECT_EQ(WhyItWaits(Named("job"), groups), "");
  for (const char* name : {"b", "c", "d", "e", "f", "g"}) groups[name] = {.has_trainer = true, .runs = &two};
  EXPECT_EQ(WhyItWaits(Named("job", "", "maths"), groups),
            "waits for a free group: b runs two, c runs two, d runs two, e runs two, and 2 more");
  EXPECT_THAT(WhyItWaits(Named("job", "", "physics"), groups), HasSubstr("b runs a job of another tenant,")) << "no names of others";
}

// Two runs take turns on one store.
class TwoRunsTest : public ::testing::Test {
 protected:
  struct One {
    JobRecord job;
    std::unique_ptr<RunLoop> run;
    fakes::FakePrompts prompts{20};
  };

  void Open() {
    for (auto& [group, one] : runs_) one.run.reset();
    registry_.reset();
    store_.reset();
    store_ = *Store::Open({.folder = folder_, .durable = false});
    registry_ = *ActorRegistry::Open(*store_, clock_, absl::Hours(100));
  }

  void SetUp() override {
    fs::remove_all(folder_);
    Open();
    for (const char* group : {"a", "b"}) {
      JobRecord& job = runs_[group].job;
      job.name = std::string("job-") + group;
      job.output = "/" + job.name;
      job.config.set_name(job.name);
      job.config.set_seed(7);
      job.config.mutable_data()->mutable_train()->set_file("train.jsonl");
      job.config.mutable_checkpoint()->set_keep(2);
      job.config.mutable_failure()->set_max_attempts(2);
      job.config.add_rewards()->mutable_numeric();
      job.config.mutable_grpo()->set_updates(3);
      job.config.mutable_grpo()->set_prompts(2);
      job.config.mutable_grpo()->set_group_size(2);
      ASSERT_TRUE(store_->InsertJob(job).ok());
      for (const char* role : {"trainer", "rollout", "reference", "reward"}) {
        ASSERT_TRUE(store_->Commit().ok());
        ASSERT_TRUE(Register(*registry_, group, role).ok());
      }
    }
    // A row that no commit takes.
    ASSERT_TRUE(store_->database()
                    .Write("CREATE TABLE refused (job TEXT REFERENCES jobs (name) DEFERRABLE INITIALLY DEFERRED)", {})
                    .ok());
    ASSERT_TRUE(store_->Commit().ok());
  }

  void Begin(const std::string& group) {
    One& one = runs_[group];
    auto run = RunLoop::Begin({.store = *store_,
                               .registry = *registry_,
                               .connector = connector_,
                               .clock = clock_,
                               .recorder = recorder_,
                               .group = group,
                               .train = &one.prompts},
                              one.job);
    ASSERT_TRUE(run.ok()) << run.status();
    one.run = *std::move(run);
  }

  // As the controller steps and ends them; true once the run has ended.
  bool Step(One& one) {
    if (one.run->outcome().has_value()) return true;
    until_ = std::min(until_, one.run->Step());
    if (!one.run->outcome().has_value()) {
      EXPECT_FALSE(store_->database().HasOpenWrites()) << "a run that goes on leaves none to others";
      return false;
    }
    if (!one.run->Commit().ok()) store_->database().Rollback();
    EXPECT_FALSE(store_->database().HasOpenWrites());
    return true;
  }

  void Advance() {
    if (!connector_.Pump() && until_ != absl::InfiniteFuture()) clock_.AdvanceTo(std::max(clock_.Now(), until_));
    until_ = absl::InfiniteFuture();
  }

  JobRecord Stored(const std::string& name) {
    const std::vector<JobRecord> jobs = *store_->ReadJobs();
    for (const JobRecord& job : jobs) {
      if (job.name == name) return job;
    }
    ADD_FAILURE() << name << " is not stored";
    return {};
  }

  // That the ledger, as it is stored, has what the job says.
  void ExpectWhole(const std::string& name) {
    const JobRecord job = Stored(name);
    auto ledger = *Ledger::Open(*store_, name);
    std::map<uint64_t, int> consumed;
    for (const auto& [order, group] : ledger->groups()) {
      if (group.state == GroupState::kConsumed) ++consumed[group.update];
      for (uint32_t i = 0; i < group.siblings.size(); ++i) {
        EXPECT_TRUE(!group.siblings[i].stored || ledger->Read(order, i).ok()) << "a rollout that is not there";
      }
    }
    ASSERT_EQ(consumed.size(), job.updates_done);
    for (uint64_t update = 1; update <= job.updates_done; ++update) EXPECT_EQ(consumed[update], 2) << update;
  }

  const std::string folder_ = testing::TempDir() + "/two_runs_test";
  sync::VirtualClock clock_{absl::FromUnixSeconds(1000)};
  absl::Time until_ = absl::InfiniteFuture();
  GroupsConnector connector_;
  fakes::FakeRecorder recorder_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<ActorRegistry> registry_;
  std::map<std::string, One> runs_;
};

TEST_F(TwoRunsTest, EachUsesTheActorsOfItsGroupAlone) {
  Begin("a");
  Begin("b");
  for (int i = 0; i < 10000; ++i) {
    const bool a = Step(runs_["a"]), b = Step(runs_["b"]);
    if (a && b) break;
    Advance();
  }
  for (const char* group : {"a", "b"}) {
    EXPECT_EQ(runs_[group].run->outcome()->state, v1::JOB_STATE_SUCCEEDED) << runs_[group].run->outcome()->message;
    EXPECT_EQ(connector_.Of(group).trainer_service.weights().job, runs_[group].job.name);
    EXPECT_EQ(connector_.Of(group).truth.updates_made, 3);
    EXPECT_TRUE(connector_.Of(group).truth.violations.empty());
    ExpectWhole(runs_[group].job.name);
  }
  EXPECT_EQ(runs_["a"].job.digest, runs_["b"].job.digest) << "the same job, undisturbed by the other";
}

// Whenever a commit of one run fails, that run ends with what was stored before, and can go on; the other never notices.
TEST_F(TwoRunsTest, AFailedCommitIsTakenBackOfOneRunAlone) {
  uint64_t digest = 0;
  int failures = 0;
  for (int doomed = 0;; ++doomed) {
    runs_.clear();
    connector_ = GroupsConnector();
    SetUp();
    Begin("a");
    Begin("b");
    int steps = 0;
    bool failed = false;
    for (int i = 0; i < 10000; ++i) {
      One& a = runs_["a"];
      if (!failed && steps++ == doomed && !a.run->outcome().has_value()) {
        failed = true;
        ASSERT_TRUE(store_->database().Write("INSERT INTO refused VALUES ('nobody')", {}).ok());
        ASSERT_TRUE(Step(a));
        EXPECT_THAT(std::string(a.run->Commit().message()), HasSubstr("FOREIGN KEY"));
        EXPECT_TRUE(a.run->outcome()->state == v1::JOB_STATE_SUCCEEDED || a.run->outcome()->message == a.run->Commit().message());
        ExpectWhole("job-a");
        EXPECT_EQ(Stored("job-b").cursor_position, runs_["b"].job.cursor_position);
        EXPECT_EQ(Stored("job-b").updates_done, runs_["b"].job.updates_done);
        a.run.reset();
        a.job = Stored("job-a");  // resumed
        Begin("a");
      }
      const bool ended_a = Step(a), ended_b = Step(runs_["b"]);
      if (ended_a && ended_b) break;
      Advance();
    }
    for (const char* group : {"a", "b"}) {
      ASSERT_EQ(runs_[group].run->outcome()->state, v1::JOB_STATE_SUCCEEDED) << doomed << ": " << runs_[group].run->outcome()->message;
      ExpectWhole(runs_[group].job.name);
      EXPECT_TRUE(connector_.Of(group).truth.violations.empty()) << connector_.Of(group).truth.violations.front();
    }
    if (digest == 0) digest = runs_["b"].job.digest;
    EXPECT_EQ(runs_["a"].job.digest, digest) << doomed;
    EXPECT_EQ(runs_["b"].job.digest, digest) << doomed;
    EXPECT_EQ(connector_.Of("b").truth.updates_made, 3) << "the other made each Update once";
    if (!failed) break;
    ++failures;
  }
  EXPECT_GT(failures, 10);
}

// The controller with services that answer at once, on data of its own.
class ControllerGroupsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / "controller_groups_test";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    fs::copy("configs/models/digits", folder_ / "model");
    std::ofstream data(folder_ / "train.jsonl");
    for (int i = 0; i < 20; ++i) data << "{\"prompt\": \"max(1,2," << i % 10 << ")\", \"answer\": \"" << i << "\"}\n";
    log_ = *telemetry::Log::Create({.role = "controller", .actor = "c", .file = (folder_ / "c.log").string()});
    Start();
  }

  void Start() {
    controller_.reset();
    recorder_ = std::make_unique<JobRecorder>(clock_, metrics_, *log_);
    controller_ = *Controller::Create({.folder = (folder_ / "state").string(), .lease = absl::Hours(100)}, clock_,
                                      connector_, *recorder_, [] {});
  }

  void AddGroup(const std::string& group) {
    for (const char* role : {"trainer", "rollout", "reference", "reward"}) {
      ASSERT_TRUE(Register(controller_->registry(), group, role).ok());
    }
  }

  absl::StatusOr<v1::Job> Submit(const std::string& name, const std::string& group = "", uint32_t updates = 2,
                                 const std::string& owner = "", const std::string& override = "") {
    config::JobText text{.yaml = "model: {config: model}\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n"
                                 "grpo: {prompts: 2, group_size: 2, max_completion_tokens: 8}\n",
                         .file_name = "job",
                         .overrides = {"name=" + name, absl::StrCat("grpo.updates=", updates)},
                         .folder = folder_.string()};
    if (!group.empty()) text.overrides.push_back("placement.group=" + group);
    if (!override.empty()) text.overrides.push_back(override);
    absl::StatusOr<v1::JobConfig> config = config::ReadJob(text);
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? controller_->Submit("r-" + name, *config, owner) : config.status();
  }

  v1::Job Get(const std::string& name) { return *controller_->GetJob(name); }

  // Steps until so; `answers` false: the services say nothing meanwhile.
  bool Until(const std::function<bool()>& so, bool answers = true) {
    for (int i = 0; i < 100000; ++i) {
      if (so()) return true;
      const absl::Time until = controller_->Step();
      if (answers && connector_.Pump()) continue;
      std::this_thread::sleep_for(std::chrono::microseconds(100));  // a thread may be reading data
      clock_.AdvanceTo(std::min(until, clock_.Now() + absl::Milliseconds(20)));
    }
    return so();
  }

  bool Ended(const std::string& name) { return HasEnded(Get(name).state()); }
  bool Loading(const std::string& name) { return Get(name).message() == "the services load the model"; }

  fs::path folder_;
  sync::VirtualClock clock_{absl::FromUnixSeconds(1000)};
  telemetry::Metrics metrics_;
  std::unique_ptr<telemetry::Log> log_;
  GroupsConnector connector_;
  std::unique_ptr<JobRecorder> recorder_;
  std::unique_ptr<Controller> controller_;
};

TEST_F(ControllerGroupsTest, TwoJobsRunAtOnceAndAThirdOnTheGroupThatIsFreeFirst) {
  AddGroup("default");
  AddGroup("second");
  ASSERT_TRUE(Submit("one", "", 50).ok());
  ASSERT_TRUE(Submit("two").ok());
  ASSERT_TRUE(Submit("three").ok());
  ASSERT_TRUE(Until([&] { return Loading("one") && Loading("two"); }, /*answers=*/false));
  EXPECT_EQ(Get("one").group(), "default");
  EXPECT_EQ(Get("two").group(), "second");
  EXPECT_EQ(Get("three").state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(Get("three").group(), "");
  EXPECT_EQ(Get("three").message(), "waits for a free group: default runs one, second runs two");
  for (const v1::Job& job : controller_->ListJobs()) {
    EXPECT_EQ(job.message(), Get(job.name()).message()) << "in a list as by itself";
  }
  for (const v1::Actor& actor : controller_->ListActors()) {
    EXPECT_EQ(actor.job(), actor.group() == "default" ? "one" : "two") << actor.name();
  }
  for (const v1::Actor& actor : controller_->ListActors([](const JobRecord& job) { return job.name == "two"; })) {
    EXPECT_EQ(actor.job(), actor.group() == "default" ? "" : "two") << "what one may not see";
  }
  ASSERT_TRUE(Until([&] { return Ended("two"); }));
  EXPECT_EQ(Get("two").state(), v1::JOB_STATE_SUCCEEDED) << Get("two").message();
  EXPECT_EQ(Get("two").group(), "") << "it holds no group any more";
  ASSERT_TRUE(Until([&] { return Get("three").state() == v1::JOB_STATE_RUNNING; }));
  EXPECT_EQ(Get("three").group(), "second");
  EXPECT_FALSE(Ended("one"));
  ASSERT_TRUE(Until([&] { return Ended("one") && Ended("three"); }));
  for (const char* name : {"one", "three"}) EXPECT_EQ(Get(name).state(), v1::JOB_STATE_SUCCEEDED) << Get(name).message();
}

TEST_F(ControllerGroupsTest, AJobWaitsForTheGroupThatItNamesAndHoldsUpNoOther) {
  AddGroup("default");
  ASSERT_TRUE(Submit("named", "second").ok());
  ASSERT_TRUE(Submit("free").ok());
  EXPECT_EQ(Get("named").message(), "waits for a trainer: no trainer of group second is here");
  ASSERT_TRUE(Until([&] { return Ended("free"); }));
  EXPECT_EQ(Get("named").state(), v1::JOB_STATE_QUEUED);
  AddGroup("second");
  ASSERT_TRUE(Until([&] { return Ended("named"); }));
  EXPECT_EQ(Get("named").state(), v1::JOB_STATE_SUCCEEDED) << Get("named").message();
  EXPECT_EQ(connector_.Of("second").truth.updates_made, 2);
}

TEST_F(ControllerGroupsTest, AfterARestartJobsGoOnWhereTheyWereBeforeOthersBegin) {
  AddGroup("default");
  AddGroup("second");
  ASSERT_TRUE(Submit("elsewhere", "second", 50).ok());
  ASSERT_TRUE(Submit("first", "default").ok());
  ASSERT_TRUE(Submit("later", "", 50).ok());
  ASSERT_TRUE(Until([&] { return Ended("first") && Get("later").state() == v1::JOB_STATE_RUNNING; }));
  ASSERT_EQ(Get("later").group(), "default");
  ASSERT_TRUE(Submit("queued").ok());
  Start();
  ASSERT_TRUE(Until([&] { return Get("later").state() == v1::JOB_STATE_RUNNING && Get("elsewhere").state() == v1::JOB_STATE_RUNNING; }));
  EXPECT_EQ(Get("later").group(), "default");
  EXPECT_EQ(Get("elsewhere").group(), "second");
  EXPECT_EQ(Get("queued").state(), v1::JOB_STATE_QUEUED);
  ASSERT_TRUE(Until([&] { return Ended("later") && Ended("elsewhere") && Ended("queued"); }));
  for (const char* name : {"later", "elsewhere", "queued"}) EXPECT_EQ(Get(name).state(), v1::JOB_STATE_SUCCEEDED) << Get(name).message();
  EXPECT_EQ(controller_->GetLedger("later")->consumed(), 100);
}

TEST_F(ControllerGroupsTest, APausedJobLeavesItsGroupAndGoesOnOnAnother) {
  AddGroup("default");
  ASSERT_TRUE(Submit("moves", "", 50).ok());
  ASSERT_TRUE(Until([&] { return Get("moves").update() > 1; }));
  ASSERT_TRUE(controller_->Pause("moves").ok());
  ASSERT_TRUE(Until([&] { return Get("moves").state() == v1::JOB_STATE_PAUSED; }));
  EXPECT_EQ(Get("moves").group(), "");
  AddGroup("second");
  connector_.Of("second").truth.checkpoints = connector_.Of("default").truth.checkpoints;  // one disk
  ASSERT_TRUE(controller_->Resume("moves", {"placement.group=second"}).ok());
  ASSERT_TRUE(Until([&] { return Ended("moves"); }));
  EXPECT_EQ(Get("moves").state(), v1::JOB_STATE_SUCCEEDED) << Get("moves").message();
  EXPECT_GT(connector_.Of("second").truth.updates_made, 0);
}

TEST_F(ControllerGroupsTest, ACancelledJobFreesItsGroupAndNoOther) {
  AddGroup("default");
  AddGroup("second");
  ASSERT_TRUE(Submit("one", "", 50).ok());
  ASSERT_TRUE(Submit("two", "", 50).ok());
  ASSERT_TRUE(Submit("three", "default", 50).ok());
  ASSERT_TRUE(Until([&] { return Get("one").state() == v1::JOB_STATE_RUNNING && Get("two").state() == v1::JOB_STATE_RUNNING; }));
  EXPECT_EQ(Get("three").message(), "waits for its group: default runs one");
  EXPECT_EQ(controller_->Cancel("one")->state(), v1::JOB_STATE_CANCELLED);
  ASSERT_TRUE(Until([&] { return Get("three").state() == v1::JOB_STATE_RUNNING; }));
  EXPECT_EQ(Get("two").state(), v1::JOB_STATE_RUNNING);
}

// Its data may take as long as it likes to be read: nobody waits for it.
TEST_F(ControllerGroupsTest, AJobThatIsCancelledWhileItsDataIsReadHoldsUpNobody) {
  AddGroup("default");
  const std::string slow = (folder_ / "slow.jsonl").string();
  ASSERT_EQ(mkfifo(slow.c_str(), 0600), 0);  // opening it waits for who writes
  ASSERT_TRUE(Submit("slow", "", 2, "", "data.train=slow.jsonl").ok());
  ASSERT_TRUE(Submit("next").ok());
  for (int i = 0; i < 20; ++i) controller_->Step();
  EXPECT_EQ(Get("slow").state(), v1::JOB_STATE_STARTING);
  EXPECT_EQ(Get("next").message(), "waits for a free group: default runs slow");
  EXPECT_EQ(controller_->Cancel("slow")->state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(Until([&] { return Ended("next"); }));
  EXPECT_EQ(Get("next").state(), v1::JOB_STATE_SUCCEEDED) << Get("next").message();
  const int writer = open(slow.c_str(), O_RDWR);  // the thread that waits goes on, and ends
  controller_.reset();
  close(writer);
}

TEST_F(ControllerGroupsTest, TwoJobsDoNotWriteToOneFolder) {
  ASSERT_TRUE(Submit("one").ok());
  v1::JobConfig config;
  config.set_name("two");
  config.mutable_sft();
  config.set_output((folder_ / "state/jobs/x/../one/").string());
  absl::Status status = controller_->Submit("r", config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("output: job one (QUEUED) writes to"));
  EXPECT_THAT(std::string(controller_->Submit("r", config, "physics").status().message()), Not(HasSubstr("job one")));
  ASSERT_TRUE(controller_->Cancel("one").ok());
  EXPECT_TRUE(controller_->Submit("r", config).ok());
}

TEST_F(ControllerGroupsTest, WhatIsRecordedOfTwoJobsIsKeptApart) {
  AddGroup("default");
  AddGroup("second");
  ASSERT_TRUE(Submit("one", "default", 8).ok());
  ASSERT_TRUE(Submit("two", "second", 8).ok());
  ASSERT_TRUE(Until([&] { return Get("one").update() > 2 && Get("two").update() > 2; }));
  controller_->Measure();
  const std::string page = metrics_.Text();
  for (const char* job : {"one", "two"}) {
    EXPECT_THAT(page, HasSubstr("rein_controller_update{rl_job=\"" + std::string(job) + "\"}"));
    EXPECT_THAT(page, HasSubstr("rein_controller_groups{rl_job=\"" + std::string(job) + "\",state=\"consumed\"}"));
  }
  EXPECT_THAT(page, HasSubstr("rein_controller_actors{group=\"second\",role=\"trainer\",state=\"READY\"} 1"));
  EXPECT_THAT(page, HasSubstr("rein_controller_actors{group=\"default\",role=\"trainer\",state=\"LOST\"} 0"));
  ASSERT_TRUE(Until([&] { return Ended("one") && Ended("two"); }));
  int lines = 0;
  std::ifstream log(folder_ / "c.log");
  for (std::string line; std::getline(log, line);) {
    if (line.find(" msg=update ") == std::string::npos) continue;
    ++lines;
    const bool one = line.find(" job=one ") != std::string::npos, two = line.find(" job=two ") != std::string::npos;
    EXPECT_NE(one, two) << line;
  }
  EXPECT_EQ(lines, 16);
  for (const char* job : {"one", "two"}) {
    const fs::path folder = folder_ / "state/jobs" / job / "tensorboard";
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1) << "one file for a run";
  }
}

}  // namespace
}  // namespace rein::services
