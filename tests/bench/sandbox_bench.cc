// How many trivial programs a second the sandbox runs: sandbox_bench [PROGRAMS]
//
// By wall time on one thread, and by processor time of everything that took part.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include <sys/resource.h>

#include "reward/sandbox/sandbox.h"

namespace rein {
namespace {

double ProcessorSeconds() {
  double seconds = 0;
  for (int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage;
    getrusage(who, &usage);
    for (const timeval& time : {usage.ru_utime, usage.ru_stime})
      seconds += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  }
  return seconds;
}

int Measure(const reward::sandbox::Sandbox& sandbox, const std::string& name,
            const reward::sandbox::Program& program, int count) {
  std::vector<double> times;
  const double processor = ProcessorSeconds();
  for (int i = 0; i < count; ++i) {
    auto begin = std::chrono::steady_clock::now();
    auto outcome = sandbox.Run(program);
    if (!outcome.ok() || outcome->code != 0) {
      std::cerr << "sandbox_bench: " << name << ": "
                << (outcome.ok() ? outcome->errors : outcome.status().ToString()) << "\n";
      return 1;
    }
    times.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  const double used = ProcessorSeconds() - processor;
  double all = 0;
  for (double time : times) all += time;
  std::sort(times.begin(), times.end());
  std::cout << name << ": " << count / all << " a second, p50 " << 1e3 * times[times.size() / 2]
            << " ms, p99 " << 1e3 * times[times.size() * 99 / 100] << " ms; " << count / used
            << " a processor second\n";
  return 0;
}

}  // namespace
}  // namespace rein

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 200;
  auto sandbox = rein::reward::sandbox::Sandbox::Open({});
  if (!sandbox.ok() || count < 1) {
    std::cerr << "sandbox_bench: " << sandbox.status() << "\n";
    return 1;
  }
  rein::reward::sandbox::Program nothing = {.command = {"true"}};
  rein::reward::sandbox::Program python = {
      .command = {"python3", "-I", "-S", "main"},
      .files = {{"main", "print(sum(map(int, input().split())))"}},
      .input = "1 2 3\n"};
  return rein::Measure(*sandbox, "true", nothing, count) +
         rein::Measure(*sandbox, "python3", python, count);
}
