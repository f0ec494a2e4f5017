// What this process uses, as metric families: CPU time, memory, file descriptors, threads and its start, read from
// /proc when it is asked for. Internal to telemetry.

#pragma once

#include <vector>

#include <prometheus/metric_family.h>

namespace rein::telemetry {

std::vector<prometheus::MetricFamily> ProcessFamilies();

}  // namespace rein::telemetry
