#include "services/cli/text_table.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace rein::cli {

size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // not a continuation byte
  }));
}

std::string PadTo(const std::string& text, size_t width) {
  size_t have = Width(text);
  return have >= width ? text : text + std::string(width - have, ' ');
}

namespace {

constexpr size_t kLeastRoom = 24;

// The first so many characters.
std::string Head(const std::string& text, size_t width) {
  size_t end = 0;
  for (size_t seen = 0; end < text.size(); ++end) {
    const bool first = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (first && seen++ == width) break;
  }
  return text.substr(0, end);
}

}  // namespace

std::string Table(const std::vector<std::vector<std::string>>& rows, size_t width) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  size_t before = 0;  // the last column
  for (size_t i = 0; i + 1 < widths.size(); ++i) before += widths[i] + 2;
  const size_t room = width == 0 ? SIZE_MAX : std::max(kLeastRoom, width - std::min(width, before));
  std::string table;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool cut = i + 1 == widths.size() && Width(row[i]) > room;
      line += PadTo(cut ? Head(row[i], room - 1) + "…" : row[i], widths[i] + 2);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&table, line, "\n");
  }
  return table;
}

std::string Age(absl::Duration duration) {
  int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration));
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) {
    int64_t rest = seconds % 60;
    return rest == 0 || seconds >= 600 ? absl::StrCat(seconds / 60, "m")
                                       : absl::StrFormat("%dm%02ds", seconds / 60, rest);
  }
  if (seconds < 86400) return absl::StrFormat("%dh%02dm", seconds / 3600, seconds % 3600 / 60);
  return absl::StrFormat("%dd%dh", seconds / 86400, seconds % 86400 / 3600);
}

std::string Figure(double value) {
  if (std::isnan(value)) return "–";
  double size = std::abs(value);
  if (size >= 1e6) return absl::StrFormat("%.3gM", value / 1e6);
  if (size >= 1e4) return absl::StrFormat("%.3gk", value / 1e3);
  if (size >= 100) return absl::StrFormat("%.0f", value);
  return absl::StrFormat("%.3g", value);
}

std::string Bar(double share, size_t width, bool dots) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  double clamped = std::isnan(share) ? 0 : std::clamp(share, 0.0, 1.0);
  auto eighths = static_cast<size_t>(std::lround(clamped * static_cast<double>(width * 8)));
  std::string bar;
  for (size_t i = 0; i < eighths / 8; ++i) bar += "█";
  bar += kEighths[eighths % 8];
  size_t used = eighths / 8 + (eighths % 8 > 0 ? 1 : 0);
  for (size_t i = used; dots && i < width; ++i) bar += "·";
  return bar;
}

std::string Sparkline(const std::vector<double>& values) {
  static constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  if (values.empty()) return "";
  auto [low, high] = std::minmax_element(values.begin(), values.end());
  double range = *high - *low;
  std::string line;
  for (double value : values) {
    double share = range > 0 ? (value - *low) / range : 0;
    line += kBlocks[std::clamp<int>(static_cast<int>(share * 7.999), 0, 7)];
  }
  return line;
}

std::string NameOf(v1::JobState state) { return v1::JobState_Name(state).substr(10); }

double MetricOf(const google::protobuf::RepeatedPtrField<v1::Metric>& metrics,
                const std::string& name) {
  for (const v1::Metric& metric : metrics) {
    if (metric.name() == name) return metric.value();
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace rein::cli
