// DeviceStep runs the engine's steps on a GPU: one upload, the forward, the draws, one download.
//
// Steps that only decode are captured as CUDA graphs, one for each size of batch and of page table (both
// rounded up), at the second time that the size is seen; the rows that fill a size up are empty sequences.
// A captured step runs the same kernels on the same layout as one that is not, so its bits are the same.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "common/tensor/cuda_graph.h"
#include "rollout/engine/step_model.h"

namespace rein::rollout {

class DeviceStep {
 public:
  // `pages` must outlive it. `capture` false: every step is launched afresh.
  DeviceStep(std::vector<nn::KvPages>& pages, int64_t page_tokens, bool capture)
      : pages_(pages), page_tokens_(page_tokens), capture_(capture) {}

  // One step without its page copies. Throws c10::Error.
  Draws Run(const models::Decoder& decoder, const StepBatch& batch);

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
  struct Captured {
    bool refused = false;
    std::unique_ptr<tensor::CapturedGraph> graph;
    Outputs outputs;
  };
  using Key = std::tuple<const models::Decoder*, int64_t, int64_t, bool>;

  Inputs Upload(const StepBatch& batch, const Sizes& sizes);
  Outputs Launch(const models::Decoder& decoder, const Sizes& sizes, const Inputs& inputs);
  Outputs LaunchOrReplay(const models::Decoder& decoder, const Sizes& sizes, const Inputs& inputs);
  void DrawFiltered(const StepBatch& batch, const Sizes& sizes, const at::Tensor& logits_NV,
                    Draws& draws);
  Draws Download(const StepBatch& batch, const Sizes& sizes, const Outputs& outputs);

  std::vector<nn::KvPages>& pages_;
  const int64_t page_tokens_;
  const bool capture_;
  at::Tensor host_in_, host_out_;  // bytes, pinned
  at::Tensor device_;              // bytes; when it moves, all graphs are dropped
  std::map<Key, Captured> graphs_;
  std::shared_ptr<tensor::GraphPool> pool_;
};

}  // namespace rein::rollout
