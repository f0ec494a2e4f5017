// What `rein describe`, `rein get` and `rein rollouts` print for people. Pure.

#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

#include "rein/v1/controller.pb.h"

namespace rein::cli {

// Tables take the width of a terminal, or 0 to be cut nowhere.
std::string JobsTable(const v1::ListJobsReply& jobs, absl::Time now, size_t width = 0);
// With its rank, where a trainer has several.
std::string RoleOf(const v1::Actor& actor);

// "–" for what is empty.
std::string OrDash(const std::string& text);
std::string ActorsTable(const v1::ListActorsReply& actors, size_t width = 0);
std::string CheckpointsTable(const v1::Job& job, absl::Time now, size_t width = 0);
std::string DescribeJob(const v1::Job& job, const v1::LedgerSummary& ledger,
                        const std::vector<v1::JobEvent>& events, absl::Time now);
// The figures of one evaluation, a line for each dataset and setting: "accuracy 0.930 ± 0.021 (400 prompts)".
std::vector<std::string> HeldOutLines(const v1::EvalResult& result);
// `tokens`: also each token's id and log-probability.
std::string RolloutsText(const v1::ListRolloutsReply& reply, bool tokens);

// FAILED with its reason, what is kept, and what to type next; for other ends one line.
std::string EndText(const v1::Job& job);

}  // namespace rein::cli
