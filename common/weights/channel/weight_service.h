// Serves rein.v1.WeightService for a role that receives weights; the work is WeightReceiver's.
// Thread-safe.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "common/rpc/fence_guard.h"
#include "common/weights/channel/broadcast_receiver.h"
#include "common/weights/channel/sync_metrics.h"
#include "common/weights/weight_receiver.h"
#include "rein/v1/weights.grpc.pb.h"

namespace rein::weights {

class WeightServiceImpl final : public v1::WeightService::Service {
 public:
  // `find` gives the receiver of the loaded model, null before one is loaded. `metrics` may be null;
  // `on_error` gets every error of the receiver's own, and may be empty. All must outlive the service.
  WeightServiceImpl(std::function<std::shared_ptr<WeightReceiver>()> find, rpc::FenceGuard& fence,
                    SyncMetrics* metrics = nullptr,
                    std::function<void(const absl::Status&)> on_error = nullptr)
      : find_(std::move(find)), fence_(fence), metrics_(metrics), on_error_(std::move(on_error)) {}

  grpc::Status BeginWeights(grpc::ServerContext* context, const v1::BeginWeightsRequest* request,
                            v1::BeginWeightsReply* reply) override;
  grpc::Status SendWeights(grpc::ServerContext* context,
                           grpc::ServerReader<v1::WeightChunk>* reader,
                           v1::SendWeightsReply* reply) override;
  grpc::Status CommitWeights(grpc::ServerContext* context, const v1::CommitWeightsRequest* request,
                             v1::CommitWeightsReply* reply) override;
  grpc::Status AbortWeights(grpc::ServerContext* context, const v1::AbortWeightsRequest* request,
                            v1::AbortWeightsReply* reply) override;

 private:
  absl::StatusOr<std::shared_ptr<WeightReceiver>> Admit(const v1::Fence& fence);
  absl::Status Begin(WeightReceiver& receiver, const v1::BeginWeightsRequest& request,
                     v1::BeginWeightsReply* reply);
  absl::Status Commit(WeightReceiver& receiver, const v1::CommitWeightsRequest& request);
  // The sync is over with this error.
  grpc::Status Failed(const absl::Status& status);

  std::function<std::shared_ptr<WeightReceiver>()> find_;
  rpc::FenceGuard& fence_;
  SyncMetrics* const metrics_;
  const std::function<void(const absl::Status&)> on_error_;
  BroadcastReceiver broadcast_;
  std::atomic<bool> nccl_open_ = false;  // a broadcast was started and not yet taken or given up
};

}  // namespace rein::weights
