#include "common/weights/channel/nccl_member.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status/status_macros.h"

namespace rein::weights {
namespace {

constexpr absl::Duration kPoll = absl::Microseconds(100);

absl::Status FromCuda(const char* what, cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

absl::Status FromNccl(const char* what, ncclResult_t result) {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", ncclGetErrorString(result)));
}

class Member final : public NcclMember {
 public:
  explicit Member(const NcclPlace& place) : place_(place) {}
  ~Member() override {
    Abort();
    if (event_ != nullptr) cudaEventDestroy(event_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Init(absl::Time deadline) {
    ncclUniqueId id;
    if (place_.id.size() != sizeof(id.internal)) {
      return absl::InvalidArgumentError(absl::StrCat("NCCL id has ", place_.id.size(), " bytes, want ",
                                                     sizeof(id.internal)));
    }
    std::memcpy(id.internal, place_.id.data(), sizeof(id.internal));
    REIN_RETURN_IF_ERROR(FromCuda("cudaSetDevice", cudaSetDevice(place_.device)));
    REIN_RETURN_IF_ERROR(
        FromCuda("cudaStreamCreate", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)));
    REIN_RETURN_IF_ERROR(
        FromCuda("cudaEventCreate", cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    REIN_RETURN_IF_ERROR(FromNccl("ncclCommInitRank", ncclCommInitRankConfig(&comm_, place_.size, id,
                                                                             place_.rank, &config)));
    return Settle("joining of the communicator", deadline);
  }

  absl::Status Broadcast(void* arena, uint64_t bytes, absl::Time deadline) override {
    REIN_RETURN_IF_ERROR(FromCuda("cudaSetDevice", cudaSetDevice(place_.device)));
    for (uint64_t offset = 0; offset < bytes; offset += kBucketBytes) {
      char* bucket = static_cast<char*>(arena) + offset;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (comm_ == nullptr) return Aborted();
        REIN_RETURN_IF_ERROR(FromNccl(
            "ncclBroadcast", ncclBroadcast(bucket, bucket, std::min(kBucketBytes, bytes - offset),
                                           ncclChar, /*root=*/0, comm_, stream_)));
      }
      REIN_RETURN_IF_ERROR(Settle("broadcast", deadline));
    }
    REIN_RETURN_IF_ERROR(FromCuda("cudaEventRecord", cudaEventRecord(event_, stream_)));
    while (true) {
      cudaError_t state = cudaEventQuery(event_);
      if (state == cudaSuccess) return absl::OkStatus();
      if (state != cudaErrorNotReady) return FromCuda("broadcast", state);
      REIN_RETURN_IF_ERROR(Settle("broadcast", deadline));
      REIN_RETURN_IF_ERROR(Pause("broadcast", deadline));
    }
  }

  void Abort() override {
    ncclComm_t comm;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      comm = std::exchange(comm_, nullptr);
    }
    if (comm != nullptr) ncclCommAbort(comm);
  }

 private:
  static absl::Status Aborted() { return absl::CancelledError("the communicator was aborted"); }

  // Polls until no call is in progress.
  absl::Status Settle(const char* what, absl::Time deadline) {
    while (true) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (comm_ == nullptr) return Aborted();
        ncclResult_t state = ncclSuccess;
        REIN_RETURN_IF_ERROR(FromNccl(what, ncclCommGetAsyncError(comm_, &state)));
        if (state == ncclSuccess) return absl::OkStatus();
        REIN_RETURN_IF_ERROR(FromNccl(what, state));
      }
      REIN_RETURN_IF_ERROR(Pause(what, deadline));
    }
  }

  absl::Status Pause(const char* what, absl::Time deadline) {
    if (absl::Now() > deadline) {
      Abort();
      return absl::DeadlineExceededError(absl::StrCat(what, " among ", place_.size,
                                                      " ranks missed its deadline (rank ",
                                                      place_.rank, ")"));
    }
    absl::SleepFor(kPoll);
    return absl::OkStatus();
  }

  const NcclPlace place_;
  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

absl::StatusOr<std::string> NcclMember::NewId() {
  ncclUniqueId id;
  REIN_RETURN_IF_ERROR(FromNccl("ncclGetUniqueId", ncclGetUniqueId(&id)));
  return std::string(id.internal, sizeof(id.internal));
}

absl::StatusOr<std::unique_ptr<NcclMember>> NcclMember::Join(const NcclPlace& place,
                                                             absl::Time deadline) {
  auto member = std::make_unique<Member>(place);
  REIN_RETURN_IF_ERROR(member->Init(deadline));
  return member;
}

}  // namespace rein::weights
