#include "services/controller/run_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/rpc/fence_guard.h"

namespace rein::services {
namespace {

constexpr size_t kMostSpans = 4096;  // of one Update

}  // namespace

bool RunState::Commit() {
  if (commit_error.ok()) commit_error = ledger.Sync();
  if (commit_error.ok()) commit_error = deps.store.Commit();
  return Check(commit_error);
}

bool RunState::Check(const absl::Status& status) {
  if (status.ok()) return true;
  Fail(std::string(status.message()));
  return false;
}

void RunState::Fail(const std::string& message) {
  if (!outcome.has_value()) outcome = Outcome{.state = v1::JOB_STATE_FAILED, .message = message};
}

void RunState::Emit(v1::JobEvent event) {
  event.set_time(absl::ToDoubleSeconds(deps.clock.Now() - absl::UnixEpoch()));
  Check(deps.store.AppendEvent(job.name, event));
}

void RunState::Tell(const std::string& message) {
  v1::JobEvent event;
  event.set_message(message);
  Emit(std::move(event));
}

void RunState::NoteSpan(const std::string& work, const std::string& actor, const std::string& about,
                        absl::Time begin) {
  if (times.spans.size() >= kMostSpans) return;
  v1::WorkSpan span;
  span.set_work(work);
  span.set_actor(actor);
  span.set_about(about);
  span.set_begin(absl::ToDoubleSeconds(begin - absl::UnixEpoch()));
  span.set_end(absl::ToDoubleSeconds(deps.clock.Now() - absl::UnixEpoch()));
  times.spans.push_back(std::move(span));
}

v1::Fence RunState::FenceOf(const v1::Actor& actor, const std::string& effect) const {
  v1::Fence fence;
  fence.set_request_id(absl::StrCat(job.name, "/", effect));
  fence.set_controller_epoch(deps.registry.controller_epoch());
  fence.set_actor_epoch(actor.epoch());
  fence.set_job(job.name);
  return fence;
}

v1::Fence RunState::FreshFence(const v1::Actor& actor, const std::string& effect) {
  return FenceOf(actor,
                 absl::StrCat(effect, "/", deps.registry.controller_epoch(), ".", next_call++));
}

v1::PolicyVersion ToProto(const Version& version) {
  v1::PolicyVersion proto;
  proto.set_lineage(version.lineage);
  proto.set_number(version.number);
  return proto;
}

Version FromProto(const v1::PolicyVersion& version) {
  return {.lineage = version.lineage(), .number = version.number()};
}

absl::Duration RetryPause(int failures) {
  return std::min(absl::Milliseconds(100) * (1 << std::min(failures, 10)), absl::Seconds(10));
}

bool IsFinalRefusal(const absl::Status& status, int failures) {
  constexpr int kMaxRefusals = 5;
  return absl::IsFailedPrecondition(status) && !rpc::IsFenceRefusal(status) &&
         failures >= kMaxRefusals;
}

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsFailedPrecondition(status);
}

}  // namespace rein::services
