// The part of Controller that deletes: what a person asks for, and what `retention` says is due.

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "services/controller/controller.h"
#include "services/controller/retention.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kRetentionPause = absl::Minutes(1);
constexpr size_t kExpiredAtOnce = 16;  // then the run loop has its turn

// Whether a job reads weights below `folder`.
bool ReadsWeightsOf(const v1::JobConfig& job, const std::string& folder) {
  if (job.model().path().rfind(folder, 0) == 0) return true;
  return std::any_of(job.rewards().begin(), job.rewards().end(), [&](const auto& reward) {
    return reward.model().path().rfind(folder, 0) == 0;
  });
}

}  // namespace

const JobRecord* Controller::ReaderOf(const JobRecord& job, const std::string& folder) const {
  for (const auto& other : jobs_) {
    if (other.get() != &job && !HasEnded(other->state) && ReadsWeightsOf(other->config, folder)) return other.get();
  }
  return nullptr;
}

absl::StatusOr<v1::DeleteJobReply> Controller::Delete(const std::string& name) {
  REIN_ASSIGN_OR_RETURN(JobRecord * job, Find(name));
  if (!HasEnded(job->state)) {
    return absl::FailedPreconditionError(
        absl::StrCat("job ", job->name, " is ", v1::JobState_Name(job->state).substr(10),
                     ": cancel it before it is deleted"));
  }
  if (const JobRecord* reader = ReaderOf(*job, job->output + "/"); reader != nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job ", reader->name, " (", v1::JobState_Name(reader->state).substr(10),
        ") starts from the weights of ", job->name, ": wait for it, or cancel it"));
  }
  // The store first: files without a job only take space, a job without files would be a lie.
  REIN_RETURN_IF_ERROR(store_->Transact([&] { return store_->DeleteJob(job->name); }));
  v1::DeleteJobReply reply;
  for (const std::string& path : PathsOf(Leftover::kJob, job->output, store_->RolloutFolder(job->name))) {
    const uint64_t bytes = DiskBytes(path);
    if (RemovePaths({path}).ok()) reply.set_freed_bytes(reply.freed_bytes() + bytes);
  }
  std::error_code error;
  fs::remove(job->output, error);  // if nothing else lies in it
  recorder_.OnDelete(*job);
  std::erase_if(jobs_, [&](const auto& one) { return one.get() == job; });
  return reply;
}

absl::Status Controller::Expire(JobRecord& job, Leftover what) {
  if (what == Leftover::kJob) return Delete(job.name).status();
  // The store first, as above; what a crash leaves behind is removed after the next start.
  job.expired |= static_cast<uint64_t>(what);
  absl::Status stored = store_->Transact([&]() -> absl::Status {
    if (what == Leftover::kRollouts) REIN_RETURN_IF_ERROR(store_->DeleteRollouts(job.name));
    if (what == Leftover::kCheckpoints) {
      REIN_ASSIGN_OR_RETURN(auto checkpoints, store_->ReadCheckpoints(job.name));
      for (const v1::Checkpoint& one : checkpoints) REIN_RETURN_IF_ERROR(store_->DeleteCheckpoint(job.name, one.number()));
    }
    return store_->UpdateJob(job);
  });
  if (!stored.ok()) {
    job.expired &= ~static_cast<uint64_t>(what);
    return stored;
  }
  return RemovePaths(PathsOf(what, job.output, store_->RolloutFolder(job.name)));
}

v1::ApplyRetentionReply Controller::ApplyRetention(bool dry_run, const std::function<bool(const JobRecord&)>& wanted,
                                                   size_t at_most) {
  v1::ApplyRetentionReply reply;
  std::vector<std::string> names;  // jobs go from jobs_ meanwhile
  for (const auto& job : jobs_) {
    if (!wanted || wanted(*job)) names.push_back(job->name);
  }
  for (const std::string& name : names) {
    JobRecord& job = **Find(name);
    for (const DueLeftover& due : HasEnded(job.state) ? DueLeftovers(job, Now()) : std::vector<DueLeftover>()) {
      if (static_cast<size_t>(reply.expired_size()) >= at_most) return reply;
      const bool weights = due.what == Leftover::kJob || due.what == Leftover::kCheckpoints;
      const std::string folder = absl::StrCat(job.output, due.what == Leftover::kJob ? "/" : "/checkpoints/");
      if (weights && ReaderOf(job, folder) != nullptr) continue;
      v1::Expired& expired = *reply.add_expired();
      expired.set_job(name);
      expired.set_what(NameOf(due.what));
      expired.set_due_at(due.due_at);
      for (const std::string& path : PathsOf(due.what, job.output, store_->RolloutFolder(name))) {
        expired.set_bytes(expired.bytes() + DiskBytes(path));
      }
      if (dry_run) continue;
      if (absl::Status gone = Expire(job, due.what); !gone.ok()) expired.set_error(std::string(gone.message()));
    }
  }
  return reply;
}

void Controller::RemoveExpiredFiles() {
  for (const auto& job : jobs_) {
    for (Leftover what : {Leftover::kRollouts, Leftover::kCheckpoints, Leftover::kLogs}) {
      if ((job->expired & static_cast<uint64_t>(what)) == 0) continue;
      RemovePaths(PathsOf(what, job->output, store_->RolloutFolder(job->name))).IgnoreError();
    }
  }
}

absl::Time Controller::KeepHouse() {
  if (clock_.Now() < next_retention_) return next_retention_;
  if (next_retention_ == absl::InfinitePast()) RemoveExpiredFiles();
  const v1::ApplyRetentionReply gone = ApplyRetention(/*dry_run=*/false, nullptr, kExpiredAtOnce);
  bool more = gone.expired_size() == static_cast<int>(kExpiredAtOnce);
  for (const v1::Expired& one : gone.expired()) {
    recorder_.OnExpired(one);
    more &= one.error().empty();  // what fails is tried again, but not in a circle
  }
  next_retention_ = clock_.Now() + (more ? absl::ZeroDuration() : kRetentionPause);
  return next_retention_;
}

}  // namespace rein::services
