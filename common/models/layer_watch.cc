#include "common/models/layer_watch.h"

#include <utility>

namespace rein::models {
namespace {

thread_local LayerWatch* watch_of_thread = nullptr;

}  // namespace

LayerWatch::LayerWatch(See see) : see_(std::move(see)) { watch_of_thread = this; }

LayerWatch::~LayerWatch() { watch_of_thread = nullptr; }

void LayerWatch::Tell(const at::Tensor& x_TD, const at::Tensor& delta_TD) {
  if (watch_of_thread != nullptr) watch_of_thread->see_(x_TD, delta_TD);
}

}  // namespace rein::models
