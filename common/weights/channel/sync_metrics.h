// SyncMetrics counts the weight syncs that a role receives: rein_<role>_weight_sync_*. Thread-safe.

#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/telemetry/metrics.h"

namespace rein::weights {

class SyncMetrics {
 public:
  // `metrics` must outlive the object.
  SyncMetrics(telemetry::Metrics& metrics, std::string role);

  // `transport`: grpc or nccl. A sync that is still open counts as failed.
  void Begin(const std::string& transport, absl::Time now);
  void AddBytes(uint64_t bytes);
  // Nothing when no sync is open.
  void End(const absl::Status& status, absl::Time now);

 private:
  struct Open {
    std::string transport;
    absl::Time begin;
    uint64_t bytes = 0;
  };

  void EndLocked(const absl::Status& status, absl::Time now);

  telemetry::Metrics& metrics_;
  const std::string prefix_;
  telemetry::Gauge in_progress_;
  std::mutex mutex_;
  std::optional<Open> open_;
};

}  // namespace rein::weights
