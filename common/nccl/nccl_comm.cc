#include "common/nccl/nccl_comm.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status/fatal.h"
#include "common/status/status_macros.h"

namespace rein::nccl {
namespace {

constexpr absl::Duration kPoll = absl::Microseconds(100);
constexpr uint64_t kBucketBytes = 256 << 20;  // one ncclBroadcast: between two the deadline is seen

absl::Status FromCuda(const char* what, cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  return Fatal(absl::UnavailableError(absl::StrCat(what, ": ", cudaGetErrorString(error))));
}

absl::Status FromNccl(const char* what, ncclResult_t result) {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", ncclGetErrorString(result)));
}

class Comm final : public NcclComm {
 public:
  explicit Comm(const NcclPlace& place) : place_(place) {}
  ~Comm() override {
    Abort();
    if (event_ != nullptr) cudaEventDestroy(event_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Init(absl::Time deadline) {
    ncclUniqueId id;
    if (place_.id.size() != sizeof(id.internal)) {
      return absl::InvalidArgumentError(absl::StrCat("NCCL id has ", place_.id.size(),
                                                     " bytes, want ", sizeof(id.internal)));
    }
    std::memcpy(id.internal, place_.id.data(), sizeof(id.internal));
    REIN_RETURN_IF_ERROR(FromCuda("cudaSetDevice", cudaSetDevice(place_.device)));
    REIN_RETURN_IF_ERROR(
        FromCuda("cudaStreamCreate", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)));
    REIN_RETURN_IF_ERROR(
        FromCuda("cudaEventCreate", cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    REIN_RETURN_IF_ERROR(
        FromNccl("ncclCommInitRank",
                 ncclCommInitRankConfig(&comm_, place_.size, id, place_.rank, &config)));
    return Settle("joining of the communicator", deadline);
  }

  void* own_stream() const override { return stream_; }

  absl::Status Broadcast(void* data, uint64_t bytes, int root, void* stream,
                         absl::Time deadline) override {
    auto* on = static_cast<cudaStream_t>(stream);
    for (uint64_t offset = 0; offset < bytes; offset += kBucketBytes) {
      char* bucket = static_cast<char*>(data) + offset;
      const uint64_t size = std::min(kBucketBytes, bytes - offset);
      REIN_RETURN_IF_ERROR(Enqueue("broadcast", deadline, [&] {
        return ncclBroadcast(bucket, bucket, size, ncclChar, root, comm_, on);
      }));
    }
    return Finish("broadcast", on, deadline);
  }

  absl::Status AllReduceSum(void* data, uint64_t count, NcclType type, void* stream,
                            absl::Time deadline) override {
    auto* on = static_cast<cudaStream_t>(stream);
    const ncclDataType_t nccl_type = type == NcclType::kFloat32 ? ncclFloat32 : ncclFloat64;
    REIN_RETURN_IF_ERROR(Enqueue("all-reduce", deadline, [&] {
      return ncclAllReduce(data, data, count, nccl_type, ncclSum, comm_, on);
    }));
    return Finish("all-reduce", on, deadline);
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

  // Issues one collective, and waits until NCCL has taken it.
  absl::Status Enqueue(const char* what, absl::Time deadline,
                       const std::function<ncclResult_t()>& issue) {
    REIN_RETURN_IF_ERROR(FromCuda("cudaSetDevice", cudaSetDevice(place_.device)));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (comm_ == nullptr) return Aborted();
      REIN_RETURN_IF_ERROR(FromNccl(what, issue()));
    }
    return Settle(what, deadline);
  }

  // Waits until the stream has done its work.
  absl::Status Finish(const char* what, cudaStream_t stream, absl::Time deadline) {
    REIN_RETURN_IF_ERROR(FromCuda("cudaEventRecord", cudaEventRecord(event_, stream)));
    while (true) {
      cudaError_t state = cudaEventQuery(event_);
      if (state == cudaSuccess) return absl::OkStatus();
      if (state != cudaErrorNotReady) return FromCuda(what, state);
      REIN_RETURN_IF_ERROR(Settle(what, deadline));
      REIN_RETURN_IF_ERROR(Pause(what, deadline));
    }
  }

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
    absl::Status status = place_.alive ? place_.alive() : absl::OkStatus();
    if (absl::Now() > deadline) {
      status = absl::DeadlineExceededError(absl::StrCat(
          what, " among ", place_.size, " ranks missed its deadline (rank ", place_.rank, ")"));
    }
    if (!status.ok()) Abort();
    absl::SleepFor(kPoll);
    return status;
  }

  const NcclPlace place_;
  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

absl::StatusOr<std::string> NcclComm::NewId() {
  ncclUniqueId id;
  REIN_RETURN_IF_ERROR(FromNccl("ncclGetUniqueId", ncclGetUniqueId(&id)));
  return std::string(id.internal, sizeof(id.internal));
}

absl::StatusOr<std::unique_ptr<NcclComm>> NcclComm::Join(const NcclPlace& place,
                                                         absl::Time deadline) {
  auto comm = std::make_unique<Comm>(place);
  REIN_RETURN_IF_ERROR(comm->Init(deadline));
  return comm;
}

}  // namespace rein::nccl
