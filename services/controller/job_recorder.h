// JobRecorder leaves what people read of a running job: metrics.jsonl and a TensorBoard file in the
// job's folder, and gauges on the admin port.
//
// A file that cannot be written is logged and costs nothing else. Belongs to the controller's
// thread.

#pragma once

#include <map>
#include <memory>
#include <string>

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

  // The state set of a job, and the count of ended ones.
  void OnState(const JobRecord& job);

 private:
  void AppendLine(const JobRecord& job, const std::string& file, const std::string& line);
  void LogUpdate(const v1::UpdateRecord& record);
  TensorboardFile* Tensorboard(const JobRecord& job);
  double WallSeconds() const;

  const sync::Clock& clock_;
  telemetry::Metrics& metrics_;
  telemetry::Log& log_;
  std::string tensorboard_job_;
  std::unique_ptr<TensorboardFile> tensorboard_;
};

}  // namespace rein::services
