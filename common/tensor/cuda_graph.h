// CapturedGraph records the GPU work of a function once and replays it without its host side.
//
// What the function touches must keep its address: memory that it allocates stays the graph's own, inputs
// are written where they were. The graphs of one GraphPool share memory, so that only one may be under way
// at a time and its outputs hold until the next replay.

#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::tensor {

class GraphPool;  // shared by graphs; made by NewGraphPool
std::shared_ptr<GraphPool> NewGraphPool();

class CapturedGraph {
 public:
  virtual ~CapturedGraph() = default;
  // On LibTorch's current stream. Throws c10::Error when CUDA refuses.
  virtual void Replay() = 0;
};

// Calls `body` once, on a stream of its own, while its launches are recorded and not run. UNIMPLEMENTED in
// a build without CUDA; INTERNAL when something in `body` cannot be recorded.
absl::StatusOr<std::unique_ptr<CapturedGraph>> CaptureGraph(std::shared_ptr<GraphPool> pool,
                                                            const std::function<void()>& body);

}  // namespace rein::tensor
