#include "services/controller/job_recorder.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

namespace rein::services {
namespace {

using telemetry::Labels;

const std::vector<double> kSecondsBounds = {0.05, 0.1, 0.25, 0.5, 1,   2.5,  5,    10,  20,
                                            30,   60,  120,  300, 600, 1200, 1800, 3600};

// The gauge of a metric: its family and what sets it apart there; no family: not exported.
struct GaugeName {
  std::string family;
  std::string help;
  Labels labels;
};

GaugeName GaugeOf(const std::string& metric) {
  const std::string reward = "reward/";
  if (metric == "reward" || metric.rfind(reward, 0) == 0) {
    std::string name = metric == "reward" ? "total" : metric.substr(reward.size());
    return {"rein_controller_reward_mean", "Mean reward of the last update", {{"reward", name}}};
  }
  if (metric == "zero_signal_ratio") {
    return {
        "rein_controller_reward_zero_std_group_ratio", "Groups whose rewards are all equal", {}};
  }
  for (const char* known :
       {"reward_std", "reward_min", "reward_max", "loss", "policy_loss", "kl", "entropy",
        "grad_norm", "learning_rate", "truncated_ratio", "completion_tokens", "lag",
        "clip_ratio_low", "clip_ratio_high", "tokens_per_second"}) {
    if (metric == known) {
      return {absl::StrCat("rein_controller_", metric),
              absl::StrCat(metric, " of the last update"),
              {}};
    }
  }
  return {};
}

}  // namespace

double JobRecorder::WallSeconds() const {
  return absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch());
}

void JobRecorder::AppendLine(const JobRecord& job, const std::string& file,
                             const std::string& line) {
  std::error_code error;
  std::filesystem::create_directories(job.output, error);
  std::ofstream out(absl::StrCat(job.output, "/", file), std::ios::app);
  out << line << "\n";
  out.flush();
  if (!out) log_.Warn("cannot write", {{"file", absl::StrCat(job.output, "/", file)}});
}

TensorboardFile* JobRecorder::Tensorboard(const JobRecord& job) {
  if (tensorboard_ == nullptr || tensorboard_job_ != job.name) {
    auto file = TensorboardFile::Create(absl::StrCat(job.output, "/tensorboard"), WallSeconds());
    if (!file.ok()) {
      log_.Warn("no TensorBoard file", {{"error", file.status().ToString()}});
      return nullptr;
    }
    tensorboard_ = *std::move(file);
    tensorboard_job_ = job.name;
  }
  return tensorboard_.get();
}

void JobRecorder::OnUpdate(const JobRecord& job, const v1::UpdateRecord& record) {
  nlohmann::ordered_json line = {{"update", record.update()}, {"time", WallSeconds()}};
  std::vector<std::pair<std::string, double>> scalars;
  for (const v1::Metric& metric : record.metrics()) {
    line[metric.name()] = metric.value();
    scalars.emplace_back(metric.name(), metric.value());
    GaugeName gauge = GaugeOf(metric.name());
    if (gauge.family.empty()) continue;
    gauge.labels["rl_job"] = job.name;
    metrics_.AddGauge(gauge.family, gauge.help, gauge.labels).Set(metric.value());
  }
  AppendLine(job, "metrics.jsonl", line.dump());
  if (TensorboardFile* file = Tensorboard(job)) {
    absl::Status status = file->Append(WallSeconds(), record.update(), scalars);
    if (!status.ok()) log_.Warn("no TensorBoard event", {{"error", status.ToString()}});
  }
  LogUpdate(record);
  const Labels labels = {{"rl_job", job.name}};
  metrics_.AddGauge("rein_controller_update", "Updates consumed", labels)
      .Set(static_cast<double>(record.update()));
  metrics_.AddGauge("rein_controller_max_updates", "Updates wanted", labels)
      .Set(static_cast<double>(record.max_updates()));
  metrics_
      .AddGauge("rein_controller_last_update_timestamp_seconds",
                "When the last update was consumed", labels)
      .Set(WallSeconds());
  for (const auto& [name, value] : scalars) {
    size_t suffix = name.rfind("seconds");
    if (suffix == std::string::npos || suffix + 7 != name.size()) continue;
    std::string phase = suffix == 0 ? "total" : name.substr(0, suffix - 1);
    metrics_
        .AddHistogram("rein_controller_update_duration_seconds", "Where the time of an update goes",
                      kSecondsBounds, {{"rl_job", job.name}, {"phase", phase}})
        .Observe(value);
  }
}

void JobRecorder::LogUpdate(const v1::UpdateRecord& record) {
  telemetry::Log::Fields fields = {{"update", absl::StrCat(record.update())}};
  for (const v1::Metric& metric : record.metrics()) {
    for (const char* shown : {"reward", "loss", "grad_norm", "seconds"}) {
      if (metric.name() == shown) fields.emplace_back(shown, absl::StrCat(metric.value()));
    }
  }
  log_.Info("update", fields);
}

void JobRecorder::OnEval(const JobRecord& job, const v1::EvalResult& result) {
  nlohmann::ordered_json line = {{"update", result.update()},
                                 {"time", WallSeconds()},
                                 {"accuracy", result.accuracy()},
                                 {"standard_error", result.standard_error()},
                                 {"prompts", result.prompts()}};
  std::vector<std::pair<std::string, double>> scalars = {{"eval/accuracy", result.accuracy()}};
  for (const v1::Metric& part : result.parts()) {
    line["parts"][part.name()] = part.value();
    scalars.emplace_back("eval/" + part.name(), part.value());
  }
  AppendLine(job, "evals.jsonl", line.dump());
  if (TensorboardFile* file = Tensorboard(job)) {
    absl::Status status = file->Append(WallSeconds(), result.update(), scalars);
    if (!status.ok()) log_.Warn("no TensorBoard event", {{"error", status.ToString()}});
  }
  metrics_
      .AddGauge("rein_controller_eval_score", "Held-out score",
                {{"rl_job", job.name}, {"metric", "accuracy"}})
      .Set(result.accuracy());
}

void JobRecorder::RemoveCheckpoint(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error)
    log_.Warn("cannot remove an old checkpoint", {{"path", path}, {"error", error.message()}});
}

void JobRecorder::OnState(const JobRecord& job) {
  for (int state = v1::JOB_STATE_QUEUED; state <= v1::JOB_STATE_CANCELLED; ++state) {
    const std::string name = v1::JobState_Name(static_cast<v1::JobState>(state)).substr(10);
    metrics_
        .AddGauge("rein_controller_job_state", "1 for the state that the job is in",
                  {{"rl_job", job.name}, {"state", name}})
        .Set(state == job.state ? 1 : 0);
    bool ended = state >= v1::JOB_STATE_SUCCEEDED;
    if (!ended || state != job.state) continue;
    metrics_.AddCounter("rein_controller_jobs_total", "Jobs that ended", {{"result", name}}).Add();
  }
  log_.SetJob(job.name);
  telemetry::Log::Fields fields = {{"state", v1::JobState_Name(job.state).substr(10)}};
  if (!job.message.empty()) fields.emplace_back("message", job.message);
  log_.Info("job", fields);
  bool active = job.state == v1::JOB_STATE_RUNNING || job.state == v1::JOB_STATE_STARTING;
  if (!active) log_.SetJob("");
}

}  // namespace rein::services
