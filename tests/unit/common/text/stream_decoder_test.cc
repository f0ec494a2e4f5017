#include "common/text/stream_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::text {
namespace {

using ::testing::ElementsAre;

// The bytes of "é" (C3 A9) are two tokens.
constexpr std::string_view kByteLevel = R"({
  "version": "1.0",
  "added_tokens": [{"id": 6, "content": "<|end|>", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}],
  "pre_tokenizer": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
              "use_regex": true},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ã": 4, "©": 5},
            "merges": ["a b"]}
})";

// The decoder of Llama 2: words carry their space in front, bytes without a token are <0xNN>.
constexpr std::string_view kByteFallback = R"({
  "version": "1.0", "added_tokens": [], "pre_tokenizer": null,
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "byte_fallback": true, "unk_token": null, "merges": [],
            "vocab": {"▁one": 0, "▁two": 1, "<0xE4>": 2, "<0xB8>": 3, "<0xAD>": 4}}
})";

std::vector<std::string> Pieces(std::string_view json, const std::vector<uint32_t>& ids) {
  std::unique_ptr<Tokenizer> tokenizer = *Tokenizer::Create(json);
  StreamDecoder decoder(*tokenizer);
  std::vector<std::string> pieces;
  std::string joined;
  for (uint32_t id : ids) pieces.push_back(*decoder.Append(id));
  pieces.push_back(*decoder.Flush());
  for (const std::string& piece : pieces) joined += piece;
  EXPECT_EQ(joined, *tokenizer->Decode(ids, /*skip_special_tokens=*/true));
  return pieces;
}

TEST(StreamDecoderTest, HoldsHalfACharacterBack) {
  EXPECT_THAT(Pieces(kByteLevel, {3, 4, 5, 2, 0}), ElementsAre("ab", "", "é", " ", "a", ""));
}

TEST(StreamDecoderTest, FlushShowsWhatIsNoCharacter) {
  EXPECT_THAT(Pieces(kByteLevel, {0, 4}), ElementsAre("a", "", "\uFFFD"));
}

TEST(StreamDecoderTest, GoesOnAfterBytesThatAreNoCharacter) {
  EXPECT_THAT(Pieces(kByteLevel, {4, 0, 1}), ElementsAre("", "\uFFFDa", "b", ""));
}

TEST(StreamDecoderTest, SkipsSpecialTokens) {
  EXPECT_THAT(Pieces(kByteLevel, {0, 6, 1}), ElementsAre("a", "", "b", ""));
}

TEST(StreamDecoderTest, KeepsTheSpaceOfLaterWords) {
  EXPECT_THAT(Pieces(kByteFallback, {0, 1, 1}), ElementsAre("one", " two", " two", ""));
}

TEST(StreamDecoderTest, JoinsFallbackBytes) {
  EXPECT_THAT(Pieces(kByteFallback, {0, 2, 3, 4, 2, 3, 4}),
              ElementsAre("one", "", "", "中", "", "", "中", ""));
}

TEST(StreamDecoderTest, GivesUpOnEndlessInvalidBytes) {
  std::vector<uint32_t> ids(200, 5);
  std::vector<std::string> pieces = Pieces(kByteLevel, ids);
  EXPECT_EQ(pieces[62], "");
  EXPECT_EQ(pieces[63].size(), 64 * std::string("\uFFFD").size());
}

}  // namespace
}  // namespace rein::text
