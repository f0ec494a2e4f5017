// What of a job that has ended is due to go, by its `retention`, and what that is on disk.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "services/controller/store.h"

namespace rein::services {

// What a job leaves; as bits of JobRecord::expired, but for the job itself.
enum class Leftover : uint64_t { kRollouts = 1, kCheckpoints = 2, kLogs = 4, kJob = 8 };

// As in v1::Expired.what.
const char* NameOf(Leftover leftover);

struct DueLeftover {
  Leftover what;
  double due_at;  // seconds since 1970
};

// What is due at `now` (seconds since 1970) and not gone yet, the longest due first. The job itself alone when it is
// due. Nothing of a job that has not ended.
std::vector<DueLeftover> DueLeftovers(const JobRecord& job, double now);

// The folders and files of it; `rollouts`: the folder of the job's rollouts. In the output folder only what the
// controller and the trainer left there.
std::vector<std::string> PathsOf(Leftover leftover, const std::string& output, const std::string& rollouts);

// Of a file, or the files below a folder; 0 for one that is not there.
uint64_t DiskBytes(const std::string& path);

// Removes what is there of `paths`. INTERNAL or PERMISSION_DENIED names the first that stays.
absl::Status RemovePaths(const std::vector<std::string>& paths);

}  // namespace rein::services
