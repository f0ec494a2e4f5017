#include "common/kernels/host_staging.h"

#include <array>
#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "common/status/status_macros.h"

namespace rein::kernels {
namespace {

constexpr int64_t kAlignment = 256;

absl::Status Checked(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("offloaded optimizer: ", doing, ": ", cudaGetErrorString(error)));
}

class CudaStaging final : public HostStaging {
 public:
  CudaStaging(void* memory, int64_t slot_bytes) : memory_(static_cast<char*>(memory)), slot_bytes_(slot_bytes) {}

  ~CudaStaging() override {
    for (cudaStream_t stream : {in_, out_}) {
      if (stream != nullptr) cudaStreamDestroy(stream);
    }
    for (Slot& slot : slots_) {
      for (cudaEvent_t event : {slot.here, slot.computed, slot.back}) {
        if (event != nullptr) cudaEventDestroy(event);
      }
    }
  }

  absl::Status Open() {
    for (cudaStream_t* stream : {&in_, &out_}) {
      REIN_RETURN_IF_ERROR(Checked(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "making a stream"));
    }
    for (Slot& slot : slots_) {
      for (cudaEvent_t* event : {&slot.here, &slot.computed, &slot.back}) {
        REIN_RETURN_IF_ERROR(Checked(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "making an event"));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<void*>> Fetch(int slot, const std::vector<Part>& parts, void* stream) override {
    Slot& s = slots_[static_cast<size_t>(slot)];
    // An event that was never recorded is over at once.
    REIN_RETURN_IF_ERROR(Checked(cudaStreamWaitEvent(in_, s.back), "waiting for the slot"));
    s.parts = parts;
    s.places.clear();
    int64_t offset = 0;
    for (const Part& part : parts) {
      void* place = memory_ + slot * slot_bytes_ + offset;
      s.places.push_back(place);
      offset += (part.bytes + kAlignment - 1) / kAlignment * kAlignment;
      if (offset > slot_bytes_) return absl::InternalError("offloaded optimizer: a piece is larger than its slot");
      REIN_RETURN_IF_ERROR(
          Checked(cudaMemcpyAsync(place, part.host, static_cast<size_t>(part.bytes), cudaMemcpyHostToDevice, in_), "copy to the GPU"));
    }
    REIN_RETURN_IF_ERROR(Checked(cudaEventRecord(s.here, in_), "recording"));
    REIN_RETURN_IF_ERROR(Checked(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), s.here), "waiting for a piece"));
    return s.places;
  }

  absl::Status Return(int slot, void* stream) override {
    Slot& s = slots_[static_cast<size_t>(slot)];
    REIN_RETURN_IF_ERROR(Checked(cudaEventRecord(s.computed, static_cast<cudaStream_t>(stream)), "recording"));
    REIN_RETURN_IF_ERROR(Checked(cudaStreamWaitEvent(out_, s.computed), "waiting for the step"));
    for (size_t i = 0; i < s.parts.size(); ++i) {
      REIN_RETURN_IF_ERROR(Checked(cudaMemcpyAsync(s.parts[i].host, s.places[i], static_cast<size_t>(s.parts[i].bytes),
                                                   cudaMemcpyDeviceToHost, out_),
                                   "copy from the GPU"));
    }
    return Checked(cudaEventRecord(s.back, out_), "recording");
  }

  absl::Status Finish() override { return Checked(cudaStreamSynchronize(out_), "step"); }

 private:
  struct Slot {
    std::vector<Part> parts;
    std::vector<void*> places;
    cudaEvent_t here = nullptr, computed = nullptr, back = nullptr;
  };

  char* const memory_;
  const int64_t slot_bytes_;
  cudaStream_t in_ = nullptr, out_ = nullptr;
  std::array<Slot, 2> slots_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostStaging>> HostStaging::Create(void* memory, int64_t slot_bytes) {
  auto staging = std::make_unique<CudaStaging>(memory, slot_bytes);
  REIN_RETURN_IF_ERROR(staging->Open());
  return staging;
}

void* AllocatePinned(int64_t bytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, static_cast<size_t>(bytes)) == cudaSuccess) return memory;
  cudaGetLastError();
  return nullptr;
}

void FreePinned(void* memory) { cudaFreeHost(memory); }

}  // namespace rein::kernels
