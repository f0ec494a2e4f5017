#include "common/nn/expert_order.h"

#include <ATen/ATen.h>

namespace rein::nn {

ExpertOrder SortByExpert(const at::Tensor& expert_TK, int64_t experts) {
  at::Tensor expert_N = expert_TK.flatten();
  auto [sorted_N, choice_N] = expert_N.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
  at::Tensor place_N = at::empty_like(choice_N);
  place_N.index_copy_(0, choice_N, at::arange(choice_N.size(0), choice_N.options()));
  at::Tensor expert_E = at::arange(experts, expert_N.options());
  return {choice_N, place_N.view_as(expert_TK), at::searchsorted(sorted_N, expert_E, /*out_int32=*/true, /*right=*/true)};
}

}  // namespace rein::nn
