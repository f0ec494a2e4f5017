// rein-gpu-bench sync

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>

#include "common/models/arena.h"
#include "common/models/decoder_parameters.h"
#include "common/weights/channel/weight_channel.h"
#include "tests/bench/gpu_bench.h"
#include "tests/gpu/weight_receiver_process.h"

namespace rein::gpu {

using std::chrono::steady_clock;

void Sync(const ShapeOfModel& shape, const std::string& way, int64_t gpu) {
  const std::string folder = WriteModelFolder(shape);
  const auto model = models::DescribeModel(folder);
  if (!model.ok()) Die(std::string(model.status().message()));
  const auto registry = *weights::Registry::Create(models::DecoderParameters(model->spec));
  const at::TensorOptions bf16 = at::TensorOptions(at::Device(at::kCUDA, 0)).dtype(at::kBFloat16);
  at::Tensor arena = at::empty({registry.arena_elements()}, bf16);
  // On one GPU ranks must seem to be on hosts of their own, and go through sockets.
  if (gpu == 0) setenv("NCCL_HOSTID", "sender", 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  WeightReceiverProcess receiver(gpu == 0 ? "receiver" : "", {folder, std::to_string(gpu)});
  const auto channel = way == "ipc" ? weights::IpcWeightChannel() : weights::NcclWeightChannel();
  std::vector<double> digest, sent;
  for (uint64_t i = 0; i < 12; ++i) {
    arena.normal_();
    Wait();
    const auto begin = steady_clock::now();
    weights::Publication p;
    p.version = {1, i};
    p.fence.set_request_id("publish-" + std::to_string(i));
    p.fence.set_controller_epoch(1);
    p.plan = weights::PlanOf(registry, "bfloat16");
    p.digests = *models::ArenaDigests(registry, arena);
    p.arena = arena.mutable_data_ptr();
    p.deadline = absl::Seconds(60);
    const double own = Seconds(begin);
    const absl::Status status = channel->Send(p, {receiver.Address()})[0].status;
    if (!status.ok()) Die(std::string(status.message()));
    if (i < 2) continue;  // communicators, and mappings
    digest.push_back(1e3 * own);
    sent.push_back(1e3 * (Seconds(begin) - own));
  }
  at::Tensor there = at::empty({arena.numel()}, bf16.device(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(gpu))));
  double copy = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto begin = steady_clock::now();
    there.copy_(arena);
    Wait();
    copy = std::min(copy, 1e3 * Seconds(begin));
  }
  for (auto* times : {&digest, &sent}) std::sort(times->begin(), times->end());
  const double bytes = 2.0 * static_cast<double>(arena.numel()), all = digest[5] + sent[5];
  Print({{"bench", "sync"}, {"shape", shape.name}, {"way", way}, {"gpu", gpu}, {"bytes", bytes}, {"digest_ms", digest[5]},
         {"send_ms", sent[5]}, {"sync_ms", all}, {"gb_per_second", bytes / all * 1e-6}, {"plain_copy_ms", copy}});
}

}  // namespace rein::gpu
