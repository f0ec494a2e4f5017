#include "common/checkpoint/checkpoint_folder.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace rein::checkpoint {
namespace {

using ::testing::HasSubstr;

class CheckpointFolderTest : public testing::Test {
 protected:
  CheckpointFolderTest() {
    std::filesystem::remove_all(path_);
    auto writer = CheckpointWriter::Create(path_);
    EXPECT_TRUE(writer.ok()) << writer.status();
    std::ofstream((*writer)->folder() + "/weights") << "1234";
    EXPECT_TRUE((*writer)->Commit().ok());
  }

  void SetFormat(const nlohmann::json& format) {
    nlohmann::json manifest = nlohmann::json::parse(std::ifstream(path_ + "/manifest.json"));
    manifest["format"] = format;
    std::ofstream(path_ + "/manifest.json") << manifest;
  }

  const std::string path_ = testing::TempDir() + "/checkpoint_folder_test";
};

TEST_F(CheckpointFolderTest, WhatWasCommittedIsWhole) { EXPECT_TRUE(VerifyCheckpoint(path_).ok()); }

TEST_F(CheckpointFolderTest, AFileThatChangedIsNamed) {
  std::ofstream(path_ + "/weights") << "1235";
  const absl::Status status = VerifyCheckpoint(path_);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_ + "/weights: has 4 bytes"));
}

TEST_F(CheckpointFolderTest, AnotherVersionsFormatIsRefusedWithBoth) {
  for (const nlohmann::json& format : {nlohmann::json("rein.checkpoint.v2"), nlohmann::json()}) {
    SetFormat(format);
    const absl::Status status = VerifyCheckpoint(path_);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_ + "/manifest.json: is of format " + format.dump() +
                                                         ", this build reads \"rein.checkpoint.v1\": go on with the version of Rein that wrote it"));
  }
  SetFormat("rein.checkpoint.v1");
  EXPECT_TRUE(VerifyCheckpoint(path_).ok());
}

}  // namespace
}  // namespace rein::checkpoint
