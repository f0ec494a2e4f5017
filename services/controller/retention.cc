#include "services/controller/retention.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

constexpr double kSecondsPerDay = 24 * 60 * 60;

}  // namespace

const char* NameOf(Leftover leftover) {
  switch (leftover) {
    case Leftover::kRollouts:
      return "rollouts";
    case Leftover::kCheckpoints:
      return "checkpoints";
    case Leftover::kLogs:
      return "logs";
    case Leftover::kJob:
      return "job";
  }
  return "";
}

std::vector<DueLeftover> DueLeftovers(const JobRecord& job, double now) {
  if (job.ended_at <= 0) return {};
  const v1::RetentionConfig& kept = job.config.retention();
  std::vector<DueLeftover> due;
  auto add = [&](double days, Leftover what) {
    const double at = job.ended_at + days * kSecondsPerDay;
    const bool gone = (job.expired & static_cast<uint64_t>(what)) != 0;
    if (days > 0 && at <= now && !gone) due.push_back({what, at});
  };
  add(kept.job_days(), Leftover::kJob);
  if (!due.empty()) return due;
  add(kept.rollouts_days(), Leftover::kRollouts);
  add(kept.checkpoints_days(), Leftover::kCheckpoints);
  add(kept.logs_days(), Leftover::kLogs);
  std::stable_sort(due.begin(), due.end(), [](const auto& a, const auto& b) { return a.due_at < b.due_at; });
  return due;
}

std::vector<std::string> PathsOf(Leftover leftover, const std::string& output, const std::string& rollouts) {
  auto in_output = [&](std::vector<const char*> names) {
    std::vector<std::string> paths;
    for (const char* name : names) paths.push_back(absl::StrCat(output, "/", name));
    return paths;
  };
  switch (leftover) {
    case Leftover::kRollouts:
      return {rollouts};
    case Leftover::kCheckpoints:
      return in_output({"checkpoints"});
    case Leftover::kLogs:
      return in_output({"tensorboard", "metrics.jsonl", "evals.jsonl"});
    case Leftover::kJob:
      break;
  }
  std::vector<std::string> all = in_output({"model", "completions.jsonl", "scores.jsonl"});
  for (Leftover part : {Leftover::kRollouts, Leftover::kCheckpoints, Leftover::kLogs}) {
    for (std::string& path : PathsOf(part, output, rollouts)) all.push_back(std::move(path));
  }
  return all;
}

uint64_t DiskBytes(const std::string& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return fs::file_size(path, error);
  uint64_t bytes = 0;
  auto entry = fs::recursive_directory_iterator(path, fs::directory_options::skip_permission_denied, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code gone;
    if (entry->is_regular_file(gone)) bytes += entry->file_size(gone);
  }
  return bytes;
}

absl::Status RemovePaths(const std::vector<std::string>& paths) {
  absl::Status status;
  for (const std::string& path : paths) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) status.Update(absl::ErrnoToStatus(error.value(), absl::StrCat("cannot delete ", path)));
  }
  return status;
}

}  // namespace rein::services
