#include "common/data/megatron_index.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::data {
namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr uint64_t kHeaderBytes = sizeof(kMagic) + 8 + 1 + 8 + 8;
constexpr uint8_t kInt32 = 4, kUint16 = 8;
constexpr uint64_t kMaxUint16Vocabulary = 65500;  // as DType.optimal_dtype

uint64_t WidthOf(uint8_t dtype) {
  switch (dtype) {
    case 1:
    case 2:
      return 1;
    case 3:
    case 8:
      return 2;
    case 4:
      return 4;
    case 5:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T At(const char* bytes, uint64_t index = 0) {
  T value;
  std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));
  return value;
}

int64_t TokenAt(const char* bytes, uint8_t dtype, uint64_t index) {
  switch (dtype) {
    case 1:
      return At<uint8_t>(bytes, index);
    case 2:
      return At<int8_t>(bytes, index);
    case 3:
      return At<int16_t>(bytes, index);
    case 4:
      return At<int32_t>(bytes, index);
    case 5:
      return At<int64_t>(bytes, index);
    default:
      return At<uint16_t>(bytes, index);
  }
}

std::string BinOf(const std::string& path) { return path.substr(0, path.size() - 4) + ".bin"; }

template <typename T>
void Put(std::ofstream& out, const T& value) {
  out.write(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

absl::StatusOr<std::unique_ptr<IndexedTokens>> IndexedTokens::Open(const std::string& path) {
  if (!absl::EndsWith(path, ".idx")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": want a file that ends with .idx"));
  }
  auto tokens = std::unique_ptr<IndexedTokens>(new IndexedTokens);
  tokens->path_ = path;
  REIN_ASSIGN_OR_RETURN(tokens->index_, files::MappedFile::Open(path));
  REIN_ASSIGN_OR_RETURN(tokens->bin_, files::MappedFile::Open(BinOf(path)));
  absl::Status status = tokens->ReadIndex();
  if (status.ok()) return tokens;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::Status IndexedTokens::ReadIndex() {
  const std::string_view bytes = index_->bytes();
  auto fail = [](auto&&... text) { return absl::InvalidArgumentError(absl::StrCat(text...)); };
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    return fail("is no index of Megatron: it does not begin with MMIDIDX");
  }
  const char* at = bytes.data() + sizeof(kMagic);
  if (At<uint64_t>(at) != 1) return fail("has version ", At<uint64_t>(at), ", want 1");
  dtype_ = At<uint8_t>(at + 8);
  width_ = WidthOf(dtype_);
  if (width_ == 0) return fail("has dtype code ", int{dtype_}, ", want 1 to 5 or 8 (whole numbers)");
  const uint64_t sequences = At<uint64_t>(at + 9), documents = At<uint64_t>(at + 17);
  // Bounded first, so that the sum cannot wrap.
  const uint64_t most = bytes.size();
  const bool plausible = sequences <= most / 12 && documents >= 1 && documents <= most / 8;
  const uint64_t wanted = kHeaderBytes + sequences * 12 + documents * 8;
  // A multimodal index goes on with a mode for each sequence.
  if (!plausible || bytes.size() < wanted) {
    return fail("has ", bytes.size(), " bytes, want ", plausible ? absl::StrCat(wanted) : "more",
                " for ", sequences, " sequences and ", documents, " document entries");
  }
  const char* lengths = bytes.data() + kHeaderBytes;
  pointers_ = lengths + sequences * 4;
  const char* document = pointers_ + sequences * 8;
  sequence_begin_.reserve(sequences + 1);
  sequence_begin_.push_back(0);
  const uint64_t bin_bytes = bin_->bytes().size();
  for (uint64_t i = 0; i < sequences; ++i) {
    const int32_t length = At<int32_t>(lengths, i);
    const int64_t pointer = At<int64_t>(pointers_, i);
    const uint64_t end = static_cast<uint64_t>(pointer) + static_cast<uint64_t>(length) * width_;
    if (length < 0 || pointer < 0 || end > bin_bytes) {
      return fail("sequence ", i, " has ", length, " tokens at byte ", pointer, ", the .bin has ",
                  bin_bytes, " bytes");
    }
    sequence_begin_.push_back(sequence_begin_.back() + static_cast<uint64_t>(length));
  }
  for (uint64_t d = 0; d < documents; ++d) {
    const int64_t first = At<int64_t>(document, d);
    const int64_t before = d == 0 ? 0 : At<int64_t>(document, d - 1);
    const bool last = d + 1 == documents;
    if (first < before || static_cast<uint64_t>(first) > sequences || (d == 0 && first != 0) ||
        (last && static_cast<uint64_t>(first) != sequences)) {
      return fail("document entry ", d, " is ", first, ", want ",
                  d == 0 ? "0" : last ? absl::StrCat(sequences) : absl::StrCat(before, " to ", sequences));
    }
    if (d > 0) document_end_.push_back(sequence_begin_[static_cast<size_t>(first)]);
  }
  return absl::OkStatus();
}

uint64_t IndexedTokens::DocumentAt(uint64_t place) const {
  return static_cast<uint64_t>(
      std::upper_bound(document_end_.begin(), document_end_.end(), place) - document_end_.begin());
}

uint64_t IndexedTokens::SequenceAt(uint64_t place) const {
  return static_cast<uint64_t>(
      std::upper_bound(sequence_begin_.begin(), sequence_begin_.end(), place) -
      sequence_begin_.begin() - 1);
}

absl::StatusOr<std::vector<uint32_t>> IndexedTokens::Read(uint64_t begin, uint64_t count) const {
  if (begin > tokens() || count > tokens() - begin) {
    return absl::OutOfRangeError(absl::StrCat(path_, ": tokens ", begin, " to ", begin + count,
                                              " were asked for, it has ", tokens()));
  }
  std::vector<uint32_t> ids;
  ids.reserve(count);
  uint64_t sequence = count > 0 ? SequenceAt(begin) : 0;
  while (ids.size() < count) {
    const uint64_t first = std::max(begin, sequence_begin_[sequence]);
    const uint64_t end = std::min(begin + count, sequence_begin_[sequence + 1]);
    const char* bytes = bin_->bytes().data() + At<int64_t>(pointers_, sequence);
    for (uint64_t place = first; place < end; ++place) {
      const int64_t id = TokenAt(bytes, dtype_, place - sequence_begin_[sequence]);
      if (id < 0 || id > UINT32_MAX) {
        return absl::InvalidArgumentError(
            absl::StrCat(BinOf(path_), ": token ", place, " of the stream is ", id));
      }
      ids.push_back(static_cast<uint32_t>(id));
    }
    ++sequence;
  }
  return ids;
}

absl::StatusOr<std::unique_ptr<IndexedTokensWriter>> IndexedTokensWriter::Create(
    const std::string& prefix, uint64_t vocabulary_size) {
  auto writer =
      std::unique_ptr<IndexedTokensWriter>(new IndexedTokensWriter(prefix, vocabulary_size));
  writer->bin_.open(prefix + ".bin.partial", std::ios::binary | std::ios::trunc);
  if (!writer->bin_) return absl::InvalidArgumentError(absl::StrCat("cannot write ", prefix, ".bin.partial"));
  return writer;
}

IndexedTokensWriter::~IndexedTokensWriter() {
  if (closed_) return;
  bin_.close();
  std::remove((prefix_ + ".bin.partial").c_str());
  std::remove((prefix_ + ".idx.partial").c_str());
}

absl::Status IndexedTokensWriter::Add(const std::vector<uint32_t>& document) {
  if (document.size() > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("a document has ", document.size(), " tokens, the format takes ", INT32_MAX));
  }
  for (uint32_t id : document) {
    if (id >= vocabulary_size_) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", id, " is outside the vocabulary of ", vocabulary_size_));
    }
  }
  if (vocabulary_size_ < kMaxUint16Vocabulary) {
    const std::vector<uint16_t> narrow(document.begin(), document.end());
    bin_.write(reinterpret_cast<const char*>(narrow.data()),
               static_cast<std::streamsize>(narrow.size() * sizeof(uint16_t)));
  } else {
    bin_.write(reinterpret_cast<const char*>(document.data()),
               static_cast<std::streamsize>(document.size() * sizeof(uint32_t)));
  }
  lengths_.push_back(static_cast<int32_t>(document.size()));
  tokens_ += document.size();
  if (bin_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("cannot write all of ", prefix_, ".bin"));
}

absl::Status IndexedTokensWriter::Close() {
  const bool narrow = vocabulary_size_ < kMaxUint16Vocabulary;
  std::ofstream index(prefix_ + ".idx.partial", std::ios::binary | std::ios::trunc);
  index.write(kMagic, sizeof(kMagic));
  Put(index, uint64_t{1});
  Put(index, narrow ? kUint16 : kInt32);
  Put(index, static_cast<uint64_t>(lengths_.size()));
  Put(index, static_cast<uint64_t>(lengths_.size() + 1));
  for (int32_t length : lengths_) Put(index, length);
  int64_t pointer = 0;
  for (int32_t length : lengths_) {
    Put(index, pointer);
    pointer += int64_t{length} * (narrow ? 2 : 4);
  }
  for (size_t d = 0; d <= lengths_.size(); ++d) Put(index, static_cast<int64_t>(d));
  index.close();
  bin_.close();
  if (!index || !bin_) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot write all of ", prefix_, ".idx and .bin"));
  }
  for (const char* suffix : {".bin", ".idx"}) {  // the index last: it says that both are whole
    if (std::rename((prefix_ + suffix + ".partial").c_str(), (prefix_ + suffix).c_str()) != 0) {
      return absl::InternalError(absl::StrCat("cannot rename ", prefix_, suffix, ".partial"));
    }
  }
  closed_ = true;
  return absl::OkStatus();
}

}  // namespace rein::data
