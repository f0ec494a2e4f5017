#include "common/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/durable_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::checkpoint {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 16 << 20;
constexpr size_t kMaxRank = 8;
constexpr int kMaxDepth = 4;

absl::Status Bad(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// Fills shape and dtype, and the byte range relative to the end of the header.
absl::Status ParseTensor(const std::string& path, const std::string& name, const json& entry,
                         TensorView* view, std::pair<uint64_t, uint64_t>* range) {
  auto bad = [&](absl::string_view what) {
    return Bad(path, absl::StrCat("tensor '", name, "': ", what));
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) {
    return bad("wants dtype, shape and two data_offsets");
  }
  view->dtype = entry["dtype"].get<std::string>();
  uint64_t bytes = ElementBytes(view->dtype);
  if (bytes == 0) return bad(absl::StrCat("unknown dtype ", view->dtype));
  if (entry["shape"].size() > kMaxRank) return bad("has more than 8 dimensions");
  for (const json& size : entry["shape"]) {
    if (!size.is_number_unsigned()) return bad("shape is not a list of counts");
    uint64_t n = size.get<uint64_t>();
    if (n != 0 && bytes > (uint64_t{1} << 46) / n) return bad("shape is too large");
    bytes *= n;
    view->shape.push_back(static_cast<int64_t>(n));
  }
  for (const json& offset : entry["data_offsets"]) {
    if (!offset.is_number_unsigned()) return bad("data_offsets are not two counts");
  }
  *range = {entry["data_offsets"][0].get<uint64_t>(), entry["data_offsets"][1].get<uint64_t>()};
  if (range->second < range->first || range->second - range->first != bytes) {
    return bad(absl::StrCat("data_offsets cover ",
                            static_cast<int64_t>(range->second - range->first),
                            " bytes, shape and dtype want ", bytes));
  }
  view->size_bytes = bytes;
  return absl::OkStatus();
}

}  // namespace

size_t ElementBytes(absl::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "BF16" || dtype == "F16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "U8" || dtype == "I8" || dtype == "BOOL" || dtype == "F8_E4M3" || dtype == "F8_E5M2")
    return 1;
  return 0;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  auto file = std::unique_ptr<SafetensorsFile>(new SafetensorsFile);
  file->path_ = path;
  REIN_ASSIGN_OR_RETURN(file->mapped_, files::MappedFile::Open(path));
  REIN_RETURN_IF_ERROR(file->Parse());
  return file;
}

absl::Status SafetensorsFile::Parse() {
  const std::string_view bytes = mapped_->bytes();
  if (bytes.size() < 8) {
    return Bad(path_, absl::StrCat("has ", bytes.size(), " bytes, too few for safetensors"));
  }
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8) {
    return Bad(path_, absl::StrCat("header claims ", header_bytes, " bytes, the file has ",
                                   bytes.size() - 8, " and the limit is ", kMaxHeaderBytes));
  }
  absl::StatusOr<json> parsed =
      rein::json::ParseJson(bytes.substr(8, header_bytes), {kMaxHeaderBytes, kMaxDepth});
  if (!parsed.ok()) return Bad(path_, absl::StrCat("header: ", parsed.status().message()));
  const json& header = *parsed;
  if (!header.is_object()) return Bad(path_, "the header is not a JSON object");
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  const char* payload = bytes.data() + 8 + header_bytes;
  const uint64_t payload_bytes = bytes.size() - 8 - header_bytes;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return Bad(path_, "__metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return Bad(path_, "__metadata__ holds a value that is no text");
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    TensorView view;
    std::pair<uint64_t, uint64_t> range;
    REIN_RETURN_IF_ERROR(ParseTensor(path_, name, entry, &view, &range));
    if (range.second > payload_bytes) {
      return Bad(path_, absl::StrCat("tensor '", name, "' ends at byte ", range.second,
                                     ", but the file holds ", payload_bytes,
                                     " bytes of data: it was cut short"));
    }
    view.data = payload + range.first;
    ranges.push_back(range);
    tensors_.emplace(name, std::move(view));
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t end = 0;
  for (const auto& [first, last] : ranges) {
    if (first != end)
      return Bad(path_, absl::StrCat("data has a hole or an overlap at byte ", end));
    end = last;
  }
  if (end != payload_bytes) {
    return Bad(path_, absl::StrCat(payload_bytes - end, " bytes follow the last tensor"));
  }
  return absl::OkStatus();
}

const TensorView* SafetensorsFile::Find(const std::string& name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const NamedTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.view.dtype},
                           {"shape", tensor.view.shape},
                           {"data_offsets", {offset, offset + tensor.view.size_bytes}}};
    offset += tensor.view.size_bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t header_bytes = text.size();
  REIN_ASSIGN_OR_RETURN(auto file, DurableFile::Create(path));
  REIN_RETURN_IF_ERROR(file->Append(reinterpret_cast<const char*>(&header_bytes), 8));
  REIN_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
  for (const NamedTensor& tensor : tensors) {
    REIN_RETURN_IF_ERROR(file->Append(tensor.view.data, tensor.view.size_bytes));
  }
  return file->Close();
}

}  // namespace rein::checkpoint
