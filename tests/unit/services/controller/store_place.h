// StorePlace is where a store lies in a conformance test: the same tests run on SQLite and on PostgreSQL.
//
//   class MyTest : public ::testing::TestWithParam<StoreKind> { StorePlace place_; ... };
//   REIN_FOR_EACH_STORE(MyTest);

#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "services/controller/leader_lease.h"
#include "services/controller/store.h"
#include "tests/fakes/postgres_process.h"

namespace rein::services {

enum class StoreKind { kSqlite, kPostgres };

class StorePlace {
 public:
  // False, and the test is to be skipped, where no server is installed.
  bool Make(StoreKind kind, const std::string& name) {
    folder_ = testing::TempDir() + "/" + name + (kind == StoreKind::kSqlite ? "_sqlite" : "_postgres");
    std::filesystem::remove_all(folder_);
    if (kind == StoreKind::kSqlite) return true;
    server_ = fakes::PostgresProcess::OfThisTest();
    if (server_ == nullptr) return false;
    address_ = server_->NewDatabase();
    return true;
  }

  // As a controller that starts: on PostgreSQL under a new lease.
  absl::StatusOr<std::unique_ptr<Store>> Open(uint64_t segment_bytes = SegmentOptions::kMaxBytes) {
    StoreOptions options{.folder = folder_, .segment_bytes = segment_bytes};
    if (server_ != nullptr) {
      lease_.reset();  // gives it back
      lease_ = *LeaderLease::Open(address_, "test", absl::Seconds(60));
      EXPECT_TRUE(*lease_->TryTake());
      options.postgres = PostgresOptions{.address = address_, .epoch = lease_->epoch()};
    }
    return Store::Open(std::move(options));
  }

  const std::string& folder() const { return folder_; }
  const PostgresAddress& address() const { return address_; }
  fakes::PostgresProcess* server() const { return server_; }

 private:
  std::string folder_;
  PostgresAddress address_;
  fakes::PostgresProcess* server_ = nullptr;
  std::unique_ptr<LeaderLease> lease_;
};

#define REIN_FOR_EACH_STORE(Suite)                                                            \
  INSTANTIATE_TEST_SUITE_P(Stores, Suite,                                                     \
                           ::testing::Values(StoreKind::kSqlite, StoreKind::kPostgres),       \
                           [](const auto& kind) {                                             \
                             return kind.param == StoreKind::kSqlite ? "Sqlite" : "Postgres"; \
                           })

}  // namespace rein::services
