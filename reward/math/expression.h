// Expression is what a mathematical answer says: numbers, symbols and structures as a tree.
//
// It is data: nothing in it can call anything. Its size is bounded by the parser.

#pragma once

#include <string>
#include <vector>

namespace rein::reward::math {

enum class Kind {
  kNumber,     // text: digits, at most one point, "(…)" around repeating digits: 12, 0.5, 0.1(6)
  kSymbol,     // text: its name, with a subscript: x, x_1, mathbb{R}
  kConstant,   // text: pi, e, i or infinity
  kText,       // text: words, lower case
  kAdd,        // sum of the kids
  kMultiply,   // product of the kids
  kDivide,     // kids: numerator, denominator
  kNegate,     // one kid
  kPlusMinus,  // one kid, with both signs: two values
  kPower,      // kids: base, exponent
  kCall,  // text: sqrt, root, log, sin, abs, floor, binomial, factorial, …; kids: its arguments
  kPercent,   // one kid, of a hundred
  kQuantity,  // text: a unit; one kid
  kBased,     // text: digits; one kid: the base they are written in
  kList,      // kids in any order: "1, 2", "x = 1 or x = 2"
  kSet,       // kids in any order, each once
  kTuple,  // text: its two brackets, "()", "[)", …; kids: the elements. Two: a point or an interval
  kUnion,     // text: cup, cap or setminus; kids: the sets
  kRelation,  // text: = < > <= >= != in, with spaces between; kids: one more than relations
  kRatio,     // kids: the parts of a : b : c
  kMatrix,    // text: its number of columns; kids: the elements, row by row
};

struct Node {
  Kind kind;
  std::string text;
  std::vector<int> kids;  // indices of Expression::nodes
};

struct Expression {
  std::vector<Node> nodes;
  int root = -1;  // -1: the text could not be read as mathematics
  // The words of the text without spaces and sizes: what is compared where nothing else can be.
  std::string spelling;
};

}  // namespace rein::reward::math
