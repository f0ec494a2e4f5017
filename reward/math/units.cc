#include "reward/math/units.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <unordered_map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace rein::reward::math {
namespace {

struct Known {
  const char* names;  // with spaces between
  const char* dimension;
  int power;
  double factor;
};

constexpr double kFoot = 0.3048;

constexpr std::array<Known, 65> kUnits = {{
    {"m meter metre", "meter", 1, 1},
    {"cm centimeter centimetre", "meter", 1, 0.01},
    {"mm millimeter millimetre", "meter", 1, 0.001},
    {"km kilometer kilometre", "meter", 1, 1000},
    {"nm nanometer", "meter", 1, 1e-9},
    {"inch inches in", "meter", 1, kFoot / 12},
    {"ft foot feet", "meter", 1, kFoot},
    {"yd yard", "meter", 1, 3 * kFoot},
    {"mi mile", "meter", 1, 5280 * kFoot},
    {"g gram", "gram", 1, 1},
    {"kg kilogram", "gram", 1, 1000},
    {"mg milligram", "gram", 1, 0.001},
    {"lb lbs pound", "gram", 1, 453.59237},
    {"oz ounce", "gram", 1, 28.349523125},
    {"tonne", "gram", 1, 1e6},
    {"ton", "ton", 1, 1},
    {"s sec second", "second", 1, 1},
    {"ms millisecond", "second", 1, 0.001},
    {"min minute", "second", 1, 60},
    {"h hr hour", "second", 1, 3600},
    {"day", "second", 1, 86400},
    {"week", "second", 1, 604800},
    {"month", "month", 1, 1},
    {"year yr", "month", 1, 12},
    {"dollar usd buck", "dollar", 1, 1},
    {"cent penny pennies", "dollar", 1, 0.01},
    {"euro", "euro", 1, 1},
    {"pounds-sterling", "pounds-sterling", 1, 1},
    {"degree deg", "degree", 1, 1},
    {"radian rad", "radian", 1, 1},
    {"l liter litre", "meter", 3, 0.001},
    {"ml milliliter millilitre", "meter", 3, 1e-6},
    {"gallon gal", "gallon", 1, 1},
    {"quart", "gallon", 1, 0.25},
    {"pint", "gallon", 1, 0.125},
    {"cup", "gallon", 1, 0.0625},
    {"acre", "acre", 1, 1},
    {"hectare", "meter", 2, 1e4},
    {"n newton", "newton", 1, 1},
    {"j joule", "joule", 1, 1},
    {"kj kilojoule", "joule", 1, 1000},
    {"cal calorie", "calorie", 1, 1},
    {"kcal kilocalorie", "calorie", 1, 1000},
    {"w watt", "watt", 1, 1},
    {"kw kilowatt", "watt", 1, 1000},
    {"pa pascal", "pascal", 1, 1},
    {"kpa kilopascal", "pascal", 1, 1000},
    {"atm atmosphere", "atmosphere", 1, 1},
    {"v volt", "volt", 1, 1},
    {"a amp ampere", "ampere", 1, 1},
    {"ohm", "ohm", 1, 1},
    {"hz hertz", "hertz", 1, 1},
    {"khz kilohertz", "hertz", 1, 1000},
    {"mol mole", "mole", 1, 1},
    {"mmol millimole", "mole", 1, 0.001},
    {"k kelvin", "kelvin", 1, 1},
    {"celsius", "celsius", 1, 1},
    {"fahrenheit", "fahrenheit", 1, 1},
    {"bit", "bit", 1, 1},
    {"byte", "bit", 1, 8},
    {"dozen", "unit", 0, 12},
    {"ev electronvolt", "electronvolt", 1, 1},
    {"c coulomb", "coulomb", 1, 1},
    {"t tesla", "tesla", 1, 1},
    {"people person persons", "person", 1, 1},
}};

const std::unordered_map<std::string, const Known*>& Table() {
  static const auto& table = *[] {
    auto* all = new std::unordered_map<std::string, const Known*>;
    for (const Known& unit : kUnits) {
      std::string name;
      for (const char* c = unit.names;; ++c) {
        if (*c != ' ' && *c != '\0') {
          name += *c;
          continue;
        }
        (*all)[name] = &unit;
        name.clear();
        if (*c == '\0') break;
      }
    }
    return all;
  }();
  return table;
}

const Known* Find(const std::string& word) {
  auto found = Table().find(word);
  if (found == Table().end() && word.size() > 2 && word.back() == 's') {
    found = Table().find(word.substr(0, word.size() - 1));
  }
  return found == Table().end() ? nullptr : found->second;
}

std::string Singular(std::string word) {
  if (word.size() > 4 && absl::EndsWith(word, "ies")) {
    return absl::StrCat(word.substr(0, word.size() - 3), "y");
  }
  if (word.size() > 3 && word.back() == 's' && word[word.size() - 2] != 's') word.pop_back();
  return word;
}

bool IsFiller(const std::string& word) {
  for (const char* filler :
       {"unit", "units", "of", "the", "a", "approximately", "about", "total"}) {
    if (word == filler) return true;
  }
  return false;
}

}  // namespace

Unit ParseUnit(absl::string_view text) {
  Unit unit;
  int sign = 1, power = 1;
  std::string last;  // the dimension that a following ^n belongs to
  const Known* last_known = nullptr;
  int last_sign = 1;
  auto add = [&](const std::string& dimension, int count) {
    int& sum = unit.dimensions[dimension];
    sum += count;
    if (sum == 0) unit.dimensions.erase(dimension);
  };
  auto apply = [&](int count) {
    if (last.empty()) return;
    int unit_power = last_known == nullptr ? 1 : last_known->power;
    if (unit_power != 0) add(last, count * unit_power);
    if (last_known != nullptr) unit.factor *= std::pow(last_known->factor, count);
  };
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (absl::ascii_isalpha(c) || static_cast<unsigned char>(c) >= 0x80) {
      size_t begin = i;
      while (i < text.size() && (absl::ascii_isalpha(text[i]) || text[i] == '-' ||
                                 static_cast<unsigned char>(text[i]) >= 0x80)) {
        ++i;
      }
      std::string word = absl::AsciiStrToLower(text.substr(begin, i - begin));
      if (word == "mph") {
        add("meter", 1);
        add("second", -1);
        unit.factor *= 5280 * kFoot / 3600;
        last.clear();
      } else if (word == "per") {
        sign = -1;
      } else if (word == "square" || word == "sq") {
        power = 2;
      } else if (word == "cubic" || word == "cu") {
        power = 3;
      } else if (!IsFiller(word)) {
        last_known = Find(word);
        last = last_known != nullptr ? last_known->dimension : Singular(word);
        last_sign = sign;
        apply(sign * power);
        power = 1;
      }
    } else if (c == '/') {
      sign = -1;
      ++i;
    } else if (absl::ascii_isdigit(c)) {
      int count = c - '0';  // of ^2, ^{-1}
      bool negative = i > 0 && text[i - 1] == '-';
      apply(last_sign * (negative ? -count : count) - last_sign);
      while (i < text.size() && absl::ascii_isdigit(text[i])) ++i;
    } else {
      ++i;
    }
  }
  return unit;
}

bool IsKnownUnit(absl::string_view word) {
  const std::string lower = absl::AsciiStrToLower(word);
  return lower == "mph" || Find(lower) != nullptr;
}

bool NamesUnit(absl::string_view word) {
  return word.size() >= 4 || (word.size() >= 2 && IsKnownUnit(word));
}

}  // namespace rein::reward::math
