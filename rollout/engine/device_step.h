// DeviceStep runs the engine's steps on a GPU: one upload, the forward, the draws, one download. Nothing in Begin()
// waits for the GPU once its sizes are captured, so that the next step can be prepared and queued while one runs: the
// tokens that it draws stay on the device, where the next step's inputs name them by row.
//
// Steps that only decode are captured as CUDA graphs, one for each size of batch and of page table (both
// rounded up), at the second time that the size is seen; the rows that fill a size up are empty sequences.
// A captured step runs the same kernels on the same layout as one that is not, so its bits are the same.

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include "common/models/decoder.h"
#include "common/tensor/cuda_graph.h"
#include "rollout/engine/step_model.h"

namespace rein::rollout {

class DeviceStep {
 public:
  // `pages` must outlive it. `capture` false: every step is launched afresh.
  DeviceStep(std::vector<nn::KvPages>& pages, int64_t page_tokens, bool capture)
      : pages_(pages), page_tokens_(page_tokens), capture_(capture) {}

  // Queues one step without its page copies. Both throw c10::Error.
  void Begin(const models::Decoder& decoder, const StepBatch& batch);
  // Waits for the earliest step that was begun and not collected.
  Draws Collect();

  // How many sizes of step are captured.
  int64_t graphs() const;

 private:
  struct Sizes;   // of one step, rounded up
  struct Layout;  // where the inputs of a step stand in one buffer
  struct Inputs;  // the same as tensors of the device
  // token int64 [N], logprob fp32 [N], untempered fp32 [N], one behind the other.
  struct Outputs {
    at::Tensor logits_NV, packed;
  };
  // A step that was begun: where its draws will stand on the host.
  struct UnderWay {
    size_t buffer = 0;
    std::vector<int64_t> draw_row;  // of each draw, its row among `rows`
    int64_t rows = 0;
    bool untempered = false;
  };
  // Of every second step: they are written while the other's are read.
  struct HostBuffers {
    at::Tensor in, out;  // bytes, pinned
    c10::Event done{c10::DeviceType::CUDA};
  };
  struct Captured {
    bool refused = false;
    std::unique_ptr<tensor::CapturedGraph> graph;
    Outputs outputs;
  };
  using Key = std::tuple<const models::Decoder*, int64_t, int64_t, bool>;

  Inputs Upload(const StepBatch& batch, const Sizes& sizes);
  Outputs Launch(const models::Decoder& decoder, const Sizes& sizes, const Inputs& inputs);
  Outputs LaunchOrReplay(const models::Decoder& decoder, const Sizes& sizes, const Inputs& inputs);
  void DrawFiltered(const StepBatch& batch, const Sizes& sizes, const Outputs& outputs);
  void Download(const Sizes& sizes, const Outputs& outputs);

  std::vector<nn::KvPages>& pages_;
  const int64_t page_tokens_;
  const bool capture_;
  std::array<HostBuffers, 2> host_;
  size_t next_buffer_ = 0;
  std::deque<UnderWay> under_way_;
  std::vector<int64_t> last_draw_row_;  // of the last step begun
  // When one of these moves, all graphs are dropped.
  at::Tensor device_;  // bytes: the inputs
  at::Tensor drawn_;  // int64: what the last step draws, by row
  std::map<Key, Captured> graphs_;
  std::shared_ptr<tensor::GraphPool> pool_;
};

}  // namespace rein::rollout
