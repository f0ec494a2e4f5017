#include "services/controller/controller_service.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "services/controller/rpc_connector.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kYaml[] = R"(name: digits
model: {config: model}
data: {train: train.jsonl}
grpo: {updates: 2}
rewards: [{exact_match: {}}]
)";

// A controller without any actor: jobs are taken in, and wait.
class ControllerServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / "controller_service_test";
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "state/logs");
    fs::copy("configs/models/digits", folder_ / "model");
    std::ofstream(folder_ / "train.jsonl")
        << R"j({"prompt": "max(1,2,3)", "answer": "3"})j" << "\n";
    std::ofstream(folder_ / "empty.jsonl") << "\n";
    log_ = *telemetry::Log::Create({.role = "controller", .actor = "c", .file = "/dev/null"});
    recorder_ = std::make_unique<JobRecorder>(clock_, metrics_, *log_);
    caller_.local = true;
    audit_ = *access::AuditLog::Open((folder_ / "state/audit.jsonl").string(), clock_);
    Start();
  }

  void Start() {
    auto thread = ControllerThread::Start(clock_, [this](std::function<void()> wake) {
      return Controller::Create({.folder = (folder_ / "state").string()}, clock_, connector_,
                                *recorder_, std::move(wake));
    });
    ASSERT_TRUE(thread.ok()) << thread.status();
    thread_ = *std::move(thread);
    service_ = std::make_unique<ControllerServiceImpl>(
        *thread_, ServiceOptions{.log_folder = (folder_ / "state/logs").string(),
                                 .state_folder = (folder_ / "state").string(),
                                 .caller_of = [this](const auto&) { return caller_; },
                                 .audit = audit_.get()});
    server_ = *rpc::Server::Create("127.0.0.1:0", service_.get());
    stub_ = v1::ControllerService::NewStub(rpc::Connect(server_->address()));
  }

  void Stop() {
    service_->Stop();
    server_.reset();
    service_.reset();
    thread_.reset();
  }

  void TearDown() override { Stop(); }

  template <typename Request, typename Reply>
  absl::StatusOr<Reply> Call(grpc::Status (v1::ControllerService::Stub::*method)(
                                 grpc::ClientContext*, const Request&, Reply*),
                             const Request& request) {
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(20));
    Reply reply;
    grpc::Status status = (stub_.get()->*method)(&context, request, &reply);
    if (!status.ok()) return rpc::FromGrpc(status);
    return reply;
  }

  absl::StatusOr<v1::Job> Submit(const std::string& id, std::vector<std::string> overrides = {},
                                 bool validate_only = false) {
    v1::SubmitRequest request;
    request.set_request_id(id);
    request.set_yaml(kYaml);
    request.set_file_name("job.yaml");
    request.set_base_folder(folder_.string());
    request.set_validate_only(validate_only);
    request.mutable_overrides()->Add(overrides.begin(), overrides.end());
    auto reply = Call(&v1::ControllerService::Stub::Submit, request);
    if (!reply.ok()) return reply.status();
    return reply->job();
  }

  v1::Job Get(const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    auto job = Call(&v1::ControllerService::Stub::GetJob, request);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : v1::Job();
  }

  bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  v1::JobCommand Command(const std::string& name) {
    v1::JobCommand command;
    command.set_name(name);
    return command;
  }

  using Stub = v1::ControllerService::Stub;

  // From here on calls come from this user.
  void ComeAs(const std::string& user, const std::string& tenant,
              access::UserRole role = access::UserRole::kSubmitter) {
    caller_ = access::Caller();
    caller_.user = user;
    caller_.tenant = tenant;
    caller_.role = role;
  }

  std::string Audited() {
    std::ifstream in(folder_ / "state/audit.jsonl");
    return {std::istreambuf_iterator<char>(in), {}};
  }

  fs::path folder_;
  access::Caller caller_;
  std::unique_ptr<access::AuditLog> audit_;
  sync::RealClock clock_;
  telemetry::Metrics metrics_;
  std::unique_ptr<telemetry::Log> log_;
  RpcConnector connector_;
  std::unique_ptr<JobRecorder> recorder_;
  std::unique_ptr<ControllerThread> thread_;
  std::unique_ptr<ControllerServiceImpl> service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<v1::ControllerService::Stub> stub_;
};

TEST_F(ControllerServiceTest, ASubmittedJobIsKeptAndSaysWhatItWaitsFor) {
  auto job = Submit("r1");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->kind(), "grpo");
  EXPECT_THAT(job->config_yaml(), HasSubstr("group_size: 8"));
  EXPECT_EQ(job->output(), (folder_ / "state/jobs/digits").string());
  EXPECT_TRUE(Eventually([&] { return Get("digits").message() == "waits for a trainer"; }));
  Stop();
  Start();
  EXPECT_TRUE(Eventually([&] { return Get("digits").message() == "waits for a trainer"; }));
  EXPECT_EQ(Get("dig").name(), "digits");  // a prefix is enough
}

TEST_F(ControllerServiceTest, TheSameRequestAgainAnswersAsTheFirst) {
  ASSERT_TRUE(Submit("r1").ok());
  EXPECT_TRUE(Submit("r1").ok());
  absl::Status other = Submit("r2").status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(other.message()), HasSubstr("job digits exists already"));
  v1::ListJobsReply jobs = *Call(&Stub::ListJobs, v1::ListJobsRequest());
  EXPECT_EQ(jobs.jobs_size(), 1);
}

TEST_F(ControllerServiceTest, WrongJobsAreToldAndNotKept) {
  absl::Status status = Submit("r1", {"grpo.groupsize=3", "grpo.temperature=0"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("job.yaml has 2 problems"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("did you mean group_size?"));
  EXPECT_THAT(std::string(Submit("r1", {"data.train=empty.jsonl"}).status().message()),
              HasSubstr("empty.jsonl"));
  EXPECT_THAT(std::string(Submit("r1", {"model={job: nothing}"}).status().message()),
              HasSubstr("no job nothing"));
  fs::create_directories(folder_ / "nothing");
  EXPECT_THAT(std::string(Submit("r1", {"model=nothing"}).status().message()),
              HasSubstr("job.yaml: model: there is no config.json in"));
  fs::copy("configs/models/digits/config.json", folder_ / "nothing/config.json");
  EXPECT_THAT(std::string(Submit("r1", {"model=nothing"}).status().message()),
              HasSubstr("model: there is no tokenizer.json in"));
  EXPECT_THAT(std::string(Submit("r1", {"data.train.prompt=question"}).status().message()),
              HasSubstr("question"));
  EXPECT_TRUE(Submit("r1", {}, /*validate_only=*/true).ok());
  EXPECT_EQ(Call(&Stub::ListJobs, v1::ListJobsRequest())->jobs_size(), 0);
}

TEST_F(ControllerServiceTest, DataThatDoesNotFitTheModelIsToldAtSubmit) {
  std::ofstream(folder_ / "long.jsonl")
      << R"j({"prompt": "max(1,2)", "answer": "2"})j" << "\n"
      << R"j({"prompt": "max(1,)j" << std::string(100, '2') << R"j()", "answer": "1"})j" << "\n";
  EXPECT_THAT(std::string(Submit("r1", {"data.train=long.jsonl"}).status().message()),
              HasSubstr("job.yaml: prompt 1 of " + (folder_ / "long.jsonl").string() + " has "));
  EXPECT_TRUE(Submit("r1", {"data.train=long.jsonl", "data.drop_long_prompts=true"}).ok());
  EXPECT_TRUE(Submit("r3", {"data.train=long.jsonl", "data.truncate=left", "name=cut"}).ok());
  EXPECT_THAT(std::string(Submit("r4", {"data.truncate=left", "data.drop_long_prompts=true", "name=both"}).status().message()),
              HasSubstr("data.truncate  cuts what data.drop_long_prompts: true leaves out; give one of the two"));
  const fs::path small = folder_ / "small";
  fs::copy("configs/models/digits", small, fs::copy_options::recursive);
  std::ofstream(small / "config.json") << R"({"vocab_size": 8, "max_position_embeddings": 64})";
  EXPECT_THAT(std::string(Submit("r2", {"model.config=small", "name=second"}).status().message()),
              HasSubstr("small: vocabulary mismatch: the tokenizer's largest id is"));
}

TEST_F(ControllerServiceTest, AnUnknownJobIsNotFoundWithTheNearest) {
  ASSERT_TRUE(Submit("r1").ok());
  absl::Status status = Call(&Stub::Cancel, Command("digtis")).status();
  EXPECT_EQ(status, absl::NotFoundError("no job digtis; did you mean digits?"));
}

TEST_F(ControllerServiceTest, JobsAreCancelledPausedAndResumed) {
  ASSERT_TRUE(Submit("r1").ok());
  ASSERT_TRUE(Submit("r2", {"name=second"}).ok());
  EXPECT_EQ(Call(&Stub::Pause, Command("second"))->state(), v1::JOB_STATE_PAUSED);
  EXPECT_EQ(Call(&Stub::Cancel, Command("digits"))->state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(Call(&Stub::Cancel, Command("digits"))->state(), v1::JOB_STATE_CANCELLED);
  v1::ResumeJobRequest resume;
  resume.set_name("second");
  resume.add_overrides("grpo.group_size=4");
  EXPECT_THAT(std::string(Call(&Stub::Resume, resume).status().message()),
              HasSubstr("a resumed job keeps grpo.group_size"));
  resume.set_overrides(0, "trainer.learning_rate=0.5");
  auto resumed = Call(&Stub::Resume, resume);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->config().trainer().learning_rate(), 0.5);
  EXPECT_TRUE(Eventually([&] { return Get("second").message() == "waits for a trainer"; }));
  resume.set_name("digits");
  EXPECT_THAT(std::string(Call(&Stub::Resume, resume).status().message()),
              HasSubstr("job digits is CANCELLED: only paused and failed jobs are resumed"));
}

TEST_F(ControllerServiceTest, WatchGivesStoredEventsThenLiveOnesUntilTheEnd) {
  v1::RegisterRequest trainer;
  trainer.set_role("trainer");
  trainer.set_name("trainer-0");
  trainer.set_address("127.0.0.1:1");
  ASSERT_TRUE(Call(&Stub::Register, trainer).ok());
  ASSERT_TRUE(Submit("r1").ok());
  ASSERT_TRUE(Eventually([&] { return Get("digits").state() == v1::JOB_STATE_STARTING; }));
  std::thread canceller([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_TRUE(Call(&Stub::Cancel, Command("digits")).ok());
  });
  grpc::ClientContext context;
  rpc::SetDeadline(context, absl::Seconds(20));
  v1::WatchRequest request;
  request.set_name("digits");
  auto reader = stub_->Watch(&context, request);
  v1::JobEvent event;
  uint64_t expected = 1;
  while (reader->Read(&event)) EXPECT_EQ(event.sequence(), expected++);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(event.state(), v1::JOB_STATE_CANCELLED);
  EXPECT_GE(expected, 4);
  canceller.join();
}

TEST_F(ControllerServiceTest, LogsOfAnActorAndOfAJob) {
  ASSERT_TRUE(Submit("r1").ok());
  std::ofstream(folder_ / "state/logs/trainer-0.log")
      << "2026-01-01T00:00:02.000Z INFO role=trainer actor=trainer-0 job=digits msg=b\n"
      << "2026-01-01T00:00:03.000Z INFO role=trainer actor=trainer-0 msg=idle\n";
  std::ofstream(folder_ / "state/logs/rollout-0.log")
      << "2026-01-01T00:00:01.000Z INFO role=rollout actor=rollout-0 job=digits msg=a\n"
      << "half a line";
  auto lines = [&](const std::string& name, uint32_t tail) {
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(20));
    v1::LogsRequest request;
    request.set_name(name);
    request.set_tail(tail);
    auto reader = stub_->Logs(&context, request);
    std::vector<std::string> texts;
    for (v1::LogLine line; reader->Read(&line);) {
      texts.push_back(line.actor() + " " + line.text().substr(line.text().rfind(' ') + 1));
    }
    EXPECT_TRUE(reader->Finish().ok());
    return texts;
  };
  EXPECT_THAT(lines("digits", 0), ::testing::ElementsAre("rollout-0 msg=a", "trainer-0 msg=b"));
  EXPECT_THAT(lines("trainer-0", 1), ::testing::ElementsAre("trainer-0 msg=idle"));
}

TEST_F(ControllerServiceTest, ActorsRegisterAndAreListed) {
  v1::RegisterRequest request;
  request.set_role("trainer");
  request.set_name("trainer-0");
  request.set_address("127.0.0.1:1");
  auto reply = Call(&Stub::Register, request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->controller_epoch(), 1);
  EXPECT_EQ(reply->lease_seconds(), 10);
  v1::ListActorsReply actors = *Call(&Stub::ListActors, v1::ListActorsRequest());
  ASSERT_EQ(actors.actors_size(), 1);
  EXPECT_EQ(actors.actors(0).state(), "READY");
  EXPECT_EQ(Call(&Stub::GetServer, v1::GetServerRequest())->controller_epoch(), 1);
  v1::HeartbeatRequest beat;
  beat.set_name("trainer-0");
  beat.set_actor_epoch(99);
  EXPECT_EQ(Call(&Stub::Heartbeat, beat).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ControllerServiceTest, RolloutsAndLedgerOfAJobThatHasNone) {
  ASSERT_TRUE(Submit("r1").ok());
  v1::ListRolloutsRequest request;
  request.set_name("digits");
  EXPECT_EQ(Call(&Stub::ListRollouts, request)->rollouts_size(), 0);
  request.set_sort("beauty");
  EXPECT_EQ(Call(&Stub::ListRollouts, request).status(),
            absl::InvalidArgumentError("sort: wants reward, advantage or length, got 'beauty'"));
  v1::GetLedgerRequest ledger;
  ledger.set_name("digits");
  EXPECT_EQ(Call(&Stub::GetLedger, ledger)->consumed(), 0);
}

// Which job a group runs is told to those who may see the job, and why one waits without others' names.
TEST_F(ControllerServiceTest, TenantsShareGroupsAndSeeNoNames) {
  v1::RegisterRequest trainer;
  trainer.set_role("trainer");
  trainer.set_name("trainer-0");
  trainer.set_address("127.0.0.1:1");
  ASSERT_TRUE(Call(&Stub::Register, trainer).ok());
  auto job_of_group = [&] { return Call(&Stub::ListActors, v1::ListActorsRequest())->actors(0).job(); };
  ComeAs("ada", "maths");
  ASSERT_TRUE(Submit("r1").ok());
  ASSERT_TRUE(Eventually([&] { return Get("digits").state() == v1::JOB_STATE_STARTING; }));
  EXPECT_EQ(Get("digits").group(), "default");
  EXPECT_EQ(job_of_group(), "digits");
  ComeAs("bob", "physics");
  EXPECT_EQ(job_of_group(), "");
  ASSERT_TRUE(Submit("r2", {"name=waits"}).ok());
  EXPECT_EQ(Get("waits").message(), "waits for a free group: default runs a job of another tenant");
  ASSERT_TRUE(Submit("r3", {"name=nowhere", "placement.group=second"}).ok());
  EXPECT_EQ(Get("nowhere").message(), "waits for a trainer: no trainer of group second is here");
  ComeAs("root", "", access::UserRole::kAdmin);
  EXPECT_EQ(job_of_group(), "digits");
}

// A user sees the jobs of their tenant, and learns nothing of others': not their names, and not from any method.
TEST_F(ControllerServiceTest, TenantsSeeTheirOwnJobs) {
  ComeAs("ada", "maths");
  ASSERT_TRUE(Submit("r1").ok());
  EXPECT_EQ(Get("digits").owner(), "maths");
  ComeAs("bob", "physics", access::UserRole::kSubmitter);
  v1::GetJobRequest get;
  v1::GetLedgerRequest ledger;
  v1::ListRolloutsRequest rollouts;
  v1::ListUpdatesRequest updates;
  v1::ResumeJobRequest resume;
  v1::DeleteCheckpointRequest checkpoint;
  for (const char* name : {"digits", "dig", "digitz", ""}) {
    const absl::Status none = absl::NotFoundError(absl::StrCat("no job ", name));
    get.set_name(name);
    ledger.set_name(name);
    rollouts.set_name(name);
    updates.set_name(name);
    resume.set_name(name);
    checkpoint.set_name(name);
    EXPECT_EQ(Call(&Stub::GetJob, get).status(), none);
    EXPECT_EQ(Call(&Stub::GetLedger, ledger).status(), none);
    EXPECT_EQ(Call(&Stub::ListRollouts, rollouts).status(), none);
    EXPECT_EQ(Call(&Stub::ListUpdates, updates).status(), none);
    EXPECT_EQ(Call(&Stub::Cancel, Command(name)).status(), none);
    EXPECT_EQ(Call(&Stub::Pause, Command(name)).status(), none);
    EXPECT_EQ(Call(&Stub::Delete, Command(name)).status(), none);
    EXPECT_EQ(Call(&Stub::Resume, resume).status(), none);
    EXPECT_EQ(Call(&Stub::DeleteCheckpoint, checkpoint).status(), none);
    grpc::ClientContext watching, reading;
    v1::WatchRequest watch;
    watch.set_name(name);
    v1::JobEvent event;
    auto events = stub_->Watch(&watching, watch);
    EXPECT_FALSE(events->Read(&event));
    EXPECT_EQ(rpc::FromGrpc(events->Finish()), none);
    v1::LogsRequest logs;
    logs.set_name(name);
    v1::LogLine line;
    auto lines = stub_->Logs(&reading, logs);
    EXPECT_FALSE(lines->Read(&line));
    EXPECT_EQ(rpc::FromGrpc(lines->Finish()), none);
  }
  EXPECT_EQ(Call(&Stub::ListJobs, v1::ListJobsRequest())->jobs_size(), 0);
  absl::Status stolen = Submit("r2", {"name=mine", "model={job: digits}"}).status();
  EXPECT_EQ(stolen, absl::NotFoundError("no job digits"));
  ComeAs("eve", "maths", access::UserRole::kViewer);
  EXPECT_EQ(Get("digits").name(), "digits");
  ComeAs("root", "ops", access::UserRole::kAdmin);
  EXPECT_EQ(Call(&Stub::ListJobs, v1::ListJobsRequest())->jobs_size(), 1);
  EXPECT_EQ(Call(&Stub::GetServer, v1::GetServerRequest())->user_role(), "admin");
}

// An actor's log has lines of every tenant.
TEST_F(ControllerServiceTest, ActorsLogsAreForAdmins) {
  std::ofstream(folder_ / "state/logs/trainer-0.log") << "2026 job=other msg=x\n";
  ComeAs("ada", "maths");
  grpc::ClientContext context;
  v1::LogsRequest logs;
  logs.set_name("trainer-0");
  v1::LogLine line;
  auto lines = stub_->Logs(&context, logs);
  EXPECT_FALSE(lines->Read(&line));
  EXPECT_EQ(rpc::FromGrpc(lines->Finish()), absl::NotFoundError("no job trainer-0"));
}

TEST_F(ControllerServiceTest, WhatChangesSomethingIsWrittenDown) {
  ComeAs("ada", "maths");
  ASSERT_TRUE(Submit("r1").ok());
  ASSERT_TRUE(Submit("r2", {}, /*validate_only=*/true).ok());
  Get("digits");
  ASSERT_TRUE(Call(&Stub::Cancel, Command("digits")).ok());
  ComeAs("bob", "physics");
  EXPECT_FALSE(Call(&Stub::Delete, Command("digits")).ok());
  EXPECT_EQ(access::VerifyAuditLog((folder_ / "state/audit.jsonl").string())->lines, 3);
  EXPECT_THAT(Audited(), HasSubstr(R"("who":"user ada","action":"Submit","object":"digits","result":"OK")"));
  EXPECT_THAT(Audited(), HasSubstr(R"("who":"user bob","action":"Delete","object":"digits","result":"NOT_FOUND")"));
}

TEST_F(ControllerServiceTest, ADeletedJobIsGoneWithWhatItLeft) {
  auto job = Submit("r1");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(std::string(Call(&Stub::Delete, Command("digits")).status().message()),
              HasSubstr("cancel it before it is deleted"));
  ASSERT_TRUE(Call(&Stub::Cancel, Command("digits")).ok());
  const fs::path output = job->output();
  fs::create_directories(output / "model");
  std::ofstream(output / "metrics.jsonl") << std::string(1000, 'x');
  std::ofstream(output / "notes.txt") << "mine";
  fs::create_directories(folder_ / "state/rollouts/digits");
  std::ofstream(folder_ / "state/rollouts/digits/1.rollouts") << std::string(500, 'x');
  EXPECT_GE(Get("digits").disk_bytes(), 1500);
  auto deleted = Call(&Stub::Delete, Command("digits"));
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_GE(deleted->freed_bytes(), 1500);
  EXPECT_FALSE(fs::exists(output / "metrics.jsonl"));
  EXPECT_FALSE(fs::exists(output / "model"));
  EXPECT_FALSE(fs::exists(folder_ / "state/rollouts/digits"));
  EXPECT_TRUE(fs::exists(output / "notes.txt")) << "what others put there stays";
  EXPECT_TRUE(absl::IsNotFound(Call(&Stub::Delete, Command("digits")).status()));
  Stop();
  Start();
  EXPECT_EQ(Call(&Stub::ListJobs, v1::ListJobsRequest())->jobs_size(), 0);
  EXPECT_TRUE(Submit("r2").ok()) << "the name is free again";
}

TEST_F(ControllerServiceTest, RetentionDeletesWhatIsDueAndNothingElse) {
  ComeAs("ada", "maths");
  // A ten-millionth of a day: over by now.
  auto job = Submit("r1", {"retention={rollouts_days: 1e-10, logs_days: 1e-10, checkpoints_days: 1000}"});
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_TRUE(Submit("r2", {"name=kept"}).ok());
  const fs::path output = job->output(), rollouts = folder_ / "state/rollouts/digits";
  fs::create_directories(output / "checkpoints/1");
  std::ofstream(output / "metrics.jsonl") << std::string(1000, 'x');
  fs::create_directories(rollouts);
  std::ofstream(rollouts / "1.rollouts") << std::string(500, 'x');
  v1::ApplyRetentionRequest request;
  EXPECT_EQ(Call(&Stub::ApplyRetention, request)->expired_size(), 0) << "it has not ended";
  for (const char* name : {"digits", "kept"}) ASSERT_TRUE(Call(&Stub::Cancel, Command(name)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  request.set_dry_run(true);
  v1::ApplyRetentionReply due = *Call(&Stub::ApplyRetention, request);
  ASSERT_EQ(due.expired_size(), 2) << due.DebugString();
  EXPECT_EQ(due.expired(0).job(), "digits");
  EXPECT_EQ(due.expired(0).what(), "rollouts");
  EXPECT_EQ(due.expired(0).bytes(), 500);
  EXPECT_EQ(due.expired(1).what(), "logs");
  EXPECT_EQ(due.expired(1).bytes(), 1000);
  EXPECT_TRUE(fs::exists(rollouts / "1.rollouts"));
  request.set_dry_run(false);
  ComeAs("bob", "physics");
  EXPECT_EQ(Call(&Stub::ApplyRetention, request)->expired_size(), 0) << "of his own jobs alone";
  ComeAs("ada", "maths");
  EXPECT_EQ(Call(&Stub::ApplyRetention, request)->expired_size(), 2);
  EXPECT_THAT(Audited(), HasSubstr(R"("who":"user ada","action":"ApplyRetention","object":"digits rollouts","result":"OK")"));
  EXPECT_FALSE(fs::exists(rollouts));
  EXPECT_FALSE(fs::exists(output / "metrics.jsonl"));
  EXPECT_TRUE(fs::exists(output / "checkpoints/1"));
  EXPECT_EQ(Call(&Stub::ApplyRetention, request)->expired_size(), 0) << "once";
  EXPECT_EQ(Get("digits").state(), v1::JOB_STATE_CANCELLED);
  fs::create_directories(rollouts);  // as if a crash had come before the files went
  Stop();
  Start();
  EXPECT_TRUE(Eventually([&] { return !fs::exists(rollouts); }));
}

TEST_F(ControllerServiceTest, TheControllerAppliesRetentionByItself) {
  ASSERT_TRUE(Submit("r1", {"retention.job_days=1e-10"}).ok());
  auto source = Submit("r2", {"name=source", "retention.job_days=1e-10"});
  fs::create_directories(fs::path(source->output()) / "model");
  for (const auto& entry : fs::directory_iterator(folder_ / "model")) fs::copy(entry.path(), fs::path(source->output()) / "model");
  for (const char* name : {"digits", "source"}) ASSERT_TRUE(Call(&Stub::Cancel, Command(name)).ok());
  ASSERT_TRUE(Submit("r3", {"name=next", "model={job: source}"}).ok());
  Stop();
  Start();
  auto names = [&] {
    std::string all;
    const v1::ListJobsReply reply = *Call(&Stub::ListJobs, v1::ListJobsRequest());
    for (const v1::Job& job : reply.jobs()) absl::StrAppend(&all, job.name(), " ");
    return all;
  };
  EXPECT_TRUE(Eventually([&] { return names() == "next source "; })) << names() << "(next starts from the weights of source)";
  ASSERT_TRUE(Call(&Stub::Cancel, Command("next")).ok());
  Stop();
  Start();
  EXPECT_TRUE(Eventually([&] { return names() == "next "; })) << names();
}

TEST_F(ControllerServiceTest, AJobThatAnotherStartsFromStays) {
  auto job = Submit("r1");
  fs::create_directories(fs::path(job->output()) / "model");
  for (const auto& entry : fs::directory_iterator(folder_ / "model")) {
    fs::copy(entry.path(), fs::path(job->output()) / "model");
  }
  ASSERT_TRUE(Call(&Stub::Cancel, Command("digits")).ok());
  auto next = Submit("r2", {"name=next", "model={job: digits}"});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_THAT(std::string(Call(&Stub::Delete, Command("digits")).status().message()),
              AllOf(HasSubstr("job next ("), HasSubstr(") starts from the weights of digits")));
  ASSERT_TRUE(Call(&Stub::Cancel, Command("next")).ok());
  EXPECT_TRUE(Call(&Stub::Delete, Command("digits")).ok());
}

TEST_F(ControllerServiceTest, CheckpointsAreDeletedByNumber) {
  ASSERT_TRUE(Submit("r1").ok());
  v1::DeleteCheckpointRequest request;
  request.set_name("digits");
  request.set_number(3);
  EXPECT_EQ(Call(&Stub::DeleteCheckpoint, request).status(),
            absl::NotFoundError("job digits has no checkpoint 3"));
}

TEST_F(ControllerServiceTest, TheServerTellsItsClockAndDisk) {
  auto server = Call(&Stub::GetServer, v1::GetServerRequest());
  EXPECT_NEAR(server->time(), absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()), 5);
  EXPECT_GT(server->disk_bytes(), server->disk_free_bytes());
  EXPECT_GT(server->disk_free_bytes(), 0);
}

}  // namespace
}  // namespace rein::services
