// What `rein metrics`, `rein compare`, `rein rollouts --diff` and `rein top` print. Pure.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rein/v1/controller.pb.h"

namespace rein::cli {

// Those of `wanted` that an update has, in that order; all of them when none is wanted. INVALID_ARGUMENT names one
// that no update has, and the nearest.
absl::StatusOr<std::vector<std::string>> MetricKeys(const v1::ListUpdatesReply& updates,
                                                    const std::vector<std::string>& wanted);
// The usual few of what there is.
std::vector<std::string> CommonKeys(const v1::ListUpdatesReply& updates);

// Columns: update, then `keys`. At most `width` columns of text: keys that do not fit are left out, and named.
std::string MetricsTable(const v1::ListUpdatesReply& updates, const std::vector<std::string>& keys, int width);
// RFC 4180, with a header; an absent figure is empty.
std::string MetricsCsv(const v1::ListUpdatesReply& updates, const std::vector<std::string>& keys);
// One JSON object a line, as in metrics.jsonl.
std::string MetricsJsonLines(const v1::ListUpdatesReply& updates, const std::vector<std::string>& keys);

// Lines that only one of two texts has, "- " of the first and "+ " of the second, with `context` lines around.
std::string DiffText(const std::string& a, const std::string& b, size_t context);

struct ComparedJob {
  v1::Job job;
  v1::ListUpdatesReply updates;
};
// Figures as means over the last `window` updates of each, evaluations, and how the configs differ.
std::string CompareText(const ComparedJob& a, const ComparedJob& b, size_t window);

// The same prompts under two policies: mean reward and the best completion of each, words that changed marked.
std::string RolloutDiffText(const v1::ListRolloutsReply& a, const std::string& name_a, const v1::ListRolloutsReply& b,
                            const std::string& name_b, size_t limit);

// Services with what they do, and the jobs that are not over.
std::string TopText(const v1::ListActorsReply& actors, const v1::ListJobsReply& jobs, absl::Time now, size_t width = 0);

// 1.5G, 12M, 340K.
std::string Size(double bytes);

}  // namespace rein::cli
