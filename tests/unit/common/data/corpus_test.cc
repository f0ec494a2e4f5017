#include "common/data/corpus.h"

#include <filesystem>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/data/corpus_builder.h"

#include <fstream>

namespace rein::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CorpusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "corpus_test";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  CorpusPart Part(const std::string& name, const std::vector<std::vector<uint32_t>>& documents,
                  double weight = 0) const {
    auto writer = *IndexedTokensWriter::Create(Path(name), 10'000);
    for (const auto& document : documents) EXPECT_TRUE(writer->Add(document).ok());
    EXPECT_TRUE(writer->Close().ok());
    return {.tokens = *IndexedTokens::Open(Path(name + ".idx")), .weight = weight};
  }

  // One document of count tokens first, first + 1, ...
  CorpusPart Line(const std::string& name, uint32_t first, uint32_t count, double weight = 0) const {
    std::vector<uint32_t> document;
    for (uint32_t i = 0; i < count; ++i) document.push_back(first + i);
    return Part(name, {document}, weight);
  }

  static std::unique_ptr<Corpus> Make(CorpusPart part, const CorpusOptions& options) {
    std::vector<CorpusPart> parts;
    parts.push_back(std::move(part));
    auto corpus = Corpus::Create(std::move(parts), options);
    EXPECT_TRUE(corpus.ok()) << corpus.status();
    return *std::move(corpus);
  }

  std::filesystem::path folder_;
};

TEST_F(CorpusTest, SequencesOverlapByATokenAndAreCutAtDocuments) {
  auto corpus = Make(Part("a", {{1, 2, 3}, {4, 5}, {6, 7, 8, 9}}), {.sequence_tokens = 5, .shuffle = false});
  EXPECT_EQ(corpus->size(), 2u);
  EXPECT_THAT(*corpus->Read(0), ElementsAre(ElementsAre(1, 2, 3), ElementsAre(4, 5)));
  EXPECT_THAT(*corpus->Read(1), ElementsAre(ElementsAre(5), ElementsAre(6, 7, 8, 9)));
  EXPECT_TRUE(absl::IsOutOfRange(corpus->Read(2).status()));
}

TEST_F(CorpusTest, EveryTokenIsPredictedOnceInAPassAndPassesDiffer) {
  auto corpus = Make(Line("a", 0, 101), {.sequence_tokens = 11, .passes = 2});
  EXPECT_EQ(corpus->sequences_in_pass(), 10u);
  EXPECT_EQ(corpus->size(), 20u);
  std::vector<uint32_t> order[2];
  for (uint64_t pass = 0; pass < 2; ++pass) {
    std::set<uint32_t> predicted;
    for (uint64_t i = 0; i < 10; ++i) {
      const std::vector<uint32_t> ids = corpus->Read(pass * 10 + i)->front();
      order[pass].push_back(ids[0]);
      for (size_t t = 1; t < ids.size(); ++t) EXPECT_TRUE(predicted.insert(ids[t]).second);
    }
    EXPECT_EQ(predicted.size(), 100u);
  }
  EXPECT_NE(order[0], order[1]);
  auto again = Make(Line("b", 0, 101), {.sequence_tokens = 11, .passes = 2});
  EXPECT_EQ(again->Read(13)->front()[0], order[1][3]) << "a place is all that a restart needs";
}

TEST_F(CorpusTest, WeightsSayHowOftenAPartIsDrawnFrom) {
  std::vector<CorpusPart> parts;
  parts.push_back(Line("a", 0, 11, 3));
  parts.push_back(Line("b", 1000, 1001, 1));
  auto corpus = *Corpus::Create(std::move(parts), {.sequence_tokens = 11, .sequences = 40});
  std::map<bool, int> count;
  std::set<uint32_t> of_b;
  for (uint64_t i = 0; i < 40; ++i) {
    const uint32_t first = corpus->Read(i)->front()[0];
    ++count[first >= 1000];
    if (first >= 1000) {
      EXPECT_TRUE(of_b.insert(first).second) << "nothing twice before all came";
    }
  }
  EXPECT_EQ(count[false], 30) << "a small part is read again and again";
  EXPECT_EQ(count[true], 10);
}

TEST_F(CorpusTest, WithoutWeightsAPassIsEverySequenceOnce) {
  std::vector<CorpusPart> parts;
  parts.push_back(Line("a", 0, 71));
  parts.push_back(Line("b", 1000, 31));
  parts.push_back(Line("c", 2000, 11));
  auto corpus = *Corpus::Create(std::move(parts), {.sequence_tokens = 11, .passes = 2});
  ASSERT_EQ(corpus->size(), 22u);
  for (uint64_t pass = 0; pass < 2; ++pass) {
    std::set<uint32_t> seen;
    for (uint64_t i = 0; i < 11; ++i) seen.insert(corpus->Read(pass * 11 + i)->front()[0]);
    EXPECT_EQ(seen.size(), 11u);
  }
}

TEST_F(CorpusTest, SharesAreOfDocuments) {
  std::vector<std::vector<uint32_t>> documents;
  for (uint32_t d = 0; d < 10; ++d) documents.push_back({d, d, d, d});
  auto held_out = Make(Part("a", documents), {.sequence_tokens = 3, .share_begin = 0.8, .share_end = 1, .shuffle = false});
  EXPECT_EQ(held_out->size(), 3u);
  EXPECT_THAT(*held_out->Read(0), ElementsAre(ElementsAre(8, 8, 8)));
  std::vector<CorpusPart> parts;
  parts.push_back(Part("b", documents));
  auto none = Corpus::Create(std::move(parts), {.sequence_tokens = 10, .share_begin = 0.8, .share_end = 1});
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("b.idx: documents 8 to 10 of 10 have 8 tokens, a sequence has 10"));
}

class CorpusBuilderTest : public CorpusTest {
 protected:
  void SetUp() override {
    CorpusTest::SetUp();
    std::ofstream file(Path("a.jsonl"));
    for (int i = 0; i < 200; ++i) file << "{\"text\": \"max(" << i % 10 << ",2,3)\", \"other\": 1}\n\n";
    file << "{\"text\": \"\"}\n";
    std::ofstream(Path("b.txt")) << "12345";
  }

  BuildOptions Options(const std::string& prefix) const {
    return {.inputs = {Path("a.jsonl"), Path("b.txt")}, .prefix = Path(prefix), .threads = 3};
  }

  std::string Error(const BuildOptions& options) const {
    auto report = BuildCorpus(options, *text_, nullptr);
    EXPECT_FALSE(report.ok());
    return std::string(report.status().message());
  }

  std::string Content(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::unique_ptr<text::ModelText> text_ = *text::ModelText::Load("configs/models/digits");
};

TEST_F(CorpusBuilderTest, EveryLineAndFileIsADocumentThatEndsWithItsToken) {
  auto report = BuildCorpus(Options("corpus"), *text_, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->documents, 201u);
  EXPECT_EQ(report->skipped, 1u) << "the empty one";
  EXPECT_THAT(report->index_files, ElementsAre(Path("corpus.idx")));
  auto tokens = *IndexedTokens::Open(Path("corpus.idx"));
  EXPECT_EQ(tokens->documents(), 201u);
  EXPECT_EQ(tokens->tokens(), report->tokens);
  std::vector<uint32_t> wanted = *text_->Encode("max(0,2,3)", false);
  wanted.push_back(*text_->eos_token_id());
  EXPECT_EQ(*tokens->Read(0, tokens->EndOf(0)), wanted);
  EXPECT_FALSE(std::filesystem::exists(Path("corpus.build.json")));
  EXPECT_THAT(Error(Options("corpus")), HasSubstr("corpus.idx exists already"));
}

TEST_F(CorpusBuilderTest, ThreadsShardsAndRestartsDoNotShow) {
  ASSERT_TRUE(BuildCorpus(Options("whole"), *text_, nullptr).ok());
  BuildOptions sharded = Options("sharded");
  sharded.shard_bytes = 700;
  sharded.threads = 1;
  sharded.keep_shards = true;
  auto shards = BuildCorpus(sharded, *text_, nullptr);
  ASSERT_TRUE(shards.ok()) << shards.status();
  EXPECT_GT(shards->index_files.size(), 5u);

  // A build that stopped after some shards: a line of the last one is wrong, until it is mended.
  BuildOptions resumed = sharded;
  resumed.prefix = Path("resumed");
  resumed.keep_shards = false;
  uint64_t calls = 0;
  struct Stop {};
  try {
    (void)BuildCorpus(resumed, *text_, [&](const BuildReport&) {
      if (++calls == 4) throw Stop();
    });
    FAIL() << "was not stopped";
  } catch (const Stop&) {
  }
  EXPECT_TRUE(std::filesystem::exists(Path("resumed-00002.idx")));
  EXPECT_FALSE(std::filesystem::exists(Path("resumed-00003.idx")));
  BuildOptions other = resumed;
  other.column = "other";
  EXPECT_THAT(Error(other), HasSubstr("of a build with other inputs or options that was not finished"));
  auto report = BuildCorpus(resumed, *text_, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->kept_shards, 3u);
  EXPECT_EQ(report->documents, 201u);
  EXPECT_EQ(Content("resumed.bin"), Content("whole.bin"));
  EXPECT_EQ(Content("resumed.idx"), Content("whole.idx"));
  EXPECT_FALSE(std::filesystem::exists(Path("resumed-00000.idx")));
}

TEST_F(CorpusBuilderTest, FaultsAreNamed) {
  BuildOptions options = Options("corpus");
  options.column = "txt";
  EXPECT_THAT(Error(options), HasSubstr("a.jsonl:1: no column \"txt\""));
  options = Options("other");
  options.column = "other";
  EXPECT_THAT(Error(options), HasSubstr("a.jsonl:1: column \"other\" is number, want a text"));
  options = Options("wrong");
  std::ofstream(Path("a.jsonl"), std::ios::app) << "{\"text\n";
  EXPECT_THAT(Error(options), HasSubstr("a.jsonl:402: "));
  options = Options("skips");
  options.max_skipped = 5;
  auto report = BuildCorpus(options, *text_, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->skipped, 2u);
  options = Options("absent");
  options.inputs = {Path("absent.jsonl")};
  EXPECT_THAT(Error(options), HasSubstr("cannot open"));
}

}  // namespace
}  // namespace rein::data
