#include "common/tensor/cuda_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <utility>

#include "common/tensor/catch_torch.h"

namespace rein::tensor {

class GraphPool {
 public:
  at::cuda::MempoolId_t id = at::cuda::graph_pool_handle();
};

std::shared_ptr<GraphPool> NewGraphPool() { return std::make_shared<GraphPool>(); }

namespace {

class TorchGraph final : public CapturedGraph {
 public:
  explicit TorchGraph(std::shared_ptr<GraphPool> pool) : pool_(std::move(pool)) {}

  void Capture(const std::function<void()>& body) {
    c10::cuda::getCurrentCUDAStream().synchronize();
    c10::cuda::CUDAStreamGuard other(c10::cuda::getStreamFromPool());
    graph_.capture_begin(pool_->id, cudaStreamCaptureModeThreadLocal);
    try {
      body();
    } catch (...) {
      graph_.capture_end();
      throw;
    }
    graph_.capture_end();
  }
  void Replay() override { graph_.replay(); }

 private:
  std::shared_ptr<GraphPool> pool_;
  at::cuda::CUDAGraph graph_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CapturedGraph>> CaptureGraph(std::shared_ptr<GraphPool> pool,
                                                            const std::function<void()>& body) {
  auto graph = std::make_unique<TorchGraph>(std::move(pool));
  absl::Status status = CatchTorch("capture of a step", [&] { graph->Capture(body); });
  if (!status.ok()) return status;
  return graph;
}

}  // namespace rein::tensor
