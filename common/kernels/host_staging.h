// HostStaging brings pieces of pinned host memory to the device and back while the device computes on others.
//
//   for each piece k: void* on_device = Fetch(k % 2, parts, stream); launch on `stream`; Return(k % 2, stream);
//   Finish();
//
// Two slots: while one is computed on, the other's last piece goes back and its next one comes, on streams of their own,
// so that both directions of the bus and the device are busy. Of the device that is current. Not thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::kernels {

class HostStaging {
 public:
  struct Part {
    void* host = nullptr;  // pinned
    int64_t bytes = 0;
  };

  // `memory`: 2 * slot_bytes on the device, aligned to 256, which must outlive the object.
  static absl::StatusOr<std::unique_ptr<HostStaging>> Create(void* memory, int64_t slot_bytes);
  virtual ~HostStaging() = default;

  // Where the parts come to stand; `stream` waits for them. Together they fit a slot, each rounded up to 256 bytes.
  virtual absl::StatusOr<std::vector<void*>> Fetch(int slot, const std::vector<Part>& parts, void* stream) = 0;
  // Takes the slot's parts back once `stream` has done what it was given.
  virtual absl::Status Return(int slot, void* stream) = 0;
  // Waits until everything is back.
  virtual absl::Status Finish() = 0;
};

// Page-locked memory; null where there is none.
void* AllocatePinned(int64_t bytes);
void FreePinned(void* memory);

}  // namespace rein::kernels
