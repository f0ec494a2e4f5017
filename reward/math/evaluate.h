// Evaluation of expressions at chosen points, by which two of them are compared.
//
// Two ways. Residues modulo the prime 2^61 - 1, symbols and pi and e being random residues: two
// rational functions that agree at a few points are the same but for a chance below 2^-50 (Schwartz
// 1980, Zippel 1979), and there is no rounding. And complex doubles that carry a bound of their
// rounding error, for roots, logarithms and the like. Every visit of a node takes one step of a
// budget; without steps left there is no value.

#pragma once

#include <complex>
#include <cstdint>
#include <optional>

#include "reward/math/expression.h"

namespace rein::reward::math {

struct Approximate {
  std::complex<double> value;
  double error = 0;  // bound of |value - exact|, not counting decimals that were written rounded
};

// A node of an expression, with the sign that its +- has: +1 or -1.
struct View {
  const Expression* expression;
  int node;
  int sign = 1;

  const Node& operator*() const { return expression->nodes[node]; }
  View Kid(size_t i) const { return {expression, expression->nodes[node].kids[i], sign}; }
};

class Evaluator {
 public:
  explicit Evaluator(int64_t steps) : steps_(steps) {}

  // nullopt for what is no rational function of its symbols, divides by 0, or has whole exponents
  // beyond 10,000.
  std::optional<uint64_t> Residue(View view, int point);

  // nullopt for what has no finite value there. Points from 3 on give some symbols negative values.
  std::optional<Approximate> Value(View view, int point);

  // Whether steps are left.
  bool alive() const { return steps_ > 0; }
  bool Step() { return --steps_ > 0; }

  static constexpr int kPoints = 5;

 private:
  std::optional<uint64_t> ResidueOfCall(View view, int point);
  std::optional<Approximate> ValueOfCall(View view, int point);

  int64_t steps_;
};

}  // namespace rein::reward::math
