#include "common/weights/weight_receiver.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::weights {
namespace {

constexpr size_t kMaxNamed = 5;

std::string Show(const Version& v) { return absl::StrCat(v.lineage, ".", v.number); }

}  // namespace

absl::StatusOr<DeviceMemory> ReceivingArenas::IdleDeviceMemory() {
  return absl::FailedPreconditionError("weights by NCCL: this role keeps its weights in host memory");
}

absl::StatusOr<std::optional<Version>> WeightReceiver::Begin(const Version& version,
                                                             const WeightPlan& plan,
                                                             absl::Duration deadline) {
  std::lock_guard<std::mutex> lock(mutex_);
  REIN_RETURN_IF_ERROR(CheckPlan(plan, arenas_.plan()));
  REIN_RETURN_IF_ERROR(RequireNoneTaking());
  if (current_.has_value() && version < *current_) {
    return absl::FailedPreconditionError(absl::StrCat("weights of version ", Show(version),
                                                      " are older than version ", Show(*current_),
                                                      ", which is in use"));
  }
  open_ = version;
  open_until_ = clock_.Now() + deadline;
  return current_;
}

absl::Status WeightReceiver::RequireOpen(const Version& version) {
  if (!open_.has_value() || !(*open_ == version)) {
    return absl::FailedPreconditionError(
        absl::StrCat("no transfer of version ", Show(version), " is open",
                     open_.has_value() ? absl::StrCat("; version ", Show(*open_), " is") : ""));
  }
  if (clock_.Now() > open_until_) {
    open_.reset();
    return absl::FailedPreconditionError(
        absl::StrCat("the transfer of version ", Show(version), " passed its deadline"));
  }
  return absl::OkStatus();
}

absl::Status WeightReceiver::Write(const Version& version, uint64_t offset_bytes, const char* bytes,
                                   size_t size) {
  std::lock_guard<std::mutex> lock(mutex_);
  REIN_RETURN_IF_ERROR(RequireOpen(version));
  const uint64_t arena_bytes = arenas_.plan().arena_bytes;
  if (size > arena_bytes || offset_bytes > arena_bytes - size) {
    return absl::OutOfRangeError(absl::StrCat("bytes ", offset_bytes, " to ", offset_bytes + size,
                                              " lie outside the arena of ", arena_bytes));
  }
  return arenas_.Write(offset_bytes, bytes, size);
}

absl::Status WeightReceiver::RequireNoneTaking() const {
  if (!taking_.has_value()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("version ", Show(*taking_), " is just being taken into use: try again later"));
}

absl::Status WeightReceiver::CompareDigests(const Version& version,
                                            const std::vector<uint64_t>& own,
                                            const std::vector<uint64_t>& digests) const {
  const auto& parameters = arenas_.plan().parameters;
  if (own.size() != digests.size()) {
    return absl::InvalidArgumentError(absl::StrCat("got ", digests.size(), " digests for ",
                                                   own.size(), " parameters"));
  }
  std::vector<std::string> differing;
  for (size_t i = 0; i < own.size(); ++i) {
    if (own[i] != digests[i]) differing.push_back(parameters[i].name);
  }
  if (differing.empty()) return absl::OkStatus();
  const size_t count = differing.size();
  differing.resize(std::min(count, kMaxNamed));
  return absl::DataLossError(absl::StrCat(
      "weights of version ", Show(version), " arrived changed: ", count, " of ", own.size(),
      " parameters have another digest (", absl::StrJoin(differing, ", "),
      count > kMaxNamed ? ", ..." : "", "); the old weights stay in use"));
}

absl::Status WeightReceiver::Commit(const Version& version, const std::vector<uint64_t>& digests,
                                    InFlight in_flight) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (current_.has_value() && *current_ == version && digest_ == CombineDigests(digests)) {
      return absl::OkStatus();
    }
    REIN_RETURN_IF_ERROR(RequireNoneTaking());
    REIN_RETURN_IF_ERROR(RequireOpen(version));
    REIN_ASSIGN_OR_RETURN(std::vector<uint64_t> own, arenas_.IdleDigests());
    open_.reset();
    REIN_RETURN_IF_ERROR(CompareDigests(version, own, digests));
    taking_ = version;
  }
  // Without the lock: it may wait for sequences that finish under the old weights.
  absl::Status taken = arenas_.TakeIntoUse(version, in_flight);
  std::lock_guard<std::mutex> lock(mutex_);
  taking_.reset();
  if (!taken.ok()) return taken;
  current_ = version;
  digest_ = CombineDigests(digests);
  return absl::OkStatus();
}

void WeightReceiver::Abort(const Version& version) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (open_.has_value() && *open_ == version) open_.reset();
}

std::optional<Version> WeightReceiver::current() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return current_;
}

uint64_t WeightReceiver::digest() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return digest_;
}

}  // namespace rein::weights
