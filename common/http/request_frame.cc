#include "common/http/request_frame.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace rein::http {
namespace {

constexpr size_t kChunkLineBytes = 4096;  // a size, or a field after the last chunk
constexpr int kBadRequest = 400, kBodyTooLarge = 413, kHeadTooLarge = 431;

// Digits alone: SimpleAtoi would also take a sign and blanks.
bool LengthOf(absl::string_view text, uint64_t& length) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit) && absl::SimpleAtoi(text, &length);
}

// Of "1a;name=value".
bool ChunkSizeOf(absl::string_view line, uint64_t& size) {
  const absl::string_view digits = absl::StripAsciiWhitespace(line.substr(0, line.find(';')));
  return !digits.empty() && std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit) && absl::SimpleHexAtoi(digits, &size);
}

}  // namespace

void RequestFrame::Look(absl::string_view bytes) {
  if (whole_ > 0 || refusal_ != 0) return;
  if (head_ == 0) {
    const size_t end = bytes.substr(0, bounds_.head_bytes).find("\r\n\r\n", searched_);
    if (end == absl::string_view::npos) {
      searched_ = std::max<size_t>(bytes.size(), 3) - 3;
      if (bytes.size() >= bounds_.head_bytes) refusal_ = kHeadTooLarge;
      return;
    }
    head_ = chunk_ = end + 4;
    ReadHead(bytes.substr(0, end));
    if (refusal_ != 0) return;
  }
  if (in_chunks_) {
    LookAtChunks(bytes);
  } else if (bytes.size() >= head_ + length_) {
    whole_ = head_ + length_;
  }
}

void RequestFrame::ReadHead(absl::string_view head) {
  std::optional<uint64_t> length;
  for (absl::string_view line : absl::StrSplit(head, "\r\n")) {
    const size_t colon = line.find(':');
    if (colon == absl::string_view::npos) continue;  // the request line, for one; httplib judges it
    const absl::string_view name = line.substr(0, colon), value = absl::StripAsciiWhitespace(line.substr(colon + 1));
    if (absl::EqualsIgnoreCase(name, "Content-Length")) {
      uint64_t said = 0;
      if (!LengthOf(value, said) || length.value_or(said) != said) refusal_ = kBadRequest;
      length = said;
    } else if (absl::EqualsIgnoreCase(name, "Transfer-Encoding")) {
      in_chunks_ = absl::EqualsIgnoreCase(value, "chunked");
      if (!in_chunks_) refusal_ = kBadRequest;
    } else if (absl::EqualsIgnoreCase(name, "Expect")) {
      expects_continue_ = absl::EqualsIgnoreCase(value, "100-continue");
    }
  }
  if (in_chunks_ && length.has_value()) refusal_ = kBadRequest;  // two ends
  if (refusal_ != 0) return;
  length_ = length.value_or(0);
  if (length_ > bounds_.body_bytes) refusal_ = kBodyTooLarge;
}

void RequestFrame::LookAtChunks(absl::string_view bytes) {
  const size_t most = head_ + 2 * bounds_.body_bytes;
  while (chunk_ < bytes.size() && chunk_ <= most) {
    const size_t size_of_line = bytes.substr(chunk_, kChunkLineBytes).find("\r\n");
    if (size_of_line == absl::string_view::npos) {
      if (bytes.size() - chunk_ >= kChunkLineBytes) refusal_ = kBadRequest;
      break;
    }
    const absl::string_view line = bytes.substr(chunk_, size_of_line);
    if (in_trailer_ && line.empty()) {
      whole_ = chunk_ + 2;
      return;
    }
    uint64_t size = 0;
    if (!in_trailer_ && !ChunkSizeOf(line, size)) {
      refusal_ = kBadRequest;
      return;
    }
    in_trailer_ = in_trailer_ || size == 0;
    chunk_ += size_of_line + 2;
    if (!in_trailer_) chunk_ += std::min<uint64_t>(size, most) + 2;
  }
  if (refusal_ == 0 && std::max(chunk_, bytes.size()) > most) refusal_ = kBodyTooLarge;
}

}  // namespace rein::http
