#include "common/telemetry/process_families.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

namespace rein::telemetry {
namespace {

prometheus::MetricFamily Family(const std::string& name, const std::string& help, double value,
                                prometheus::MetricType type = prometheus::MetricType::Gauge) {
  prometheus::MetricFamily family{name, help, type, {prometheus::ClientMetric()}};
  if (type == prometheus::MetricType::Counter) {
    family.metric[0].counter.value = value;
  } else {
    family.metric[0].gauge.value = value;
  }
  return family;
}

// The fields of /proc/self/stat behind the name, which may hold anything; the first is field 3 of proc(5).
std::vector<std::string> StatFields() {
  std::ifstream in("/proc/self/stat");
  std::string text;
  std::getline(in, text);
  std::istringstream rest(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::vector<std::string> fields;
  for (std::string field; rest >> field;) fields.push_back(field);
  return fields;
}

double BootTime() {
  std::ifstream in("/proc/stat");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("btime ", 0) == 0) return std::stod(line.substr(6));
  }
  return 0;
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessFamilies() {
  constexpr size_t kUserTime = 11, kSystemTime = 12, kThreads = 17, kStart = 19, kMemory = 20, kPages = 21;
  const std::vector<std::string> fields = StatFields();
  if (fields.size() <= kPages) return {};
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  auto number = [&](size_t field) { return std::stod(fields[field]); };
  std::error_code error;
  double open_files = 0;
  for (auto entry = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    ++open_files;
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return {Family("process_cpu_seconds_total", "Processor time used",
                 (number(kUserTime) + number(kSystemTime)) / ticks, prometheus::MetricType::Counter),
          Family("process_resident_memory_bytes", "Memory that is in RAM",
                 number(kPages) * static_cast<double>(sysconf(_SC_PAGESIZE))),
          Family("process_virtual_memory_bytes", "Address space", number(kMemory)),
          Family("process_open_fds", "Open file descriptors", open_files),
          Family("process_max_fds", "Most file descriptors that may be open", static_cast<double>(limit.rlim_cur)),
          Family("process_threads", "Threads", number(kThreads)),
          Family("process_start_time_seconds", "When it started, in seconds since 1970",
                 BootTime() + number(kStart) / ticks)};
}

}  // namespace rein::telemetry
