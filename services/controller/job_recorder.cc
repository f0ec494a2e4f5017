#include "services/controller/job_recorder.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <tuple>

#include "absl/strings/str_cat.h"
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "common/config/name.h"
#include "common/files/append_whole.h"

namespace rein::services {
namespace {

using telemetry::Labels;

const std::vector<double> kSecondsBounds = {0.05, 0.1, 0.25, 0.5, 1,   2.5,  5,    10,  20,
                                            30,   60,  120,  300, 600, 1200, 1800, 3600};

constexpr size_t kMaxEndedJobs = 100;  // whose state is shown
constexpr size_t kMaxGroups = 32;      // of actors that are counted; their names come from whoever registers
constexpr char kDurationName[] = "rein_controller_update_duration_seconds";
constexpr char kDurationHelp[] = "Where the time of an update goes";
constexpr char kStateName[] = "rein_controller_job_state";
constexpr char kStateHelp[] = "1 for the state that the job is in";

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
  const std::string path = absl::StrCat(job.output, "/", file);
  const int out = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  absl::Status written = out < 0 ? absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path))
                                 : files::AppendWhole(out, path, line + "\n");
  if (out >= 0) close(out);
  if (!written.ok()) log_.Warn("a line is lost", {{"job", job.name}, {"error", std::string(written.message())}});
}

TensorboardFile* JobRecorder::Tensorboard(const JobRecord& job) {
  std::unique_ptr<TensorboardFile>& kept = tensorboard_[job.name];
  if (kept == nullptr) {
    auto file = TensorboardFile::Create(absl::StrCat(job.output, "/tensorboard"), WallSeconds());
    if (!file.ok()) {
      log_.Warn("no TensorBoard file", {{"job", job.name}, {"error", file.status().ToString()}});
      return nullptr;
    }
    kept = *std::move(file);
  }
  return kept.get();
}

void JobRecorder::OnUpdate(const JobRecord& job, const v1::UpdateRecord& record) {
  nlohmann::ordered_json line = {{"update", record.update()}, {"time", WallSeconds()}};
  std::vector<std::pair<std::string, double>> scalars;
  for (const v1::Metric& metric : record.metrics()) {
    line[metric.name()] = metric.value();
    scalars.emplace_back(metric.name(), metric.value());
    GaugeName gauge = GaugeOf(metric.name());
    if (gauge.family.empty()) continue;
    SetGauge(job, gauge.family, gauge.help, gauge.labels, metric.value());
  }
  AppendLine(job, "metrics.jsonl", line.dump());
  if (TensorboardFile* file = Tensorboard(job)) {
    absl::Status status = file->Append(WallSeconds(), record.update(), scalars);
    if (!status.ok()) log_.Warn("no TensorBoard event", {{"job", job.name}, {"error", status.ToString()}});
  }
  LogUpdate(job, record);
  SetGauge(job, "rein_controller_update", "Updates consumed", {},
           static_cast<double>(record.update()));
  SetGauge(job, "rein_controller_max_updates", "Updates wanted", {},
           static_cast<double>(record.max_updates()));
  SetGauge(job, "rein_controller_last_update_timestamp_seconds", "When the last update was consumed",
           {}, WallSeconds());
  for (const auto& [name, value] : scalars) {
    size_t suffix = name.rfind("seconds");
    if (suffix == std::string::npos || suffix + 7 != name.size()) continue;
    std::string phase = suffix == 0 ? "total" : name.substr(0, suffix - 1);
    const Labels labels = {{"rl_job", job.name}, {"phase", phase}};
    metrics_.AddHistogram(kDurationName, kDurationHelp, kSecondsBounds, labels).Observe(value);
    series_[job.name][absl::StrCat(kDurationName, " ", phase)] = {true, kDurationName, kDurationHelp,
                                                                  labels};
  }
}

void JobRecorder::LogUpdate(const JobRecord& job, const v1::UpdateRecord& record) {
  telemetry::Log::Fields fields = {{"job", job.name}, {"update", absl::StrCat(record.update())}};
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
                                 {"prompts", result.prompts()}};
  std::vector<std::pair<std::string, double>> scalars;
  const bool generated = result.slices().empty() || result.slices(0).samples() > 0;
  if (generated) {
    line["accuracy"] = result.accuracy();
    line["standard_error"] = result.standard_error();
    scalars.emplace_back("eval/accuracy", result.accuracy());
  }
  for (const v1::Metric& part : result.parts()) {
    line["parts"][part.name()] = part.value();
    scalars.emplace_back("eval/" + part.name(), part.value());
  }
  for (const v1::EvalSlice& slice : result.slices()) {
    const bool first = &slice == &result.slices(0);
    const std::string name = absl::StrCat(slice.dataset(), slice.setting().empty() ? "" : "/", slice.setting());
    nlohmann::ordered_json figures = {{"dataset", slice.dataset()}, {"setting", slice.setting()},
                                      {"prompts", slice.prompts()}};
    // The first one's accuracy stands above.
    auto add = [&](const std::string& figure, double value) {
      figures[figure] = value;
      scalars.emplace_back(first ? "eval/" + figure : absl::StrCat("eval/", name, "/", figure), value);
    };
    if (slice.samples() > 0) {
      figures["samples"] = slice.samples();
      figures["confidence"] = {slice.confidence_low(), slice.confidence_high()};
      figures["standard_error"] = slice.standard_error();
      if (slice.failed() > 0) figures["failed"] = slice.failed();
      if (first) {
        figures["accuracy"] = slice.accuracy();
      } else {
        add("accuracy", slice.accuracy());
      }
      add("completion_tokens", slice.completion_tokens());
      add("truncated_ratio", slice.truncated_ratio());
    }
    for (const v1::PassAtK& at : slice.pass_at()) add(absl::StrCat("pass_at_", at.k()), at.value());
    if (slice.has_loss()) {
      add("loss", slice.loss());
      add("perplexity", slice.perplexity());
      figures["tokens"] = slice.tokens();
    }
    line["slices"].push_back(std::move(figures));
  }
  AppendLine(job, "evals.jsonl", line.dump());
  if (TensorboardFile* file = Tensorboard(job)) {
    absl::Status status = file->Append(WallSeconds(), result.update(), scalars);
    if (!status.ok()) log_.Warn("no TensorBoard event", {{"job", job.name}, {"error", status.ToString()}});
  }
  if (generated) {
    SetGauge(job, "rein_controller_eval_score", "Held-out score", {{"metric", "accuracy"}},
             result.accuracy());
  }
  if (!result.slices().empty() && result.slices(0).has_loss()) {
    SetGauge(job, "rein_controller_eval_score", "Held-out score", {{"metric", "loss"}},
             result.slices(0).loss());
  }
}

void JobRecorder::SetGauge(const JobRecord& job, const std::string& family, const std::string& help,
                           Labels labels, double value) {
  labels["rl_job"] = job.name;
  metrics_.AddGauge(family, help, labels).Set(value);
  std::string key = family;
  for (const auto& [name, label] : labels) absl::StrAppend(&key, " ", name, "=", label);
  series_[job.name][key] = {false, family, help, labels};
}

void JobRecorder::RemoveSeries(const std::string& job) {
  for (const auto& [key, series] : series_[job]) {
    if (series.histogram) {
      metrics_.RemoveHistogram(series.family, series.help, series.labels);
    } else {
      metrics_.RemoveGauge(series.family, series.help, series.labels);
    }
  }
  series_.erase(job);
}

void JobRecorder::RemoveState(const std::string& job) {
  for (int state = v1::JOB_STATE_QUEUED; state <= v1::JOB_STATE_CANCELLED; ++state) {
    const std::string name = v1::JobState_Name(static_cast<v1::JobState>(state)).substr(10);
    metrics_.RemoveGauge(kStateName, kStateHelp, {{"rl_job", job}, {"state", name}});
  }
}

void JobRecorder::OnActors(const std::vector<v1::Actor>& actors) {
  groups_.insert(config::kDefaultGroup);
  std::map<std::tuple<std::string, std::string, std::string>, int> counts;
  std::set<std::string> busy;
  double silence = 0;
  for (const v1::Actor& actor : actors) {
    if (groups_.size() < kMaxGroups) groups_.insert(actor.group());
    if (!actor.job().empty()) busy.insert(actor.group());
    if (groups_.count(actor.group()) > 0) ++counts[{actor.group(), actor.role(), actor.state()}];
    if (actor.state() == "READY") silence = std::max(silence, actor.silent_seconds());
  }
  for (const std::string& group : groups_) {
    metrics_.AddGauge("rein_controller_group_busy", "1 while the group of actors runs a job", {{"group", group}})
        .Set(busy.count(group) > 0 ? 1 : 0);
    for (const char* role : {"trainer", "rollout", "reference", "reward"}) {
      for (const char* state : {kActorReady, kActorLost}) {
        metrics_
            .AddGauge("rein_controller_actors", "Registered services",
                      {{"group", group}, {"role", role}, {"state", state}})
            .Set(counts[{group, role, state}]);
      }
    }
  }
  metrics_
      .AddGauge("rein_controller_longest_silence_seconds", "Since the last heartbeat of the quietest service")
      .Set(silence);
}

void JobRecorder::OnStore(const std::map<v1::JobState, int>& jobs,
                          const std::filesystem::space_info& disk) {
  for (int state = v1::JOB_STATE_QUEUED; state <= v1::JOB_STATE_CANCELLED; ++state) {
    auto found = jobs.find(static_cast<v1::JobState>(state));
    metrics_
        .AddGauge("rein_controller_jobs", "Jobs in the store",
                  {{"state", v1::JobState_Name(static_cast<v1::JobState>(state)).substr(10)}})
        .Set(found == jobs.end() ? 0 : found->second);
  }
  metrics_.AddGauge("rein_controller_disk_free_bytes", "Free on the disk of the state")
      .Set(static_cast<double>(disk.available));
  metrics_.AddGauge("rein_controller_disk_size_bytes", "Size of the disk of the state")
      .Set(static_cast<double>(disk.capacity));
}

void JobRecorder::OnLedger(const JobRecord& job, const v1::LedgerSummary& ledger,
                           const std::optional<v1::Checkpoint>& newest) {
  const std::pair<const char*, double> groups[] = {
      {"in_flight", static_cast<double>(ledger.in_flight())},
      {"finished", static_cast<double>(ledger.finished())},
      {"scored", static_cast<double>(ledger.scored())},
      {"training", static_cast<double>(ledger.training())},
      {"consumed", static_cast<double>(ledger.consumed())},
      {"dropped", static_cast<double>(ledger.dropped_size())}};
  for (const auto& [state, count] : groups) {
    SetGauge(job, "rein_controller_groups", "Groups of rollouts by where they stand", {{"state", state}}, count);
  }
  if (!newest.has_value()) return;
  SetGauge(job, "rein_controller_checkpoint_last_success_timestamp_seconds", "When the newest checkpoint was durable",
           {}, newest->created_at());
  SetGauge(job, "rein_controller_checkpoint_size_bytes", "Of the newest checkpoint", {},
           static_cast<double>(newest->bytes()));
}

void JobRecorder::OnDelete(const JobRecord& job) {
  RemoveSeries(job.name);
  RemoveState(job.name);
  std::erase(ended_, job.name);
  tensorboard_.erase(job.name);
}

void JobRecorder::OnExpired(const v1::Expired& expired) {
  telemetry::Log::Fields fields = {{"job", expired.job()}, {"what", expired.what()}, {"bytes", absl::StrCat(expired.bytes())}};
  if (expired.error().empty()) return log_.Info("retention has deleted", fields);
  fields.emplace_back("error", expired.error());
  log_.Warn("retention cannot delete", fields);
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
        .AddGauge(kStateName, kStateHelp, {{"rl_job", job.name}, {"state", name}})
        .Set(state == job.state ? 1 : 0);
    bool ended = state >= v1::JOB_STATE_SUCCEEDED;
    if (!ended || state != job.state) continue;
    metrics_.AddCounter("rein_controller_jobs_total", "Jobs that ended", {{"result", name}}).Add();
  }
  std::erase(ended_, job.name);
  const bool active = job.state == v1::JOB_STATE_RUNNING || job.state == v1::JOB_STATE_STARTING;
  if (!active) tensorboard_.erase(job.name);
  if (job.state >= v1::JOB_STATE_SUCCEEDED) {
    RemoveSeries(job.name);
    ended_.push_back(job.name);
    if (ended_.size() > kMaxEndedJobs) {
      RemoveState(ended_.front());
      ended_.pop_front();
    }
  }
  telemetry::Log::Fields fields = {{"job", job.name}, {"state", v1::JobState_Name(job.state).substr(10)}};
  if (!job.group.empty()) fields.emplace_back("group", job.group);
  if (!job.message.empty()) fields.emplace_back("message", job.message);
  log_.Info("job", fields);
}

}  // namespace rein::services
