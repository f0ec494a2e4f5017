#include "tests/golden/golden_case.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

namespace rein::trainer {
namespace {

using nlohmann::json;

void Flatten(const json& data, std::vector<double>* flat) {
  if (!data.is_array()) return flat->push_back(data.get<double>());
  for (const json& element : data) Flatten(element, flat);
}

at::Tensor ToTensor(const json& data) {
  std::vector<int64_t> shape;
  for (const json* level = &data; level->is_array(); level = &(*level)[0]) {
    shape.push_back(static_cast<int64_t>(level->size()));
  }
  std::vector<double> flat;
  Flatten(data, &flat);
  return at::tensor(flat, at::kDouble).view(shape);
}

}  // namespace

at::Tensor GoldenCase::Input(const std::string& role) const {
  const std::string kMask = "loss_mask_BT";
  if (poisoned && Has(kMask) && role != kMask && role.ends_with("_BT") && role != "label_BT") {
    GoldenCase plain = *this;
    plain.poisoned = false;
    return plain.Input(role).masked_fill(plain.Input(kMask).eq(0), std::nan(""));
  }
  return ToTensor((*file)["tensors"][body["inputs"][role].get<std::string>()]["data"]);
}

at::Tensor GoldenCase::InputOf(const std::string& role) const {
  return Has(role) ? Input(role) : at::Tensor();
}

at::Tensor GoldenCase::Expected(const std::string& key) const {
  return ToTensor(body["expected"][key]);
}

std::vector<GoldenCase> AllCases() {
  std::vector<std::string> paths = {"tests/golden/rl_math.json"};
  if (const char* folder = std::getenv("REIN_GOLDEN_DIR")) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".json") paths.push_back(entry.path());
    }
  }
  std::vector<GoldenCase> cases;
  for (const std::string& path : paths) {
    auto file = std::make_shared<json>(json::parse(std::ifstream(path)));
    if (!file->contains("cases")) continue;
    for (const json& body : (*file)["cases"]) cases.push_back({body["id"], body, file});
  }
  return cases;
}

void ExpectNear(const at::Tensor& actual, const at::Tensor& expected, const GoldenCase& c,
                const std::string& what) {
  const json tolerance = c.body.value("tolerance", (*c.file)["tolerance"]);
  const double rtol = tolerance["rtol"], atol = tolerance["atol"];
  ASSERT_EQ(actual.numel(), expected.numel()) << c.id << " " << what;
  at::Tensor a = actual.detach().to(at::kDouble).reshape({-1}), e = expected.reshape({-1});
  at::Tensor excess = (a - e).abs() - (atol + rtol * e.abs());
  // The packed form leaves out guards of 1e-8 in denominators.
  EXPECT_LE(excess.max().item<double>(), 2e-9) << c.id << " " << what << "\n" << a << e;
}

void ExpectNear(double actual, const GoldenCase& c, const std::string& key) {
  ExpectNear(at::scalar_tensor(actual, at::kDouble), c.Expected(key), c, key);
}

Mask::Mask(const at::Tensor& mask_BT)
    : keep(mask_BT.reshape({-1}).nonzero().squeeze(1)),
      shape(mask_BT.sizes().vec()),
      targets(mask_BT.sum(1)) {
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < shape[0]; ++b) lengths.push_back(targets[b].item<int64_t>());
  segments = Segments::Of(lengths, at::kCPU);
}

at::Tensor Mask::Packed(const at::Tensor& x_BT) const {
  return x_BT.reshape({-1}).index_select(0, keep);
}

at::Tensor Mask::Padded(const at::Tensor& x_N) const {
  return at::zeros({shape[0] * shape[1]}, x_N.options()).index_copy(0, keep, x_N).view(shape);
}

TokenRows Mask::Rows(const at::Tensor& x_BT) const {
  at::Tensor packed = Packed(x_BT).contiguous();
  const double* value = packed.const_data_ptr<double>();
  TokenRows rows(static_cast<size_t>(shape[0]));
  for (size_t b = 0; b < rows.size(); ++b) {
    const int64_t count = targets[static_cast<int64_t>(b)].item<int64_t>();
    rows[b].assign(value, value + count);
    value += count;
  }
  return rows;
}

at::Tensor Mask::Padded(const TokenRows& rows) const {
  std::vector<double> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return Padded(at::tensor(flat, at::kDouble));
}

at::Tensor Mask::Weights(Aggregation aggregation, const GlobalCounts& counts, int64_t begin, int64_t end) const {
  at::Tensor weight = at::zeros(shape, at::kDouble);
  for (int64_t b = begin; b < end; ++b) {
    weight[b].fill_(TokenWeight(aggregation, targets[b].item<int64_t>(), counts));
  }
  return Packed(weight);
}

GlobalCounts Mask::Counts() const {
  return {targets.sum().item<double>(), targets.gt(0).sum().item<double>(),
          static_cast<double>(shape[1])};
}

Aggregation AggregationOf(const GoldenCase& c) {
  static const std::map<std::string, Aggregation> kNames = {
      {"token-mean", Aggregation::kTokenMean},
      {"token-sum", Aggregation::kTokenSum},
      {"seq-mean-token-mean", Aggregation::kSequenceMean},
      {"seq-mean-token-sum", Aggregation::kSequenceSum},
      {"seq-mean-token-sum-norm", Aggregation::kSequenceSumFixed}};
  return kNames.at(c.Param<std::string>("aggregation"));
}

PolicyInputs::PolicyInputs(const GoldenCase& c)
    : mask(c.Input("loss_mask_BT")),
      leaf_BT(c.Input("policy_logprob_BT").requires_grad_(true)),
      policy(mask.Packed(leaf_BT)),
      old(mask.Packed(c.Input("old_logprob_BT"))) {
  if (c.Has("behaviour_logprob_BT")) behaviour = mask.Packed(c.Input("behaviour_logprob_BT"));
  advantage = mask.Packed(c.Has("advantage_BT")
                              ? c.Input("advantage_BT")
                              : c.Input("advantage_B").unsqueeze(1).expand(mask.shape));
}

void CheckLoss(const GoldenCase& c, const Mask& mask, const at::Tensor& loss_N, const at::Tensor& leaf,
               const std::string& gradient, Aggregation aggregation) {
  at::Tensor loss = (loss_N * mask.Weights(aggregation, mask.Counts(), 0, mask.shape[0])).sum();
  if (c.Expects("token_loss_BT")) {
    ExpectNear(mask.Padded(loss_N.detach()), c.Expected("token_loss_BT"), c, "token loss");
  }
  if (c.Expects("loss")) ExpectNear(loss, c.Expected("loss"), c, "loss");
  if (!c.Expects(gradient)) return;
  loss.backward();
  ExpectNear(leaf.grad(), c.Expected(gradient), c, gradient);
}

void RunChecks(const Checks& checks) {
  const std::map<std::string, Check> by_function(checks.begin(), checks.end());
  std::set<std::string> seen;
  for (const GoldenCase& c : AllCases()) {
    auto found = by_function.find(c.function());
    if (found == by_function.end()) continue;
    found->second(c);
    GoldenCase poisoned = c;
    poisoned.poisoned = true;
    poisoned.id += " with NaN at masked places";
    found->second(poisoned);
    seen.insert(c.function());
  }
  for (const auto& [function, check] : by_function) {
    EXPECT_EQ(seen.count(function), 1u) << "no case of " << function;
  }
}

}  // namespace rein::trainer
