#include "common/tensor/cuda_graph.h"

namespace rein::tensor {

class GraphPool {};

std::shared_ptr<GraphPool> NewGraphPool() { return std::make_shared<GraphPool>(); }

absl::StatusOr<std::unique_ptr<CapturedGraph>> CaptureGraph(std::shared_ptr<GraphPool>,
                                                            const std::function<void()>&) {
  return absl::UnimplementedError("CaptureGraph: this build has no CUDA");
}

}  // namespace rein::tensor
