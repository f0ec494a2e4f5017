// The crate's own way to encode byte-level BPE gives the ids that the `tokenizers` package gives, on fresh random
// vocabularies and text, for the patterns of published tokenizers.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/text/tokenizer.h"

namespace rein::text {
namespace {

using nlohmann::ordered_json;

std::string Utf8(uint32_t code) {
  auto tail = [&](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  if (code < 0x800) return {static_cast<char>(0xc0 | (code >> 6)), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0 | (code >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | (code >> 18)), tail(12), tail(6), tail(0)};
}

// Every byte and 444 random merges; added tokens of every kind.
ordered_json ByteLevelTokenizer(const ordered_json& pre_tokenizer, absl::BitGen& random) {
  std::vector<std::string> tokens;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {  // GPT-2's bytes_to_unicode
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    tokens.push_back(Utf8(printable ? byte : next++));
  }
  ordered_json vocab, merges = ordered_json::array();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  const std::vector<std::string> often =
      absl::StrSplit("Ġ e t a o i n s r h l d ' 1 2 Ċ Ã ©", ' ');
  auto any = [&] {
    return absl::Bernoulli(random, 0.6) ? often[absl::Uniform<size_t>(random, 0, often.size())]
                                        : tokens[absl::Uniform<size_t>(random, 0, tokens.size())];
  };
  while (tokens.size() < 700) {
    const std::string left = any(), right = any();
    if (vocab.contains(left + right)) continue;
    merges.push_back({left, right});
    vocab[left + right] = tokens.size();
    tokens.push_back(left + right);
  }
  auto added = [](int id, const std::string& content, bool strips, bool normalized, bool single) {
    return ordered_json{{"id", id},         {"content", content}, {"single_word", single},
                        {"lstrip", strips}, {"rstrip", strips},   {"normalized", normalized},
                        {"special", !normalized}};
  };
  return {{"version", "1.0"},
          {"added_tokens",
           {added(700, "<|end|>", false, false, false), added(701, "    ", false, true, false),
            added(702, "<mask>", true, false, false), added(703, "word", false, false, true),
            added(704, "<s>", false, false, false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", pre_tokenizer},
          {"post_processor", nullptr},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

// Text of what splits and merges depend on: contractions, white space, digits, marks, scripts, added tokens.
std::string NastyText(int pieces, absl::BitGen& random) {
  static const std::vector<std::string> kPieces = {
      " ",      " ",     "  ",     "     ",   "\n",      "\r\n",   "\n\n",    "\t",     "\u00a0",
      "\u3000", "\u2028", "\u200b", "'s",      "'S",      "'\u017f", "'ll",     "'RE",    "'",
      "the",    " and",  "Hello",  "WORLD",   "mixedCase", "x",     "1",       "12",     "1234567",
      "\u0663", "\u00bd", "\u2167", "\u4e00\u4e8c", "\u3042\u30a2", "e\u0301", "\u00e9", "\u0e01\u0e34",
      "\u0915\u093f", "\U0001f600", "\u00df", "\ufb05", "\u01c5", "\u02b0", "\u0130", "_", "--", "...",
      "!?",     "/* */", "a/b/",   "{\"k\": [1]}", "<|end|>", "<mask>", "word", "words", "<|en", "$^",
      "\u20ac", "\u212a", "\u1100\u1161", "\x7f", "\ue000", "\U0010ffff", std::string(1, '\0')};
  std::string text;
  for (int i = 0; i < pieces; ++i) {
    if (absl::Bernoulli(random, 0.1)) {
      uint32_t code = absl::Uniform<uint32_t>(random, 0, 0x110000 - 0x800);
      text += Utf8(code < 0xd800 ? code : code + 0x800);
    } else {
      text += kPieces[absl::Uniform<size_t>(random, 0, kPieces.size())];
    }
  }
  return text;
}

ordered_json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json Splits(const std::string& pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

ordered_json Digits(bool each) { return {{"type", "Digits"}, {"individual_digits", each}}; }

ordered_json InTurn(const std::vector<ordered_json>& steps) {
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// The patterns of published tokenizer.json files.
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kGptOss[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kDeepSeekV3[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Case {
  std::string name;
  ordered_json pre_tokenizer;
};

class FastEncodeTest : public testing::TestWithParam<Case> {
 protected:
  absl::BitGen random_;
};

// Compares both ways on 2000 texts.
void Compare(const ordered_json& json, absl::BitGen& random) {
  auto tokenizer = Tokenizer::Create(json.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_TRUE((*tokenizer)->is_fast());
  for (int i = 0; i < 2000; ++i) {
    const std::string text = NastyText(absl::Uniform(random, 0, 40), random);
    const bool special = absl::Bernoulli(random, 0.5);
    auto fast = (*tokenizer)->Encode(text, special);
    auto reference = (*tokenizer)->EncodeByReference(text, special);
    ASSERT_TRUE(fast.ok()) << fast.status();
    ASSERT_TRUE(reference.ok()) << reference.status();
    ASSERT_EQ(*fast, *reference) << ordered_json(text).dump();
  }
}

TEST_P(FastEncodeTest, GivesTheIdsOfTheReference) {
  Compare(ByteLevelTokenizer(GetParam().pre_tokenizer, random_), random_);
}

TEST_P(FastEncodeTest, NormalizesAndFramesText) {
  ordered_json json = ByteLevelTokenizer(GetParam().pre_tokenizer, random_);
  json["normalizer"] = {{"type", "NFC"}};
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
        {{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}}},
      {"pair", ordered_json::array()},
      {"special_tokens",
       {{"<s>", {{"id", "<s>"}, {"ids", {704}}, {"tokens", {"<s>"}}}},
        {"<|end|>", {{"id", "<|end|>"}, {"ids", {700}}, {"tokens", {"<|end|>"}}}}}}};
  Compare(json, random_);
}

INSTANTIATE_TEST_SUITE_P(
    Published, FastEncodeTest,
    testing::Values(
        Case{"gpt2", ByteLevel(true)}, Case{"smollm2", InTurn({Digits(true), ByteLevel(true)})},
        Case{"digits", InTurn({Digits(false), ByteLevel(true)})},
        Case{"llama3", InTurn({Splits(kLlama3), ByteLevel(false)})},
        Case{"qwen2", InTurn({Splits(kQwen2), ByteLevel(false)})},
        Case{"gpt_oss", InTurn({Splits(kGptOss), ByteLevel(false)})},
        Case{"deepseek_v3", InTurn({Splits(R"(\p{N}{1,3})"), Splits("[一-龥\u0800-ゟ゠-ヿ]+"),
                                    Splits(kDeepSeekV3), ByteLevel(false)})}),
    [](const auto& info) { return info.param.name; });

// Where both engines might read a pattern differently, or ids depend on more than the text, the library encodes.
TEST_F(FastEncodeTest, LeavesWhatItDoesNotKnowToTheReference) {
  auto is_fast = [](const ordered_json& json) {
    auto tokenizer = Tokenizer::Create(json.dump());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return (*tokenizer)->is_fast();
  };
  for (const std::string pattern :
       {R"(\s+(?!\S)|x)", R"(a(?=b))", R"(\w+)", R"(a+?b)", R"([a[bc]]+)", R"([a-z&&[^b]]+)", "^a",
        R"((?i:ss)|b)", R"((a)\1)", "x*", R"(\bword)"}) {
    EXPECT_FALSE(is_fast(ByteLevelTokenizer(InTurn({Splits(pattern), ByteLevel(false)}), random_)))
        << pattern;
  }
  ordered_json prefixed = ByteLevel(true);
  prefixed["add_prefix_space"] = true;
  EXPECT_FALSE(is_fast(ByteLevelTokenizer(prefixed, random_)));
  EXPECT_FALSE(is_fast(ByteLevelTokenizer(InTurn({ByteLevel(true), Digits(true)}), random_)));
  ordered_json dropout = ByteLevelTokenizer(ByteLevel(true), random_);
  dropout["model"]["dropout"] = 0.1;
  EXPECT_FALSE(is_fast(dropout));
  ordered_json lowercase = ByteLevelTokenizer(ByteLevel(true), random_);
  lowercase["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_FALSE(is_fast(lowercase));
}

// Words in use stay known while others come and go, and are encoded alike when they come again.
TEST_F(FastEncodeTest, AHundredThousandWordsAreEncodedAlikeAgain) {
  auto tokenizer =
      Tokenizer::Create(ByteLevelTokenizer(InTurn({Splits(kLlama3), ByteLevel(false)}), random_).dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::string text;
  for (int i = 0; i < 100'000; ++i) {
    absl::StrAppend(&text, " ", std::string(1, static_cast<char>('a' + i % 26)), "n",
                    Utf8(0x4e00 + i % 20'000), i % 7 == 0 ? " the" : "");
  }
  auto first = (*tokenizer)->Encode(text, false);
  auto again = (*tokenizer)->Encode(text, false);
  auto reference = (*tokenizer)->EncodeByReference(text, false);
  ASSERT_TRUE(first.ok() && again.ok() && reference.ok());
  EXPECT_TRUE(*first == *reference);
  EXPECT_TRUE(*again == *reference);
}

}  // namespace
}  // namespace rein::text
