// RolloutMetrics turns what an engine says into Prometheus series of one job. The gauges go when it
// is destroyed.

#pragma once

#include <string>

#include "common/telemetry/metrics.h"
#include "rollout/engine/engine.h"

namespace rein::services {

class RolloutMetrics {
 public:
  // `metrics` must outlive the object.
  RolloutMetrics(telemetry::Metrics& metrics, const std::string& job);
  ~RolloutMetrics();

  // Refers to this object; for one engine.
  rollout::EngineObserver Observer();

 private:
  void OnSibling(const rollout::SiblingFigures& figures);
  void OnStats(const rollout::EngineStats& stats);

  telemetry::Metrics& metrics_;
  const telemetry::Labels job_;
  telemetry::Gauge running_, waiting_, kv_usage_, version_;
  telemetry::Counter generated_tokens_, prompt_tokens_, prefix_queries_, prefix_hits_, preemptions_;
  telemetry::Counter stopped_, cut_, aborted_;
  telemetry::Histogram first_token_, between_tokens_, duration_, queued_;
  telemetry::Histogram prompt_lengths_, response_lengths_;
  rollout::EngineStats last_;
};

}  // namespace rein::services
