// The routes that every service has on its admin port: /metrics, /healthz and /readyz.
//
// Probes are open to all and tell nothing but yes or no; metrics are for users who may look.

#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "common/http/http_server.h"
#include "common/telemetry/metrics.h"

namespace rein::http {

// `ready`: what /readyz answers (503 until it is true). Both must outlive the server. `measure` is called before
// metrics are read, to bring gauges up to date; may be empty.
std::vector<Route> AdminRoutes(const telemetry::Metrics& metrics, const std::atomic<bool>& ready,
                               std::function<void()> measure = nullptr);

}  // namespace rein::http
