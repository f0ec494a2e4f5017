#include "services/controller/log_reader.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytesPerRead = 8 << 20;

}  // namespace

LogReader::LogReader(std::string folder, std::string name)
    : folder_(std::move(folder)), name_(std::move(name)) {}

bool LogReader::IsActor() const {
  std::error_code error;
  bool plain = !name_.empty() && name_.find('/') == std::string::npos;
  return plain && fs::exists(absl::StrCat(folder_, "/", name_, ".log"), error);
}

std::vector<v1::LogLine> LogReader::ReadNew() {
  std::vector<v1::LogLine> lines;
  if (IsActor()) {
    ReadFile(absl::StrCat(folder_, "/", name_, ".log"), name_, lines);
    return lines;
  }
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (entry.path().extension() != ".log") continue;
    ReadFile(entry.path().string(), entry.path().stem().string(), lines);
  }
  const std::string mark = absl::StrCat(" job=", name_, " ");
  std::erase_if(
      lines, [&](const v1::LogLine& line) { return line.text().find(mark) == std::string::npos; });
  // Lines begin with their time.
  std::stable_sort(lines.begin(), lines.end(), [](const v1::LogLine& a, const v1::LogLine& b) {
    return a.text().substr(0, 24) < b.text().substr(0, 24);
  });
  return lines;
}

void LogReader::ReadFile(const std::string& path, const std::string& actor,
                         std::vector<v1::LogLine>& lines) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return;
  uint64_t size = static_cast<uint64_t>(in.tellg());
  uint64_t& offset = offsets_[path];
  if (offset > size) offset = 0;  // a new file took the name
  if (size - offset > kMaxBytesPerRead) offset = size - kMaxBytesPerRead;
  in.seekg(static_cast<std::streamoff>(offset));
  std::string text(size - offset, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  size_t begin = 0;
  for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    v1::LogLine& line = lines.emplace_back();
    line.set_actor(actor);
    line.set_text(text.substr(begin, end - begin));
  }
  offset += begin;  // half a line waits for its end
}

}  // namespace rein::services
