// WeightReceiver is the receiving end of a weight sync, whatever wire the bytes come over: it checks the
// plan, takes the bytes into the idle arena, compares digests and only then lets the weights be used.
//
//   Begin ( Write* Commit | Abort )         one transfer at a time; a newer Begin aborts the older
//
// Thread-safe.

#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/sync/clock.h"
#include "common/weights/weight_plan.h"

namespace rein::weights {

struct Version {
  uint64_t lineage = 0, number = 0;
  auto operator<=>(const Version&) const = default;
};

// What becomes of requests that are being generated when weights change; see rein.v1.InFlightPolicy.
enum class InFlight { kContinue, kFinish, kRecompute };

struct DeviceMemory {
  void* arena = nullptr;
  int device = 0;  // CUDA ordinal
};

// The memory of a role that receives weights: one arena in use, one idle.
class ReceivingArenas {
 public:
  virtual ~ReceivingArenas() = default;

  virtual const WeightPlan& plan() const = 0;
  // Into the idle arena; the range was checked.
  virtual absl::Status Write(uint64_t offset_bytes, const char* bytes, size_t size) = 0;
  // Where the idle arena is on a GPU; FAILED_PRECONDITION when it is in host memory.
  virtual absl::StatusOr<DeviceMemory> IdleDeviceMemory();
  // Of each parameter in the idle arena, in plan order.
  virtual absl::StatusOr<std::vector<uint64_t>> IdleDigests() = 0;
  // Swaps the arenas between two steps; returns once the idle one is in use.
  virtual absl::Status TakeIntoUse(const Version& version, InFlight in_flight) = 0;
};

class WeightReceiver {
 public:
  // Both must outlive the receiver.
  WeightReceiver(ReceivingArenas& arenas, const sync::Clock& clock)
      : arenas_(arenas), clock_(clock) {}

  // INVALID_ARGUMENT when the plan does not fit (see CheckPlan); FAILED_PRECONDITION when `version` is not
  // newer than the one in use within its lineage; UNAVAILABLE while a committed version waits to be taken
  // into use. Returns the version in use, unset before the first.
  absl::StatusOr<std::optional<Version>> Begin(const Version& version, const WeightPlan& plan,
                                               absl::Duration deadline);
  // FAILED_PRECONDITION when no transfer of this version is open; OUT_OF_RANGE beyond the arena.
  absl::Status Write(const Version& version, uint64_t offset_bytes, const char* bytes, size_t size);
  const WeightPlan& plan() const { return arenas_.plan(); }
  // Of the open transfer, for a transport that writes by itself.
  absl::StatusOr<DeviceMemory> IdleDeviceMemory() { return arenas_.IdleDeviceMemory(); }
  // DATA_LOSS names the first parameters whose digest differs; the transfer is then over and the old
  // weights stay. OK again for a version that is already in use with this digest. Returns once the weights
  // are in use; the other methods do not wait for that.
  absl::Status Commit(const Version& version, const std::vector<uint64_t>& digests,
                      InFlight in_flight);
  void Abort(const Version& version);

  std::optional<Version> current() const;
  uint64_t digest() const;  // of the weights in use; 0 before the first

 private:
  absl::Status RequireOpen(const Version& version);
  absl::Status RequireNoneTaking() const;
  // OK when the idle arena holds the bytes that the sender means.
  absl::Status CompareDigests(const Version& version, const std::vector<uint64_t>& own,
                              const std::vector<uint64_t>& digests) const;

  ReceivingArenas& arenas_;
  const sync::Clock& clock_;
  mutable std::mutex mutex_;
  std::optional<Version> current_, open_;
  std::optional<Version> taking_;  // committed, not yet in use
  absl::Time open_until_;
  uint64_t digest_ = 0;
};

}  // namespace rein::weights
