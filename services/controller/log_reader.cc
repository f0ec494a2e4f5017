#include "services/controller/log_reader.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include <sys/stat.h>

#include "common/telemetry/log.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytesPerRead = 8 << 20;

struct Part {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file;
  uint64_t inode, size;
};

// The file and what is kept of it under other names, oldest first. Opened from the newest on: one that is renamed meanwhile
// shows up twice, and none is missed.
std::vector<Part> PartsOf(const std::string& path) {
  std::vector<Part> parts;
  for (int i = 0; i <= telemetry::kOlderLogFiles; ++i) {
    std::FILE* file = std::fopen((i == 0 ? path : absl::StrCat(path, ".", i)).c_str(), "re");
    if (file == nullptr) continue;
    Part part{.file = {file, &std::fclose}};
    struct stat status;
    if (fstat(fileno(file), &status) != 0) continue;
    part.inode = status.st_ino;
    part.size = static_cast<uint64_t>(status.st_size);
    const bool seen = std::any_of(parts.begin(), parts.end(), [&](const Part& other) { return other.inode == part.inode; });
    if (!seen) parts.push_back(std::move(part));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::string TextOf(const Part& part, uint64_t from) {
  std::string text(part.size - from, '\0');
  if (std::fseek(part.file.get(), static_cast<long>(from), SEEK_SET) != 0) return "";
  text.resize(std::fread(text.data(), 1, text.size(), part.file.get()));
  return text;
}

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
  Position& position = positions_[path];
  std::vector<Part> parts = PartsOf(path);
  auto known = std::find_if(parts.begin(), parts.end(), [&](const Part& part) { return part.inode == position.file; });
  uint64_t offset = 0;
  if (known != parts.end()) {
    parts.erase(parts.begin(), known);
    if (position.offset <= parts.front().size) offset = position.offset;  // else it was cut
  }
  uint64_t left = 0;
  for (const Part& part : parts) left += part.size;
  left -= std::min(offset, left);
  for (size_t i = 0; i < parts.size(); ++i) {
    const uint64_t unread = parts[i].size - offset;
    const uint64_t skipped = std::min(unread, left - std::min(left, kMaxBytesPerRead));
    left -= unread;
    const std::string text = TextOf(parts[i], offset + skipped);
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      v1::LogLine& line = lines.emplace_back();
      line.set_actor(actor);
      line.set_text(text.substr(begin, end - begin));
    }
    if (i + 1 < parts.size() && begin < text.size()) {  // nobody ends this line any more
      v1::LogLine& line = lines.emplace_back();
      line.set_actor(actor);
      line.set_text(text.substr(begin));
    }
    position = {.file = parts[i].inode, .offset = offset + skipped + begin};  // half a line waits for its end
    offset = 0;
  }
}

}  // namespace rein::services
