#include "common/data/fill_in_the_middle.h"

#include <filesystem>
#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/data/corpus_builder.h"
#include "common/data/megatron_index.h"

namespace rein::data {
namespace {

using ::testing::HasSubstr;

class FillInTheMiddleTest : public ::testing::Test {
 protected:
  // The digits tokenizer with three tokens more.
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "fill_in_the_middle_test";
    std::filesystem::remove_all(folder_);
    std::filesystem::copy("configs/models/digits", folder_);
    std::ifstream in("configs/models/digits/tokenizer.json");
    auto json = nlohmann::ordered_json::parse(in);
    uint32_t next = (*text::ModelText::Load("configs/models/digits"))->vocabulary_size();
    for (const char* token : {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"}) {
      json["added_tokens"].push_back({{"id", next++}, {"content", token}, {"single_word", false}, {"lstrip", false},
                                      {"rstrip", false}, {"normalized", false}, {"special", true}});
    }
    std::ofstream(folder_ / "tokenizer.json") << json.dump();
    auto text = text::ModelText::Load(folder_);
    ASSERT_TRUE(text.ok()) << text.status();
    text_ = *std::move(text);
    prefix_ = *text_->tokenizer()->TokenId("<fim_prefix>");
    suffix_ = *text_->tokenizer()->TokenId("<fim_suffix>");
    middle_ = *text_->tokenizer()->TokenId("<fim_middle>");
  }

  FillInTheMiddle Make(const FillInTheMiddleOptions& options) const {
    auto made = FillInTheMiddle::Create(options, *text_);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  // The document that the ids tell, put together again; `suffix_first` is set.
  std::string Whole(const std::vector<uint32_t>& ids, bool* suffix_first) const {
    auto at = [&](uint32_t token) { return std::find(ids.begin(), ids.end(), token); };
    const auto s = at(suffix_), m = at(middle_);
    EXPECT_EQ(ids.front(), prefix_);
    EXPECT_LT(s, m);
    EXPECT_NE(m, ids.end());
    auto text = [&](auto begin, auto end) { return *text_->Decode(std::vector<uint32_t>(begin, end)); };
    *suffix_first = s == ids.begin() + 1;  // or the prefix is empty: the same either way
    return text(ids.begin() + 1, s) + text(m + 1, ids.end()) + text(s + 1, m);
  }

  std::string Error(const FillInTheMiddleOptions& options) const {
    absl::Status status = FillInTheMiddle::Create(options, *text_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  }

  std::filesystem::path folder_;
  std::unique_ptr<text::ModelText> text_;
  uint32_t prefix_ = 0, suffix_ = 0, middle_ = 0;
};

TEST_F(FillInTheMiddleTest, NothingIsLostAndEveryCutComes) {
  const std::string document = "max(1,22,333)";
  const FillInTheMiddle told = Make({.rate = 1, .suffix_first = 0.5, .seed = 3});
  int suffix_first = 0;
  std::set<std::vector<uint32_t>> different;
  for (uint64_t line = 0; line < 400; ++line) {
    auto ids = told.Encode(document, 0, line);
    ASSERT_TRUE(ids.ok()) << ids.status();
    bool is_suffix_first = false;
    EXPECT_EQ(Whole(*ids, &is_suffix_first), document);
    suffix_first += is_suffix_first ? 1 : 0;
    different.insert(*ids);
    EXPECT_EQ(*told.Encode(document, 0, line), *ids) << "draws have names";
  }
  EXPECT_GT(different.size(), 80u);
  EXPECT_GT(suffix_first, 150);
  EXPECT_LT(suffix_first, 300);
}

TEST_F(FillInTheMiddleTest, OrdersAreThoseOfTheSource) {
  const FillInTheMiddle prefix_first = Make({.rate = 1, .suffix_first = 0}), suffix_first = Make({.rate = 1, .suffix_first = 1});
  int marks_together = 0;  // the cut was before the first character: 15 of 64
  for (uint64_t line = 0; line < 200; ++line) {
    bool together = false;
    EXPECT_EQ(Whole(*prefix_first.Encode("1234567", 0, line), &together), "1234567");
    marks_together += together ? 1 : 0;
    EXPECT_EQ(Whole(*suffix_first.Encode("1234567", 0, line), &together), "1234567");
    EXPECT_TRUE(together);
  }
  EXPECT_GT(marks_together, 15);
  EXPECT_LT(marks_together, 90);
}

TEST_F(FillInTheMiddleTest, AShareOfTheDocumentsIsCut) {
  const FillInTheMiddle told = Make({.rate = 0.3});
  int cut = 0;
  for (uint64_t line = 0; line < 2000; ++line) {
    const std::vector<uint32_t> ids = *told.Encode("12345", 1, line);
    if (ids.front() == prefix_) {
      ++cut;
    } else {
      EXPECT_EQ(ids, *text_->Encode("12345", false));
    }
  }
  EXPECT_NEAR(cut / 2000.0, 0.3, 0.05);
}

TEST_F(FillInTheMiddleTest, ACorpusIsTheSameByAnyThreads) {
  std::ofstream file(folder_ / "a.jsonl");
  for (int i = 0; i < 300; ++i) file << "{\"text\": \"max(" << i << ",2,3)\"}\n";
  file.close();
  auto build = [&](const std::string& name, int threads, double rate) {
    BuildOptions options{.inputs = {folder_ / "a.jsonl"}, .prefix = folder_ / name, .threads = threads};
    options.middle.rate = rate;
    auto report = BuildCorpus(options, *text_, nullptr);
    EXPECT_TRUE(report.ok()) << report.status();
    auto tokens = *IndexedTokens::Open(folder_ / (name + ".idx"));
    return *tokens->Read(0, tokens->tokens());
  };
  const auto one = build("one", 1, 0.5), three = build("three", 3, 0.5), plain = build("plain", 3, 0);
  EXPECT_EQ(one, three);
  EXPECT_NEAR(static_cast<double>(std::count(one.begin(), one.end(), middle_)), 150, 40);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), middle_), 0);
}

TEST_F(FillInTheMiddleTest, FaultsAreNamed) {
  EXPECT_THAT(Error({.rate = 1.5}), HasSubstr("rate is 1.5, want 0 to 1"));
  EXPECT_THAT(Error({.rate = 1, .tokens = {"<a>", "<b>"}}), HasSubstr("2 tokens, want three"));
  EXPECT_THAT(Error({.rate = 1, .tokens = {"<a>", "<b>", "<c>"}}),
              HasSubstr("lacks the tokens for prefix, suffix and middle; looked for <a> <b> <c>; name its own"));
  auto plain = text::ModelText::Load("configs/models/digits");
  EXPECT_THAT(std::string(FillInTheMiddle::Create({.rate = 1}, **plain).status().message()),
              HasSubstr("<fim_prefix> <fim_suffix> <fim_middle>, or <|fim_prefix|>"));
}

}  // namespace
}  // namespace rein::data
