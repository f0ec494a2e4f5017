// ReadJob turns what a user wrote into a resolved job: checked as a whole, defaults filled in,
// paths absolute.
//
//   REIN_ASSIGN_OR_RETURN(v1::JobConfig job, ReadJob({.yaml = text, .file_name = "job.yaml",
//                                                     .overrides = {"grpo.group_size=4"},
//                                                     .folder = "jobs"}));
//
// INVALID_ARGUMENT names every problem with its place, one to a line.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "rein/v1/job.pb.h"

namespace rein::config {

struct JobText {
  std::string yaml;
  std::string file_name;               // for messages
  std::vector<std::string> overrides;  // key.sub=value
  std::string folder;                  // where relative paths start; empty: absolute ones only
};

absl::StatusOr<v1::JobConfig> ReadJob(const JobText& text);

// The name of a reward in metrics: its own, else its rule's.
std::string NameOfReward(const v1::RewardConfig& reward);

}  // namespace rein::config
