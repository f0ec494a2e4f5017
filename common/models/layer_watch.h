// LayerWatch sees what a forward pass computes, layer by layer, without changing it: while one lives, every
// Decoder::Hidden() of its thread tells it. For finding where two passes begin to differ.

#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace rein::models {

class LayerWatch {
 public:
  // The residual stream behind the embeddings, and behind each layer as what it was and what the layer adds to it
  // (undefined behind the embeddings); last the normed states, which the head reads. [T, D] each, on the device.
  using See = std::function<void(const at::Tensor& x_TD, const at::Tensor& delta_TD)>;

  // One at a time in a thread.
  explicit LayerWatch(See see);
  ~LayerWatch();
  LayerWatch(const LayerWatch&) = delete;
  LayerWatch& operator=(const LayerWatch&) = delete;

  // Does nothing where no watch lives in this thread.
  static void Tell(const at::Tensor& x_TD, const at::Tensor& delta_TD);

 private:
  const See see_;
};

}  // namespace rein::models
