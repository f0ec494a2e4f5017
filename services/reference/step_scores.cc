#include "services/reference/step_scores.h"

#include <algorithm>
#include <cmath>

namespace rein::services {
namespace {

bool Blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace

std::vector<StepText> SplitSteps(std::string_view completion, std::string_view separator) {
  std::vector<StepText> steps;
  for (size_t begin = 0; begin <= completion.size();) {
    const size_t end = std::min(completion.find(separator, begin), completion.size());
    const std::string_view piece = completion.substr(begin, end - begin);
    if (!Blank(piece)) steps.push_back({piece, end});
    begin = end + separator.size();
  }
  if (steps.empty()) steps.push_back({completion, completion.size()});
  return steps;
}

v1::RewardResult ResultOfSteps(const std::vector<float>& scores, const std::vector<uint32_t>& ends,
                               v1::StepReduction reduction) {
  std::vector<double> chances;
  double least = 1, product = 1, sum = 0;
  for (float score : scores) {
    chances.push_back(1 / (1 + std::exp(-static_cast<double>(score))));
    least = std::min(least, chances.back());
    product *= chances.back();
    sum += chances.back();
  }
  v1::RewardResult result;
  switch (reduction) {
    case v1::STEP_REDUCTION_PRODUCT:
      result.set_reward(product);
      return result;
    case v1::STEP_REDUCTION_LAST:
      result.set_reward(chances.back());
      return result;
    case v1::STEP_REDUCTION_MEAN:
    case v1::STEP_REDUCTION_SUM:
      break;
    default:
      result.set_reward(least);
      return result;
  }
  const double share = reduction == v1::STEP_REDUCTION_MEAN ? 1 / static_cast<double>(chances.size()) : 1;
  result.set_reward(sum * share);
  for (size_t i = 0; i < chances.size(); ++i) {
    v1::StepReward* step = result.add_steps();
    step->set_end(ends[i]);
    step->set_reward(share * chances[i]);
  }
  return result;
}

}  // namespace rein::services
