#include "common/checkpoint/gguf.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/durable_file.h"
#include "common/status/status_macros.h"

namespace rein::checkpoint {
namespace {

constexpr uint32_t kMagic = 0x46554747, kVersion = 3;
constexpr uint64_t kMostEntries = uint64_t{1} << 20, kMostElements = uint64_t{1} << 26;
constexpr int64_t kBlock = 32, kAlignment = 32;

// Types of metadata.
enum Kind : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kFloat32, kBool, kString, kArray, kU64, kI64, kFloat64 };

// Reads forward; once it has run over the end everything is zero and ok() is false.
class Reader {
 public:
  Reader(const char* data, size_t size) : data_(data), size_(size) {}

  template <typename T>
  T Get() {
    T value{};
    if (size_ - at_ < sizeof(T)) {
      ok_ = false;
      return value;
    }
    std::memcpy(&value, data_ + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string Text() {
    const auto length = Get<uint64_t>();
    if (!ok_ || length > size_ - at_) {
      ok_ = false;
      return "";
    }
    at_ += length;
    return std::string(data_ + at_ - length, length);
  }
  bool ok() const { return ok_; }
  size_t at() const { return at_; }

 private:
  const char* data_;
  size_t size_, at_ = 0;
  bool ok_ = true;
};

// A number as int64 or double.
bool Number(Reader& in, uint32_t kind, int64_t* whole, double* real) {
  switch (kind) {
    case kU8: *whole = in.Get<uint8_t>(); return true;
    case kI8: *whole = in.Get<int8_t>(); return true;
    case kU16: *whole = in.Get<uint16_t>(); return true;
    case kI16: *whole = in.Get<int16_t>(); return true;
    case kU32: *whole = in.Get<uint32_t>(); return true;
    case kI32: *whole = in.Get<int32_t>(); return true;
    case kU64: *whole = static_cast<int64_t>(in.Get<uint64_t>()); return true;
    case kI64: *whole = in.Get<int64_t>(); return true;
    case kFloat32: *real = in.Get<float>(); return false;
    default: *real = in.Get<double>(); return false;
  }
}

absl::StatusOr<GgufValue> Array(Reader& in) {
  const auto kind = in.Get<uint32_t>();
  const auto count = in.Get<uint64_t>();
  if (kind == kArray || kind > kFloat64) return absl::InvalidArgumentError(absl::StrCat("is an array of type ", kind));
  if (count > kMostElements) return absl::InvalidArgumentError(absl::StrCat("is an array of ", count));
  std::vector<std::string> texts;
  std::vector<int64_t> wholes;
  std::vector<double> reals;
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    int64_t whole = 0;
    double real = 0;
    if (kind == kString) {
      texts.push_back(in.Text());
    } else if (kind == kBool) {
      wholes.push_back(in.Get<uint8_t>());
    } else if (Number(in, kind, &whole, &real)) {
      wholes.push_back(whole);
    } else {
      reals.push_back(real);
    }
  }
  if (kind == kString) return GgufValue(std::move(texts));
  if (kind == kFloat32 || kind == kFloat64) return GgufValue(std::move(reals));
  return GgufValue(std::move(wholes));
}

absl::StatusOr<GgufValue> Value(Reader& in) {
  const auto kind = in.Get<uint32_t>();
  if (kind == kString) return GgufValue(in.Text());
  if (kind == kBool) return GgufValue(in.Get<uint8_t>() != 0);
  if (kind == kArray) return Array(in);
  if (kind > kFloat64) return absl::InvalidArgumentError(absl::StrCat("has type ", kind, ", which GGUF does not know"));
  int64_t whole = 0;
  double real = 0;
  if (Number(in, kind, &whole, &real)) return GgufValue(whole);
  return GgufValue(real);
}

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

class Writer {
 public:
  template <typename T>
  void Put(T value) { text_.append(reinterpret_cast<const char*>(&value), sizeof(T)); }
  void Text(const std::string& text) {
    Put<uint64_t>(text.size());
    text_ += text;
  }
  void Value(const GgufValue& value) {
    if (const auto* x = std::get_if<int64_t>(&value)) {
      Put<uint32_t>(kU32);
      Put<uint32_t>(static_cast<uint32_t>(*x));
    } else if (const auto* x = std::get_if<double>(&value)) {
      Put<uint32_t>(kFloat32);
      Put<float>(static_cast<float>(*x));
    } else if (const auto* x = std::get_if<bool>(&value)) {
      Put<uint32_t>(kBool);
      Put<uint8_t>(*x);
    } else if (const auto* x = std::get_if<std::string>(&value)) {
      Put<uint32_t>(kString);
      Text(*x);
    } else if (const auto* x = std::get_if<std::vector<std::string>>(&value)) {
      Put<uint32_t>(kArray);
      Put<uint32_t>(kString);
      Put<uint64_t>(x->size());
      for (const std::string& text : *x) Text(text);
    } else if (const auto* x = std::get_if<std::vector<int64_t>>(&value)) {
      Put<uint32_t>(kArray);
      Put<uint32_t>(kI32);
      Put<uint64_t>(x->size());
      for (int64_t number : *x) Put<int32_t>(static_cast<int32_t>(number));
    } else {
      const auto& reals = std::get<std::vector<double>>(value);
      Put<uint32_t>(kArray);
      Put<uint32_t>(kFloat32);
      Put<uint64_t>(reals.size());
      for (double number : reals) Put<float>(static_cast<float>(number));
    }
  }
  void Pad() { text_.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(text_.size()), kAlignment)), '\0'); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

int64_t GgufTensor::elements() const {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

size_t GgufBytes(GgufType type, int64_t elements) {
  const auto blocks = static_cast<size_t>(elements % kBlock == 0 ? elements / kBlock : 0);
  switch (type) {
    case GgufType::kF32: return 4 * static_cast<size_t>(elements);
    case GgufType::kF16:
    case GgufType::kBF16: return 2 * static_cast<size_t>(elements);
    case GgufType::kQ4_0: return 18 * blocks;
    case GgufType::kQ4_1: return 20 * blocks;
    case GgufType::kQ8_0: return 34 * blocks;
  }
  return 0;
}

const char* NameOf(GgufType type) {
  switch (type) {
    case GgufType::kF32: return "F32";
    case GgufType::kF16: return "F16";
    case GgufType::kBF16: return "BF16";
    case GgufType::kQ4_0: return "Q4_0";
    case GgufType::kQ4_1: return "Q4_1";
    case GgufType::kQ8_0: return "Q8_0";
  }
  return "unknown";
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  auto file = std::unique_ptr<GgufFile>(new GgufFile);
  file->path_ = path;
  REIN_ASSIGN_OR_RETURN(file->mapped_, files::MappedFile::Open(path));
  absl::Status parsed = file->Parse();
  if (!parsed.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ": ", parsed.message()));
  return file;
}

absl::Status GgufFile::Parse() {
  const char* data = mapped_->bytes().data();
  const size_t size = mapped_->bytes().size();
  Reader in(data, size);
  const auto magic = in.Get<uint32_t>(), version = in.Get<uint32_t>();
  if (magic != kMagic) return absl::InvalidArgumentError("is no GGUF file");
  if (version != 2 && version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("is GGUF version ", version, ", want 2 or 3"));
  }
  const auto tensors = in.Get<uint64_t>(), entries = in.Get<uint64_t>();
  if (tensors > kMostEntries || entries > kMostEntries) {
    return absl::InvalidArgumentError(absl::StrCat("claims ", tensors, " tensors and ", entries, " entries"));
  }
  for (uint64_t i = 0; i < entries && in.ok(); ++i) {
    const std::string key = in.Text();
    absl::StatusOr<GgufValue> value = Value(in);
    if (!value.ok()) return absl::InvalidArgumentError(absl::StrCat(key, " ", value.status().message()));
    if (!metadata_.emplace(key, *std::move(value)).second) return absl::InvalidArgumentError(absl::StrCat(key, " is there twice"));
  }
  std::map<std::string, uint64_t> offsets;
  for (uint64_t i = 0; i < tensors && in.ok(); ++i) {
    const std::string name = in.Text();
    const auto dims = in.Get<uint32_t>();
    if (dims < 1 || dims > 4) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has ", dims, " dimensions"));
    GgufTensor tensor;
    uint64_t elements = 1;
    for (uint32_t d = 0; d < dims; ++d) {
      const auto length = in.Get<uint64_t>();
      if (length == 0 || length > (uint64_t{1} << 42) / elements) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has no sensible shape"));
      }
      elements *= length;
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(length));
    }
    tensor.type = static_cast<GgufType>(in.Get<uint32_t>());
    offsets[name] = in.Get<uint64_t>();
    tensor.size_bytes = GgufBytes(tensor.type, tensor.elements());
    if (in.ok() && tensor.size_bytes == 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has type ", static_cast<uint32_t>(tensor.type),
                                                     ", want F32, F16, BF16, Q8_0, Q4_0 or Q4_1"));
    }
    if (!tensors_.emplace(name, std::move(tensor)).second) return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is there twice"));
  }
  if (!in.ok()) return absl::InvalidArgumentError("ends within its header");
  int64_t alignment = kAlignment;
  if (const GgufValue* given = Metadata("general.alignment")) {
    const auto* whole = std::get_if<int64_t>(given);
    if (whole == nullptr || *whole < 8 || *whole > (1 << 20) || *whole % 8 != 0) return absl::InvalidArgumentError("general.alignment is no multiple of 8");
    alignment = *whole;
  }
  const auto begin = static_cast<uint64_t>(RoundUp(static_cast<int64_t>(in.at()), alignment));
  for (auto& [name, tensor] : tensors_) {
    const uint64_t offset = offsets[name];
    if (begin > size || offset > size - begin || tensor.size_bytes > size - begin - offset) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " reaches beyond the end of the file"));
    }
    tensor.data = data + begin + offset;
  }
  return absl::OkStatus();
}

const GgufTensor* GgufFile::Find(const std::string& name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

const GgufValue* GgufFile::Metadata(const std::string& key) const {
  auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

absl::Status WriteGguf(const std::string& path, const GgufMetadata& metadata,
                       const std::vector<std::pair<std::string, GgufTensor>>& tensors) {
  Writer head;
  head.Put<uint32_t>(kMagic);
  head.Put<uint32_t>(kVersion);
  head.Put<uint64_t>(tensors.size());
  head.Put<uint64_t>(metadata.size());
  for (const auto& [key, value] : metadata) {
    head.Text(key);
    head.Value(value);
  }
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    head.Text(name);
    head.Put<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) head.Put<uint64_t>(static_cast<uint64_t>(*size));
    head.Put<uint32_t>(static_cast<uint32_t>(tensor.type));
    head.Put<uint64_t>(static_cast<uint64_t>(offset));
    offset = RoundUp(offset + static_cast<int64_t>(tensor.size_bytes), kAlignment);
  }
  head.Pad();
  REIN_ASSIGN_OR_RETURN(auto file, DurableFile::Create(path));
  REIN_RETURN_IF_ERROR(file->Append(head.text().data(), head.text().size()));
  const std::string zeros(static_cast<size_t>(kAlignment), '\0');
  for (const auto& [name, tensor] : tensors) {
    REIN_RETURN_IF_ERROR(file->Append(tensor.data, tensor.size_bytes));
    const size_t padding = static_cast<size_t>(RoundUp(static_cast<int64_t>(tensor.size_bytes), kAlignment)) - tensor.size_bytes;
    if (padding > 0) REIN_RETURN_IF_ERROR(file->Append(zeros.data(), padding));
  }
  return file->Close();
}

}  // namespace rein::checkpoint
