#include "services/cli/chrome_trace.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kController = 0;  // process number

Json Slice(const std::string& name, const std::string& about, int process, size_t lane, double begin, double end,
           double origin) {
  return {{"name", name}, {"ph", "X"}, {"pid", process}, {"tid", lane}, {"ts", (begin - origin) * 1e6},
          {"dur", std::max(end - begin, 0.0) * 1e6}, {"args", {{"about", about}}}};
}

Json Named(const char* what, int process, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", process}, {"args", {{"name", name}}}};
}

// The first lane that is free at `begin`, taken until `end`.
size_t TakeLane(std::vector<double>& free_from, double begin, double end) {
  auto lane = std::find_if(free_from.begin(), free_from.end(), [&](double from) { return from <= begin; });
  if (lane == free_from.end()) lane = free_from.insert(lane, 0);
  *lane = end;
  return static_cast<size_t>(lane - free_from.begin());
}

}  // namespace

std::string ChromeTrace(const v1::ListUpdatesReply& updates) {
  std::vector<v1::WorkSpan> spans;
  double origin = std::numeric_limits<double>::infinity();
  for (const v1::UpdateRecord& update : updates.updates()) {
    for (const v1::WorkSpan& span : update.spans()) {
      spans.push_back(span);
      origin = std::min(origin, span.begin());
    }
  }
  std::sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) { return a.begin() < b.begin(); });
  Json events = {Named("process_name", kController, "updates")};
  std::map<std::string, int> processes;
  std::map<std::pair<int, std::string>, std::vector<double>> lanes;  // of each kind of work of an actor
  std::map<int, size_t> taken;                                      // lanes of a process
  std::map<std::pair<int, std::string>, std::vector<size_t>> numbers;
  for (const v1::WorkSpan& span : spans) {
    auto [process, added] = processes.emplace(span.actor(), static_cast<int>(processes.size()) + 1);
    if (added) events.push_back(Named("process_name", process->second, span.actor()));
    const auto key = std::pair(process->second, span.work());
    const size_t lane = TakeLane(lanes[key], span.begin(), span.end());
    std::vector<size_t>& own = numbers[key];
    if (lane == own.size()) own.push_back(taken[process->second]++);
    events.push_back(Slice(span.work(), span.about(), process->second, own[lane], span.begin(), span.end(), origin));
  }
  for (const v1::UpdateRecord& update : updates.updates()) {
    auto trained = std::find_if(update.spans().begin(), update.spans().end(),
                                [](const v1::WorkSpan& span) { return span.work() == "train"; });
    if (trained == update.spans().end()) continue;
    const double end = trained->end();
    const double seconds = MetricOf(update.metrics(), "seconds");
    events.push_back(Slice(absl::StrCat("update ", update.update()), "", kController, 0, std::max(end - seconds, origin), end, origin));
  }
  return Json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump();
}

}  // namespace rein::cli
