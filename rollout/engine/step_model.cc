#include "rollout/engine/step_model.h"

#include <utility>

namespace rein::rollout {

void AddTokens(int32_t first_page, int32_t page_tokens, const std::vector<int64_t>& sequence, size_t begin, size_t end,
               StepBatch& batch) {
  for (size_t t = begin; t < end; ++t) {
    batch.tokens.push_back(sequence[t]);
    batch.positions.push_back(static_cast<int64_t>(t));
    batch.slots.push_back(static_cast<int64_t>(t) + int64_t{first_page} * page_tokens);
  }
  batch.offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
  std::vector<int32_t> pages;
  for (int32_t page = 0; page * page_tokens < static_cast<int32_t>(end); ++page) pages.push_back(first_page + page);
  batch.pages.push_back(std::move(pages));
  batch.contexts.push_back(static_cast<int64_t>(end));
  batch.draws.push_back({static_cast<int64_t>(batch.tokens.size()) - 1, RowDraw()});
}

}  // namespace rein::rollout
