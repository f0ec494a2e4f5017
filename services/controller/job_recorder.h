// JobRecorder leaves what people read of running jobs: metrics.jsonl and a TensorBoard file in each
// job's folder, gauges on the admin port, and lines in the log that name the job.
//
// A file that cannot be written is logged and costs nothing else. Belongs to the controller's
// thread.

#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/sync/clock.h"
#include "common/telemetry/log.h"
#include "common/telemetry/metrics.h"
#include "services/controller/run_state.h"
#include "services/controller/tensorboard_file.h"

namespace rein::services {

class JobRecorder final : public RunRecorder {
 public:
  // All arguments must outlive the recorder.
  JobRecorder(const sync::Clock& clock, telemetry::Metrics& metrics, telemetry::Log& log)
      : clock_(clock), metrics_(metrics), log_(log) {}

  void OnUpdate(const JobRecord& job, const v1::UpdateRecord& record) override;
  void OnEval(const JobRecord& job, const v1::EvalResult& result) override;
  void RemoveCheckpoint(const std::string& path) override;

  // The state set of a job, and the count of ended ones. The gauges of its updates go when it has ended.
  void OnState(const JobRecord& job);
  // Before each scrape: what stands where.
  void OnActors(const std::vector<v1::Actor>& actors);
  void OnStore(const std::map<v1::JobState, int>& jobs, const std::filesystem::space_info& disk);
  void OnLedger(const JobRecord& job, const v1::LedgerSummary& ledger,
                const std::optional<v1::Checkpoint>& newest);
  // What retention has deleted, or could not.
  void OnExpired(const v1::Expired& expired);
  // Forgets every series of a job that was deleted.
  void OnDelete(const JobRecord& job);

 private:
  void AppendLine(const JobRecord& job, const std::string& file, const std::string& line);
  // A gauge of a running job.
  void SetGauge(const JobRecord& job, const std::string& family, const std::string& help,
                telemetry::Labels labels, double value);
  void RemoveSeries(const std::string& job);
  void RemoveState(const std::string& job);
  void LogUpdate(const JobRecord& job, const v1::UpdateRecord& record);
  TensorboardFile* Tensorboard(const JobRecord& job);
  double WallSeconds() const;

  const sync::Clock& clock_;
  telemetry::Metrics& metrics_;
  telemetry::Log& log_;
  // Of a job's updates, by job: what to remove at its end.
  struct Series {
    bool histogram = false;
    std::string family, help;
    telemetry::Labels labels;
  };
  std::map<std::string, std::map<std::string, Series>> series_;  // within a job by family and labels
  std::set<std::string> groups_;     // of actors that are counted
  std::deque<std::string> ended_;  // jobs whose state is still shown, oldest first
  std::map<std::string, std::unique_ptr<TensorboardFile>> tensorboard_;  // by job that has not ended
};

}  // namespace rein::services
