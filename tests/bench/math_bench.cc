// Speed of the math rule, and its verdicts for comparisons with other verifiers.
//
//   math_bench speed PAIRS          answers a second of one thread, percentiles, the worst hostile
//   answer math_bench judge < PAIRS.tsv    1 or 0 for each line "right<TAB>answer"
//
// PAIRS: tests/unit/reward/math/answer_pairs.txt.

#include <algorithm>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <time.h>

#include "reward/math/extract_answer.h"
#include "reward/math/parser.h"
#include "reward/rules/math.h"

namespace rein {
namespace {

struct Pair {
  std::string right, answer;
};

std::vector<Pair> Read(const char* path) {
  std::vector<Pair> pairs;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    size_t at = std::min(line.find(" <=> "), line.find(" <!> "));
    if (at != std::string::npos) pairs.push_back({line.substr(0, at), line.substr(at + 5)});
  }
  return pairs;
}

// A worked solution of 2 kB with the answer at its end.
std::string Completion(const std::string& answer) {
  std::string text;
  while (text.size() < 2000) text += "Then $x^2 + 3x = \\frac{1}{2}$, which gives {two} cases. ";
  return absl::StrCat(text, "So the answer is \\boxed{", answer, "}.");
}

double Score(const std::string& completion, const std::string& right) {
  static const reward::MathOptions options = {.markers = reward::math::DefaultMarkers()};
  return reward::MathAnswer(completion, right, options).value_or(0);
}

// Of this thread, so that a busy machine tells the same.
double ProcessorSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Seconds(const std::string& completion, const std::string& right) {
  const double begin = ProcessorSeconds();
  Score(completion, right);
  return ProcessorSeconds() - begin;
}

std::vector<std::string> Hostile() {
  auto repeat = [](const std::string& part, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += part;
    return all;
  };
  return {"9^{9^{9^{9^9}}}",
          "99999999!",
          "\\binom{999999999}{500000000}",
          repeat("(", 4000),
          repeat("{", 4000),
          repeat("-", 4000) + "1",
          repeat("9", 4000),
          repeat("\\text{", 600),
          repeat("\\frac{1}{", 60) + "x" + repeat("}", 60),
          repeat("\\sqrt{x+", 60) + "x" + repeat("}", 60),
          "\\{" + repeat("x^{10000}+\\sqrt{2},", 200) + "1\\}",
          "\\{" + repeat("\\pm 1,", 600) + "1\\}",
          repeat("x^{9999}*", 400) + "x",
          repeat("\\sin ", 60) + "x",
          "(" + repeat("1,", 1900) + "1)",
          repeat("1000!+", 300) + "1"};
}

int Speed(const char* path) {
  std::vector<Pair> pairs = Read(path);
  std::vector<std::pair<std::string, std::string>> work;
  for (const Pair& pair : pairs) work.emplace_back(Completion(pair.answer), pair.right);
  if (work.empty()) {
    std::cerr << "math_bench: " << path << " holds no pairs\n";
    return 1;
  }
  std::vector<double> times;
  const double begin = ProcessorSeconds();
  for (int round = 0; round < 50; ++round) {
    for (const auto& [completion, right] : work) times.push_back(Seconds(completion, right));
  }
  const double all = ProcessorSeconds() - begin;
  std::sort(times.begin(), times.end());
  auto percentile = [&](double share) {
    return 1e6 * times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))];
  };
  std::cout << "answers " << times.size() << ", a processor second "
            << static_cast<double>(times.size()) / all << ", p50 " << percentile(0.5) << " us, p99 "
            << percentile(0.99) << " us, most " << percentile(1) << " us\n";
  double worst = 0;
  std::vector<std::string> hostile = Hostile();
  for (const std::string& right : hostile) {
    for (const std::string& answer : hostile)
      worst = std::max(worst, Seconds("\\boxed{" + answer + " }", right));
  }
  std::cout << "hostile pairs " << hostile.size() * hostile.size() << ", most " << 1e3 * worst
            << " ms\n";
  return 0;
}

int Judge() {
  std::string line;
  while (std::getline(std::cin, line)) {
    size_t tab = line.find('\t');
    std::cout << Score("\\boxed{" + line.substr(std::min(tab + 1, line.size())) + "}",
                       line.substr(0, tab))
              << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace rein

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "speed" && argc > 2) return rein::Speed(argv[2]);
  if (mode == "judge") return rein::Judge();
  std::cerr << "math_bench speed PAIRS | judge\n";
  return 1;
}
