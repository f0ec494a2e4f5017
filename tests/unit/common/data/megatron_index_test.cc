#include "common/data/megatron_index.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class MegatronIndexTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "megatron_index_test";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  void Write(const std::string& name, const std::vector<uint8_t>& bytes) const {
    std::ofstream(Path(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

  std::vector<uint8_t> Bytes(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::string Error(const std::string& name) const {
    auto tokens = IndexedTokens::Open(Path(name));
    EXPECT_FALSE(tokens.ok());
    return std::string(tokens.status().message());
  }

  std::filesystem::path folder_;
};

// Two documents, [3, 1, 4] and [1, 5], byte by byte as the public description of the format lays them out:
// megatron/core/datasets/indexed_dataset.py of NVIDIA/Megatron-LM, _IndexWriter.
std::vector<uint8_t> GoldenIndex(uint8_t dtype, uint8_t width) {
  std::vector<uint8_t> bytes = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0,   // magic
                                1, 0, 0, 0, 0, 0, 0, 0,                    // version
                                dtype,
                                2, 0, 0, 0, 0, 0, 0, 0,                    // sequences
                                3, 0, 0, 0, 0, 0, 0, 0,                    // documents + 1
                                3, 0, 0, 0, 2, 0, 0, 0,                    // lengths
                                0, 0, 0, 0, 0, 0, 0, 0,                    // pointers in bytes
                                static_cast<uint8_t>(3 * width), 0, 0, 0, 0, 0, 0, 0,
                                0, 0, 0, 0, 0, 0, 0, 0,                    // documents
                                1, 0, 0, 0, 0, 0, 0, 0,
                                2, 0, 0, 0, 0, 0, 0, 0};
  return bytes;
}

TEST_F(MegatronIndexTest, WritesTheFormatByteByByte) {
  auto writer = *IndexedTokensWriter::Create(Path("small"), 1000);
  ASSERT_TRUE(writer->Add({3, 1, 4}).ok());
  ASSERT_TRUE(writer->Add({1, 5}).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("small.idx"))) << "whole or not at all";
  ASSERT_TRUE(writer->Close().ok());
  EXPECT_EQ(Bytes("small.idx"), GoldenIndex(8, 2));
  EXPECT_EQ(Bytes("small.bin"), (std::vector<uint8_t>{3, 0, 1, 0, 4, 0, 1, 0, 5, 0}));

  writer = *IndexedTokensWriter::Create(Path("large"), 65500);
  ASSERT_TRUE(writer->Add({3, 1, 4}).ok());
  ASSERT_TRUE(writer->Add({1, 65499}).ok());
  ASSERT_TRUE(writer->Close().ok());
  EXPECT_EQ(Bytes("large.idx"), GoldenIndex(4, 4));
  EXPECT_EQ(Bytes("large.bin").size(), 20u);
}

TEST_F(MegatronIndexTest, ReadsEveryWidthOfTokens) {
  const std::map<uint8_t, uint8_t> widths = {{1, 1}, {2, 1}, {3, 2}, {4, 4}, {5, 8}, {8, 2}};
  for (const auto& [dtype, width] : widths) {
    Write("a.idx", GoldenIndex(dtype, width));
    std::vector<uint8_t> bin;
    for (uint8_t id : {3, 1, 4, 1, 5}) {
      bin.push_back(id);
      bin.resize(bin.size() + width - 1, 0);
    }
    Write("a.bin", bin);
    auto tokens = IndexedTokens::Open(Path("a.idx"));
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ((*tokens)->documents(), 2u);
    EXPECT_EQ((*tokens)->tokens(), 5u);
    EXPECT_EQ((*tokens)->EndOf(0), 3u);
    EXPECT_THAT(*(*tokens)->Read(0, 5), ElementsAre(3, 1, 4, 1, 5)) << int{dtype};
    EXPECT_THAT(*(*tokens)->Read(2, 2), ElementsAre(4, 1)) << "across documents";
    EXPECT_EQ((*tokens)->DocumentAt(2), 0u);
    EXPECT_EQ((*tokens)->DocumentAt(3), 1u);
  }
}

// A document of two sequences, the second of which lies first in the .bin.
TEST_F(MegatronIndexTest, DocumentsAreRunsOfSequencesWhereverTheyLie) {
  std::vector<uint8_t> index = GoldenIndex(8, 2);
  index[34] = 2;  // document entries: 0 and 2
  index[26] = 2;
  index.resize(index.size() - 8);
  index[42] = 4;   // the first sequence behind the second
  index[50] = 0;
  index[58] = 0;
  index[66] = 2;
  // lengths 2 and 2 of a .bin of four tokens
  index[38] = 2;
  Write("a.idx", index);
  Write("a.bin", {7, 0, 8, 0, 1, 0, 2, 0});
  auto tokens = IndexedTokens::Open(Path("a.idx"));
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ((*tokens)->documents(), 1u);
  EXPECT_THAT(*(*tokens)->Read(0, 4), ElementsAre(1, 2, 7, 8));
}

TEST_F(MegatronIndexTest, FaultsAreNamed) {
  EXPECT_THAT(Error("a.bin"), HasSubstr("want a file that ends with .idx"));
  EXPECT_THAT(Error("a.idx"), HasSubstr("cannot open"));
  Write("a.bin", {3, 0, 1, 0, 4, 0, 1, 0, 5, 0});
  Write("a.idx", {'J', 'S', 'O', 'N'});
  EXPECT_THAT(Error("a.idx"), HasSubstr("does not begin with MMIDIDX"));
  auto with = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> index = GoldenIndex(8, 2);
    index[at] = value;
    Write("a.idx", index);
    return Error("a.idx");
  };
  EXPECT_THAT(with(9, 2), HasSubstr("has version 2, want 1"));
  EXPECT_THAT(with(17, 7), HasSubstr("has dtype code 7, want 1 to 5 or 8"));
  EXPECT_THAT(with(18, 9), HasSubstr("bytes, want"));
  EXPECT_THAT(with(25, 255), HasSubstr("bytes, want more for"));
  EXPECT_THAT(with(38, 9), HasSubstr("sequence 1 has 9 tokens at byte 6, the .bin has 10 bytes"));
  EXPECT_THAT(with(50, 200), HasSubstr("sequence 1 has 2 tokens at byte 200"));
  EXPECT_THAT(with(66, 9), HasSubstr("document entry 1 is 9"));
  EXPECT_THAT(with(74, 1), HasSubstr("document entry 2 is 1, want 2"));
  Write("a.idx", GoldenIndex(3, 2));
  Write("a.bin", {3, 0, 255, 255, 4, 0, 1, 0, 5, 0});
  auto tokens = *IndexedTokens::Open(Path("a.idx"));
  EXPECT_THAT(std::string(tokens->Read(0, 5).status().message()), HasSubstr("token 1 of the stream is -1"));
  EXPECT_TRUE(absl::IsOutOfRange(tokens->Read(4, 2).status()));
  auto writer = *IndexedTokensWriter::Create(Path("b"), 10);
  EXPECT_THAT(std::string(writer->Add({10}).message()), HasSubstr("10 is outside the vocabulary of 10"));
  writer.reset();
  EXPECT_FALSE(std::filesystem::exists(Path("b.bin.partial"))) << "what was not closed is removed";
}

}  // namespace
}  // namespace rein::data
