#include "trainer/advantages/gae.h"

namespace rein::trainer {

Gae TokenGae(const TokenRows& token_reward, const TokenRows& value, const GaeSettings& settings) {
  Gae gae{token_reward, value};
  for (size_t i = 0; i < value.size(); ++i) {
    double next_value = 0, carry = 0;
    for (size_t t = value[i].size(); t-- > 0;) {
      const double delta = token_reward[i][t] + settings.gamma * next_value - value[i][t];
      carry = delta + settings.gamma * settings.lambda * carry;
      next_value = value[i][t];
      gae.advantage[i][t] = carry;
      gae.returns[i][t] = carry + value[i][t];
    }
  }
  return gae;
}

Gae TurnGae(const TokenRows& token_reward, const TokenRows& value,
            const std::vector<std::vector<int64_t>>& turn, const GaeSettings& settings,
            const std::vector<double>& last_value) {
  Gae gae{token_reward, value};
  for (size_t i = 0; i < value.size(); ++i) {
    double next_value = last_value.empty() ? 0 : last_value[i], carry = 0;
    for (size_t end = value[i].size(); end > 0;) {
      size_t begin = end;
      double reward = 0;
      while (begin > 0 && turn[i][begin - 1] == turn[i][end - 1]) reward += token_reward[i][--begin];
      const double first_value = value[i][begin];
      carry = reward + settings.gamma * next_value - first_value +
              settings.gamma * settings.lambda * carry;
      next_value = first_value;
      for (size_t t = begin; t < end; ++t) {
        gae.advantage[i][t] = carry;
        gae.returns[i][t] = carry + first_value;
      }
      end = begin;
    }
  }
  return gae;
}

}  // namespace rein::trainer
