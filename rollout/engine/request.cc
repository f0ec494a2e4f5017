#include "rollout/engine/request.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::rollout {

absl::StatusOr<std::shared_ptr<Request>> MakeRequest(GenerateSpec spec, RequestCallbacks callbacks,
                                                     const StepModelLimits& limits,
                                                     const text::ModelText& text) {
  if (spec.siblings.empty())
    return absl::InvalidArgumentError("siblings is empty, want at least 1");
  std::set<uint32_t> distinct(spec.siblings.begin(), spec.siblings.end());
  if (distinct.size() != spec.siblings.size()) {
    return absl::InvalidArgumentError("siblings holds the same number twice");
  }
  for (size_t i = 0; i < spec.prompt.size(); ++i) {
    if (spec.prompt[i] < limits.vocabulary_size) continue;
    return absl::InvalidArgumentError(absl::StrCat("prompt token ", i, " is ", spec.prompt[i],
                                                   ", want an id below the vocabulary size ",
                                                   limits.vocabulary_size));
  }
  for (uint32_t id : spec.sampling.stop_token_ids) {
    if (id < limits.vocabulary_size) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "stop token ", id, " is not below the vocabulary size ", limits.vocabulary_size));
  }
  const uint64_t room =
      uint64_t{static_cast<uint32_t>(limits.pages - 1)} * static_cast<uint32_t>(limits.page_tokens);
  const uint32_t max_length = static_cast<uint32_t>(std::min<uint64_t>(limits.max_length, room));
  REIN_ASSIGN_OR_RETURN(StopCheck check,
                        StopCheck::Create(spec.sampling, text,
                                          static_cast<uint32_t>(spec.prompt.size()), max_length));
  const size_t siblings = spec.siblings.size();
  return std::make_shared<Request>(Request{.spec = std::move(spec),
                                           .callbacks = std::move(callbacks),
                                           .fresh_check = std::move(check),
                                           .unfinished = siblings});
}

}  // namespace rein::rollout
