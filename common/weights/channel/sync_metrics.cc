#include "common/weights/channel/sync_metrics.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace rein::weights {
namespace {

const std::vector<double>& DurationBounds() {
  static const auto& bounds =
      *new std::vector<double>{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
  return bounds;
}

}  // namespace

SyncMetrics::SyncMetrics(telemetry::Metrics& metrics, std::string role)
    : metrics_(metrics),
      prefix_(absl::StrCat("rein_", role, "_weight_sync_")),
      in_progress_(metrics.AddGauge(prefix_ + "in_progress", "Whether weights are coming in now")) {}

void SyncMetrics::Begin(const std::string& transport, absl::Time now) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (open_.has_value()) EndLocked(absl::AbortedError("a newer sync began"), now);
  open_ = Open{transport, now};
  in_progress_.Set(1);
}

void SyncMetrics::AddBytes(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (open_.has_value()) open_->bytes += bytes;
}

void SyncMetrics::End(const absl::Status& status, absl::Time now) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (open_.has_value()) EndLocked(status, now);
}

void SyncMetrics::EndLocked(const absl::Status& status, absl::Time now) {
  const Open sync = *std::exchange(open_, std::nullopt);
  in_progress_.Set(0);
  const telemetry::Labels transport = {{"transport", sync.transport}};
  metrics_.AddCounter(prefix_ + "bytes_total", "Bytes of weights that came in", transport)
      .Add(static_cast<double>(sync.bytes));
  telemetry::Counter failures = metrics_.AddCounter(
      prefix_ + "failures_total", "Weight syncs that were not taken into use", transport);
  if (!status.ok()) return failures.Add();
  metrics_
      .AddHistogram(prefix_ + "duration_seconds", "From BeginWeights to weights in use",
                    DurationBounds(), transport)
      .Observe(absl::ToDoubleSeconds(now - sync.begin));
}

}  // namespace rein::weights
