// What only a store on PostgreSQL has: addresses, the lease, the fence, and connections that are lost.

#include <atomic>
#include <fstream>
#include <thread>

#include "absl/time/clock.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/controller/leader_lease.h"
#include "services/controller/postgres_address.h"
#include "services/controller/postgres_database.h"
#include "services/controller/store.h"
#include "tests/fakes/postgres_process.h"

namespace rein::services {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(PostgresAddressTest, APasswordInTheUrlIsRefusedAndNotRepeated) {
  for (const char* url : {"postgres://rein:canary-word@db/rein", "postgres://db/rein?user=a&password=canary-word",
                          "postgres://db/rein?sslpassword=canary-word"}) {
    absl::Status status = ReadPostgresAddress(url, "").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr("--store-password-file"));
    EXPECT_THAT(Message(status), Not(HasSubstr("canary")));
  }
  absl::Status status = ReadPostgresAddress("postgres://a:canary-word@db:x:y/rein?what=canary", "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), Not(HasSubstr("canary")));
}

TEST(PostgresAddressTest, AnotherMachineIsTalkedToOverTls) {
  EXPECT_THAT(ReadPostgresAddress("postgres://rein@db.lab/rein", "")->url, HasSubstr("?sslmode=verify-full"));
  EXPECT_THAT(ReadPostgresAddress("postgres://rein@db.lab/rein?connect_timeout=3", "")->url,
              HasSubstr("&sslmode=verify-full"));
  EXPECT_THAT(ReadPostgresAddress("postgres://rein@db.lab/rein?sslmode=require", "")->url,
              Not(HasSubstr("verify-full")));
  EXPECT_THAT(ReadPostgresAddress("postgres://rein@127.0.0.1/rein", "")->url, Not(HasSubstr("sslmode")));
  EXPECT_THAT(ReadPostgresAddress("postgres://rein@/rein?host=/run/postgresql", "")->url, Not(HasSubstr("sslmode")));
  for (const char* url : {"postgres://rein@db.lab/rein?sslmode=prefer", "postgres://rein@127.0.0.1,db/rein?sslmode=disable"}) {
    absl::Status status = ReadPostgresAddress(url, "").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(status), HasSubstr("wants verify-full"));
  }
}

TEST(PostgresAddressTest, IsShownWithoutItsParameters) {
  EXPECT_EQ(ReadPostgresAddress("postgres://rein@db.lab:6432/jobs?sslmode=require", "")->shown, "rein@db.lab:6432/jobs");
  EXPECT_EQ(ReadPostgresAddress("postgres://rein@db.lab/jobs", "/no/file").status().code(), absl::StatusCode::kNotFound);
}

class PostgresTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = fakes::PostgresProcess::OfThisTest();
    if (server_ == nullptr) GTEST_SKIP() << fakes::PostgresProcess::why_not();
    address_ = server_->NewDatabase();
  }

  std::unique_ptr<LeaderLease> Lease(const std::string& name, absl::Duration length = absl::Seconds(60)) {
    auto lease = LeaderLease::Open(address_, name, length);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return *std::move(lease);
  }

  std::unique_ptr<Store> OpenStore(uint64_t epoch, absl::Duration patience = absl::Seconds(30)) {
    auto store = Store::Open({.folder = testing::TempDir() + "/postgres_test",
                              .postgres = PostgresOptions{.address = address_,
                                                          .epoch = epoch,
                                                          .patience = patience,
                                                          .on_lost = [this](const absl::Status& why) {
                                                            lost_.push_back(why);
                                                          }}});
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

  // The lease is over, as when its holder was stopped for long.
  void EndLease() { server_->Sql("UPDATE controller_lease SET lease_end = clock_timestamp() - INTERVAL '1 second'"); }

  std::string Counter(const std::string& name) {
    return server_->Sql("SELECT value FROM counters WHERE name = '" + name + "'");
  }

  fakes::PostgresProcess* server_ = nullptr;
  PostgresAddress address_;
  std::vector<absl::Status> lost_;
};

TEST_F(PostgresTest, OneOfTwoLeadsAndTheOtherKnowsWho) {
  auto first = Lease("controller-0"), second = Lease("controller-1");
  EXPECT_THAT(Message(second->NotLeader()), HasSubstr("nobody leads yet"));
  ASSERT_TRUE(*first->TryTake());
  EXPECT_EQ(first->epoch(), 1);
  first->SetAddress("10.0.0.1:7000");
  first->KeepRenewing([](const absl::Status& why) { FAIL() << why; });
  for (int i = 0; i < 100 && second->holder().address.empty(); ++i) {
    EXPECT_FALSE(*second->TryTake());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(second->NotLeader().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(second->NotLeader()),
            "NOT_LEADER: this controller waits; the leader is controller-0 at 10.0.0.1:7000 (epoch 1)");
  first.reset();  // an orderly end gives the lease back
  EXPECT_TRUE(*second->TryTake());
  EXPECT_EQ(second->epoch(), 2);
}

TEST_F(PostgresTest, ALeaseThatIsNotRenewedIsTakenByTheDatabasesClock) {
  auto first = Lease("controller-0", absl::Milliseconds(600)), second = Lease("controller-1");
  const absl::Time begin = absl::Now();
  ASSERT_TRUE(*first->TryTake());
  while (!*second->TryTake()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(600));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
  absl::Status told;
  std::atomic<bool> lost = false;
  first->KeepRenewing([&](const absl::Status& why) {
    told = why;
    lost = true;
  });
  for (int i = 0; i < 500 && !lost; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(lost);
  EXPECT_THAT(Message(told), HasSubstr("NOT_LEADER: this controller (epoch 1) was replaced"));
}

TEST_F(PostgresTest, ALeaseIsKeptWhileItsHolderLives) {
  auto first = Lease("controller-0", absl::Seconds(3)), second = Lease("controller-1");  // renewed each second, also on a busy machine
  ASSERT_TRUE(*first->TryTake());
  first->KeepRenewing([](const absl::Status& why) { FAIL() << why; });
  const absl::Time until = absl::Now() + absl::Seconds(5);
  while (absl::Now() < until) {
    ASSERT_FALSE(*second->TryTake());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

TEST_F(PostgresTest, ALateWriteOfAReplacedControllerIsRefusedByTheDatabase) {
  auto first = Lease("controller-0");
  ASSERT_TRUE(*first->TryTake());
  auto stale = OpenStore(first->epoch());
  ASSERT_TRUE(stale->Increment("c").ok());
  ASSERT_TRUE(stale->Commit().ok());
  ASSERT_TRUE(stale->Increment("c").ok());  // has read: its transaction is open, and holds the fence
  auto second = Lease("controller-1");
  EndLease();
  ASSERT_TRUE(*second->TryTake());  // waits for nobody
  auto store = OpenStore(second->epoch());
  EXPECT_EQ(*store->Increment("c"), 2);
  absl::Status late = stale->Commit();
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(late), HasSubstr("NOT_LEADER: this controller (epoch 1) was replaced by controller-1"));
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_EQ(Counter("c"), "2");
  ASSERT_EQ(lost_.size(), 1);
  stale->database().Rollback();
  JobRecord job{.name = "late"};
  EXPECT_FALSE(stale->InsertJob(job).ok());  // given up for good
  EXPECT_FALSE(stale->Commit().ok());
  EXPECT_EQ(server_->Sql("SELECT count(*) FROM jobs"), "0");
  EXPECT_EQ(lost_.size(), 1);
}

// The same without a session that was ended: what comes late comes on a connection that is alive.
TEST_F(PostgresTest, AReplacedControllerIsRefusedOnALiveConnection) {
  auto lease = Lease("controller-0");
  ASSERT_TRUE(*lease->TryTake());
  auto stale = OpenStore(lease->epoch());
  server_->Sql("UPDATE controller_leader SET epoch = epoch + 1");
  JobRecord job{.name = "late"};
  EXPECT_TRUE(stale->InsertJob(job).ok());  // waits for the commit
  EXPECT_THAT(Message(stale->Commit()), HasSubstr("NOT_LEADER"));
  EXPECT_EQ(server_->Sql("SELECT count(*) FROM jobs"), "0");
}

TEST_F(PostgresTest, AConnectionThatIsLostIsMadeAgainAndNothingIsLostOrDoneTwice) {
  auto lease = Lease("controller-0");
  ASSERT_TRUE(*lease->TryTake());
  auto store = OpenStore(lease->epoch());
  const std::string end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'rein-leader-1'";
  for (int i = 1; i <= 20; ++i) {
    if (i % 3 == 0) server_->Sql(end);  // between two transactions
    EXPECT_EQ(*store->Increment("c"), static_cast<uint64_t>(i));
    if (i % 3 == 1) server_->Sql(end);  // within one: it is repeated
    v1::JobEvent event;
    ASSERT_TRUE(store->AppendEvent("job", event).ok());
    EXPECT_EQ(event.sequence(), static_cast<uint64_t>(i));
    ASSERT_TRUE(store->Commit().ok());
  }
  EXPECT_EQ(Counter("c"), "20");
  EXPECT_EQ(store->ReadEvents("job", 0)->size(), 20);
  EXPECT_TRUE(lost_.empty());
}

TEST_F(PostgresTest, ACommitWhoseAnswerWasLostIsNotDoneTwice) {
  auto lease = Lease("controller-0");
  ASSERT_TRUE(*lease->TryTake());
  auto store = OpenStore(lease->epoch());
  ASSERT_TRUE(store->Increment("c").ok());
  ASSERT_TRUE(store->Commit().ok());
  // Another session of the same controller does commit number n + 1; for the first it is as if its own had gone
  // through and the answer had been lost with the connection.
  PostgresOptions options{.address = address_, .epoch = lease->epoch()};
  auto twin = *PostgresDatabase::Open(options);
  const std::string sql = "UPDATE counters SET value = value + 1";
  ASSERT_TRUE(store->database().Prepare(sql).Run().ok());
  ASSERT_TRUE(twin->Prepare(sql).Run().ok());
  ASSERT_TRUE(twin->Commit().ok());
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_EQ(Counter("c"), "2");
  ASSERT_TRUE(store->Increment("c").ok());
  ASSERT_TRUE(store->Commit().ok());
  EXPECT_EQ(Counter("c"), "3");
}

TEST_F(PostgresTest, ACrashOfTheServerIsWaitedFor) {
  auto lease = Lease("controller-0");
  ASSERT_TRUE(*lease->TryTake());
  auto store = OpenStore(lease->epoch());
  ASSERT_TRUE(store->Increment("c").ok());
  ASSERT_TRUE(store->Commit().ok());
  ASSERT_TRUE(store->Increment("c").ok());
  server_->Kill();
  std::thread later([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    server_->Start();
  });
  absl::Status committed = store->Commit();
  later.join();
  EXPECT_TRUE(committed.ok()) << committed;
  EXPECT_EQ(Counter("c"), "2");
}

TEST_F(PostgresTest, AServerThatStaysAwayIsNamedWithWhatToDo) {
  auto lease = Lease("controller-0");
  ASSERT_TRUE(*lease->TryTake());
  auto store = OpenStore(lease->epoch(), absl::Milliseconds(500));
  server_->Kill();
  ASSERT_TRUE(store->database().Prepare("UPDATE counters SET value = 0").Run().ok());
  absl::Status status = store->Commit();
  absl::Status opened = LeaderLease::Open(address_, "late", absl::Seconds(1), absl::Milliseconds(300)).status();
  server_->Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  for (const char* part : {"rein@socket/", "gave up after 500ms", "start the controller again"}) {
    EXPECT_THAT(Message(status), HasSubstr(part));
  }
  ASSERT_EQ(lost_.size(), 1);
  EXPECT_FALSE(store->Commit().ok());  // though the server is there again: this controller's memory may be ahead
  EXPECT_EQ(opened.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(opened), HasSubstr("rein@socket/"));
}

TEST_F(PostgresTest, PasswordsComeFromAFileAndStandInNoMessage) {
  const std::string wrong = testing::TempDir() + "/wrong_password";
  std::ofstream(wrong) << "canary-that-is-wrong\n";
  absl::StatusOr<PostgresAddress> address = ReadPostgresAddress(server_->tcp_url(), server_->password_file());
  ASSERT_TRUE(address.ok()) << address.status();
  EXPECT_TRUE(PostgresConnection::Open(*address, "test").ok());
  absl::Status status = PostgresConnection::Open(*ReadPostgresAddress(server_->tcp_url(), wrong), "test").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(Message(status), HasSubstr("rein@127.0.0.1"));
  EXPECT_THAT(Message(status), Not(HasSubstr("canary")));
}

TEST_F(PostgresTest, CommitsAreOnDiskWhateverTheServersDefaultIs) {
  server_->Sql("ALTER ROLE rein SET synchronous_commit = off");
  auto session = *PostgresConnection::Open(address_, "test");
  auto rows = *session->Run({{"SELECT current_setting('synchronous_commit')", {}}});
  server_->Sql("ALTER ROLE rein RESET synchronous_commit");
  ASSERT_TRUE(rows[0].Next());
  EXPECT_EQ(rows[0].Bytes(0), "on");
}

TEST_F(PostgresTest, AServerThatSyncsNothingIsRefused) {
  server_->Sql("ALTER SYSTEM SET fsync = off");
  server_->Sql("SELECT pg_reload_conf()");
  absl::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {  // the reload takes a moment
    status = PostgresConnection::Open(address_, "test").status();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  server_->Sql("ALTER SYSTEM RESET fsync");
  server_->Sql("SELECT pg_reload_conf()");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("fsync=off"));
  while (!PostgresConnection::Open(address_, "test").ok()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

TEST_F(PostgresTest, AnEmptyListAndAFailureInTheMiddleLeaveTheSessionUsable) {
  auto session = *PostgresConnection::Open(address_, "test");
  absl::Status status = session->Run({{"SELECT 1", {}}, {"SELECT no_such_column", {}}, {"SELECT 2", {}}}).status();
  EXPECT_EQ(session->sql_state(), "42703");
  EXPECT_THAT(Message(status), HasSubstr("no_such_column"));
  auto rows = session->Run({{"SELECT 2", {}}, {"SELECT ? + 1", {int64_t{-7}}}, {"SELECT CAST(NULL AS FLOAT8), TRUE, CAST(-3 AS INT)", {}}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_TRUE((*rows)[1].Next());
  EXPECT_EQ(static_cast<int64_t>((*rows)[1].Unsigned(0)), -6);
  ASSERT_TRUE((*rows)[2].Next());
  EXPECT_EQ((*rows)[2].Double(0), 0);
  EXPECT_EQ((*rows)[2].Unsigned(1), 1);
  EXPECT_EQ(static_cast<int64_t>((*rows)[2].Unsigned(2)), -3);
}

}  // namespace
}  // namespace rein::services
