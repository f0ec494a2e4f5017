#include "common/weights/channel/ipc_memory.h"

#include <cstring>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/status/status_macros.h"

namespace rein::weights {
namespace {

absl::Status Checked(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  return absl::InternalError(absl::StrCat("weights by CUDA IPC: ", doing, ": ", cudaGetErrorString(error)));
}

absl::Status CannotShare(cudaError_t error, const char* doing) {
  const absl::Status status = Checked(error, doing);
  return status.ok() ? status : absl::UnimplementedError(status.message());
}

// The allocation that holds the address.
absl::StatusOr<CUdeviceptr> BaseOf(void* memory) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  REIN_RETURN_IF_ERROR(CannotShare(cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &entry, 12000, cudaEnableDefault, &found),
                                   "finding the driver"));
  if (entry == nullptr) return absl::UnimplementedError("weights by CUDA IPC: the driver knows no cuMemGetAddressRange");
  CUdeviceptr base = 0;
  size_t bytes = 0;
  using Range = CUresult (*)(CUdeviceptr*, size_t*, CUdeviceptr);
  if (reinterpret_cast<Range>(entry)(&base, &bytes, reinterpret_cast<CUdeviceptr>(memory)) != CUDA_SUCCESS) {
    return absl::UnimplementedError("weights by CUDA IPC: the address belongs to no allocation");
  }
  return base;
}

}  // namespace

absl::StatusOr<IpcMemory> ShareMemory(void* memory, int device) {
  REIN_RETURN_IF_ERROR(Checked(cudaSetDevice(device), "choosing the GPU"));
  REIN_ASSIGN_OR_RETURN(CUdeviceptr base, BaseOf(memory));
  cudaIpcMemHandle_t handle;
  REIN_RETURN_IF_ERROR(CannotShare(cudaIpcGetMemHandle(&handle, memory), "sharing memory"));
  // What the trainer has begun must be in the memory before another process reads it.
  REIN_RETURN_IF_ERROR(Checked(cudaDeviceSynchronize(), "waiting for the weights"));
  return IpcMemory{std::string(reinterpret_cast<const char*>(&handle), sizeof(handle)),
                   static_cast<uint64_t>(reinterpret_cast<CUdeviceptr>(memory) - base)};
}

absl::Status CopyFromShared(const IpcMemory& from, void* to, uint64_t bytes, int device) {
  cudaIpcMemHandle_t handle;
  if (from.handle.size() != sizeof(handle)) {
    return absl::InvalidArgumentError(absl::StrCat("ipc_handle has ", from.handle.size(), " bytes, want ", sizeof(handle)));
  }
  std::memcpy(&handle, from.handle.data(), sizeof(handle));
  REIN_RETURN_IF_ERROR(Checked(cudaSetDevice(device), "choosing the GPU"));
  void* base = nullptr;
  REIN_RETURN_IF_ERROR(CannotShare(cudaIpcOpenMemHandle(&base, handle, cudaIpcMemLazyEnablePeerAccess), "mapping memory"));
  cudaStream_t stream = nullptr;
  absl::Status status = Checked(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  if (status.ok()) {
    status = Checked(cudaMemcpyAsync(to, static_cast<char*>(base) + from.offset, bytes, cudaMemcpyDeviceToDevice, stream), "copying");
  }
  if (status.ok()) status = Checked(cudaStreamSynchronize(stream), "copying");
  if (stream != nullptr) cudaStreamDestroy(stream);
  status.Update(Checked(cudaIpcCloseMemHandle(base), "unmapping memory"));
  return status;
}

}  // namespace rein::weights
