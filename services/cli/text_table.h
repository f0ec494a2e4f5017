// Small pieces of text for people: tables, ages, figures, bars.

#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "google/protobuf/repeated_field.h"

#include "rein/v1/controller.pb.h"

namespace rein::cli {

// Columns two spaces apart, no spaces at the end of a line. The first row is the header. With a width the last column is
// cut, with … at its end, where lines would be wider, but for what its first 24 characters say.
std::string Table(const std::vector<std::vector<std::string>>& rows, size_t width = 0);

// Characters that a terminal shows, for UTF-8 of single-width letters.
size_t Width(const std::string& text);
std::string PadTo(const std::string& text, size_t width);

// "8s", "3m10s", "1h02m", "2d3h".
std::string Age(absl::Duration duration);

// Four digits that matter: 0.612, 41.2k, 3.2M, 1.2e-06.
std::string Figure(double value);

// A bar of `width` cells, `share` in [0, 1] of it filled, in eighths; '·' for the rest when asked.
std::string Bar(double share, size_t width, bool dots);

// One block per value, low to high.
std::string Sparkline(const std::vector<double>& values);

// RUNNING, ...
std::string NameOf(v1::JobState state);

// NaN when there is none of this name.
double MetricOf(const google::protobuf::RepeatedPtrField<v1::Metric>& metrics,
                const std::string& name);

}  // namespace rein::cli
