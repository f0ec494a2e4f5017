#include "services/controller/segment_log.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "services/controller/crc32c.h"

namespace {
bool disk_fails = false;
}  // namespace

// In place of the C library's.
extern "C" int fdatasync(int file) {
  if (!disk_fails) return static_cast<int>(syscall(SYS_fdatasync, file));
  errno = EIO;
  return -1;
}

namespace rein::services {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class SegmentLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/segment_log_test";
    fs::remove_all(folder_);
    Open();
  }

  void Open() {
    log_.reset();
    auto log = SegmentLog::Open(folder_);
    ASSERT_TRUE(log.ok()) << log.status();
    log_ = *std::move(log);
  }

  std::string File() const { return folder_ + "/000001.rollouts"; }

  std::string folder_;
  std::unique_ptr<SegmentLog> log_;
};

TEST_F(SegmentLogTest, ReadsBackWhatWasAppended) {
  RecordPlace first = *log_->Append("one");
  RecordPlace second = *log_->Append("");
  RecordPlace third = *log_->Append(std::string(100000, 'x'));
  ASSERT_TRUE(log_->Sync().ok());
  Open();
  EXPECT_EQ(*log_->Read(first), "one");
  EXPECT_EQ(*log_->Read(second), "");
  EXPECT_EQ(log_->Read(third)->size(), 100000);
  RecordPlace fourth = *log_->Append("four");
  EXPECT_EQ(*log_->Read(fourth), "four");
}

TEST_F(SegmentLogTest, ATornTailIsCutOffAtEveryLength) {
  RecordPlace kept = *log_->Append("kept");
  uint64_t whole = fs::file_size(File());
  RecordPlace torn = *log_->Append("torn record");
  uint64_t full = fs::file_size(File());
  for (uint64_t size = whole + 1; size < full; ++size) {
    log_.reset();
    fs::resize_file(File(), size);
    Open();
    EXPECT_EQ(fs::file_size(File()), whole) << size;
    EXPECT_EQ(*log_->Read(kept), "kept");
    EXPECT_EQ(log_->Append("torn record")->offset, torn.offset);
  }
}

// The kernel reports a failed write-back once and takes what it could not write for written: a second try would succeed.
TEST_F(SegmentLogTest, WhatCouldNotBeSyncedIsGoneForGood) {
  RecordPlace kept = *log_->Append("kept");
  ASSERT_TRUE(log_->Sync().ok());
  const uint64_t synced = fs::file_size(File());
  RecordPlace lost = *log_->Append("lost");
  disk_fails = true;
  const absl::Status failed = log_->Sync();
  disk_fails = false;
  EXPECT_THAT(std::string(failed.message()), AllOf(HasSubstr("cannot sync " + File()), HasSubstr("Input/output error")));
  EXPECT_EQ(log_->Sync(), failed) << "or the lost record would be committed";
  EXPECT_EQ(log_->Append("after").status(), failed) << "a committed record behind a lost one would be cut off with it";
  EXPECT_EQ(*log_->Read(kept), "kept");
  EXPECT_EQ(fs::file_size(File()), synced);
  Open();  // the job resumed
  EXPECT_EQ(*log_->Read(kept), "kept");
  EXPECT_EQ(log_->Read(lost).status().code(), absl::StatusCode::kDataLoss);
  RecordPlace next = *log_->Append("next");
  EXPECT_EQ(next.offset, lost.offset);
  ASSERT_TRUE(log_->Sync().ok());
  Open();
  EXPECT_EQ(*log_->Read(next), "next");
}

TEST_F(SegmentLogTest, ADamagedRecordIsNamed) {
  RecordPlace first = *log_->Append("first");
  ASSERT_TRUE(log_->Append("second").ok());
  {
    std::fstream file(File(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(9);
    file.put('X');
  }
  absl::Status status = log_->Read(first).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("000001.rollouts: the record at byte 0"));
  EXPECT_FALSE(log_->Read({.segment = 9, .offset = 0}).ok());
}

// The stale process goes on after its successor has opened the log: neither touches what the other wrote.
TEST_F(SegmentLogTest, WritersOfASharedLogNeverMeetInAFile) {
  const std::string folder = folder_ + "/shared";
  auto open = [&] { return *SegmentLog::Open(folder, {.max_bytes = 20, .shared = true}); };
  auto stale = open();
  const RecordPlace first = *stale->Append("of the first");
  auto next = open();
  EXPECT_EQ(*next->Read(first), "of the first");
  EXPECT_EQ(next->List().size(), 1);  // made when something is written
  std::vector<std::pair<RecordPlace, std::string>> written;
  for (int i = 0; i < 6; ++i) {
    for (auto* log : {stale.get(), next.get()}) {
      const std::string text = (log == stale.get() ? "stale record " : "next record ") + std::to_string(i);
      written.emplace_back(*log->Append(text), text);
    }
  }
  for (const auto& [place, text] : written) {
    EXPECT_EQ(*stale->Read(place), text);
    EXPECT_EQ(*next->Read(place), text);
  }
  EXPECT_EQ(*open()->Read(first), "of the first");
}

TEST_F(SegmentLogTest, ASharedLogCutsNothing) {
  const RecordPlace kept = *log_->Append("kept");
  ASSERT_TRUE(log_->Append("torn record").ok());
  log_.reset();
  const uint64_t torn = fs::file_size(File()) - 3;
  fs::resize_file(File(), torn);
  auto log = *SegmentLog::Open(folder_, {.shared = true});
  EXPECT_EQ(log->Append("next")->segment, 2);
  EXPECT_EQ(fs::file_size(File()), torn);
  EXPECT_EQ(*log->Read(kept), "kept");
}

TEST(Crc32cTest, HasTheKnownCheckValue) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283);
  EXPECT_EQ(Crc32c(""), 0);
}

}  // namespace
}  // namespace rein::services
