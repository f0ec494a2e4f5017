// The golden vectors of RL maths (tests/golden/rl_math.json, and each *.json of the folder named by
// REIN_GOLDEN_DIR), and the way from their padded [B, T] tensors with a mask to packed ones.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/advantages/token_rows.h"
#include "trainer/losses/aggregation.h"
#include "trainer/losses/segments.h"

namespace rein::trainer {

// One case with the tensors of its file.
struct GoldenCase {
  std::string id;
  nlohmann::json body;
  std::shared_ptr<const nlohmann::json> file;
  bool poisoned = false;  // token inputs are NaN wherever the mask is 0

  std::string function() const { return body["function"]; }
  bool Has(const std::string& role) const { return body["inputs"].contains(role); }
  at::Tensor Input(const std::string& role) const;
  at::Tensor InputOf(const std::string& role) const;  // undefined when there is none
  bool Expects(const std::string& key) const { return body["expected"].contains(key); }
  at::Tensor Expected(const std::string& key) const;
  bool HasParam(const std::string& key) const {
    return body["params"].contains(key) && !body["params"][key].is_null();
  }
  template <typename T>
  T Param(const std::string& key, T fallback = {}) const {
    return HasParam(key) ? body["params"][key].get<T>() : fallback;
  }
};

std::vector<GoldenCase> AllCases();

void ExpectNear(const at::Tensor& actual, const at::Tensor& expected, const GoldenCase& c,
                const std::string& what);
void ExpectNear(double actual, const GoldenCase& c, const std::string& key);

// A batch's mask, and the way between padded [B, T] and packed [N].
struct Mask {
  explicit Mask(const at::Tensor& mask_BT);

  at::Tensor Packed(const at::Tensor& x_BT) const;
  at::Tensor Padded(const at::Tensor& x_N) const;
  TokenRows Rows(const at::Tensor& x_BT) const;
  at::Tensor Padded(const TokenRows& rows) const;
  // Rows [begin, end) weigh, others have weight 0.
  at::Tensor Weights(Aggregation aggregation, const GlobalCounts& counts, int64_t begin, int64_t end) const;
  GlobalCounts Counts() const;

  at::Tensor keep;
  std::vector<int64_t> shape;
  at::Tensor targets;
  Segments segments;
};

Aggregation AggregationOf(const GoldenCase& c);

// The policy's log-probs as a leaf, and what else the policy losses take, packed.
struct PolicyInputs {
  explicit PolicyInputs(const GoldenCase& c);

  Mask mask;
  at::Tensor leaf_BT;  // requires a gradient
  at::Tensor policy, old, behaviour, advantage;
};

// loss = sum of weight * token loss; then the gradient by `leaf`, padded with zeros.
void CheckLoss(const GoldenCase& c, const Mask& mask, const at::Tensor& loss_N, const at::Tensor& leaf,
               const std::string& gradient, Aggregation aggregation);

using Check = void (*)(const GoldenCase&);
// The checks of one family, by function.
using Checks = std::vector<std::pair<std::string, Check>>;
// Runs every case of these functions, as it is and poisoned; each function must have one.
void RunChecks(const Checks& checks);

}  // namespace rein::trainer
