#include "tests/bench/kernel_times.h"

#include <cupti.h>
#include <dlfcn.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "tests/bench/gpu_bench.h"

namespace rein::gpu {
namespace {

struct Record {
  uint64_t start = 0, end = 0;  // ns
  std::string name;
};

std::vector<Record> records;

constexpr size_t kBufferBytes = size_t{8} << 20;

// LibTorch brings CUPTI along; nothing else of Rein needs it.
template <typename Function>
Function* Cupti(const char* name) {
  static void* const library = dlopen("libcupti.so.13", RTLD_NOW);
  void* found = library == nullptr ? nullptr : dlsym(library, name);
  if (found == nullptr) Die(std::string("no ") + name + " in libcupti.so.13");
  return reinterpret_cast<Function*>(found);
}

void TakeBuffer(uint8_t** buffer, size_t* bytes, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *bytes = kBufferBytes;
  *most_records = 0;
}

void ReadBuffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t filled) {
  static const auto next = Cupti<decltype(cuptiActivityGetNextRecord)>("cuptiActivityGetNextRecord");
  for (CUpti_Activity* one = nullptr; next(buffer, filled, &one) == CUPTI_SUCCESS;) {
    if (one->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(one);
      records.push_back({kernel->start, kernel->end, kernel->name});
    } else if (one->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpy6*>(one);
      records.push_back({copy->start, copy->end, "copy"});
    } else if (one->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto* fill = reinterpret_cast<const CUpti_ActivityMemset4*>(one);
      records.push_back({fill->start, fill->end, "fill"});
    }
  }
  std::free(buffer);
}

constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                         CUPTI_ACTIVITY_KIND_MEMSET};

}  // namespace

int FirstRecorded() {
  const char* first = std::getenv("REIN_KERNELS");
  return first == nullptr ? INT_MIN / 2 : std::atoi(first);
}

void BeginKernelTimes() {
  Wait();
  records.clear();
  Cupti<decltype(cuptiActivityRegisterCallbacks)>("cuptiActivityRegisterCallbacks")(TakeBuffer, ReadBuffer);
  for (CUpti_ActivityKind kind : kKinds) Cupti<decltype(cuptiActivityEnable)>("cuptiActivityEnable")(kind);
}

void EndKernelTimes() {
  Wait();
  Cupti<decltype(cuptiActivityFlushAll)>("cuptiActivityFlushAll")(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  for (CUpti_ActivityKind kind : kKinds) Cupti<decltype(cuptiActivityDisable)>("cuptiActivityDisable")(kind);
  if (records.empty()) Die("no kernel was recorded");
  std::ranges::sort(records, {}, &Record::start);
  struct Sum {
    int count = 0;
    double own_us = 0, share_us = 0;
  };
  std::map<std::string, Sum> sums;
  const uint64_t begin = records.front().start;
  uint64_t ended = begin, idle = 0;
  for (const Record& r : records) {
    Sum& sum = sums[r.name];
    ++sum.count;
    sum.own_us += 1e-3 * static_cast<double>(r.end - r.start);
    if (r.start > ended) idle += r.start - ended;
    if (r.end > ended) sum.share_us += 1e-3 * static_cast<double>(r.end - ended);
    ended = std::max(ended, r.end);
  }
  std::vector<std::pair<std::string, Sum>> sorted(sums.begin(), sums.end());
  std::ranges::sort(sorted, [](const auto& a, const auto& b) { return a.second.share_us > b.second.share_us; });
  const double whole = 1e-3 * static_cast<double>(ended - begin);
  std::fprintf(stderr, "kernels: %zu in %.0f us, %.0f us idle\n", records.size(), whole, 1e-3 * static_cast<double>(idle));
  for (const auto& [name, sum] : sorted) {
    std::fprintf(stderr, "kernels: %5.1f %% %9.0f us, %6d of %8.2f us each: %.180s\n", 100 * sum.share_us / whole, sum.share_us,
                 sum.count, sum.own_us / sum.count, name.c_str());
  }
  if (const char* path = std::getenv("REIN_KERNELS_CSV")) {
    std::FILE* file = std::fopen(path, "a");
    if (file == nullptr) Die(std::string("cannot write ") + path);
    for (const Record& r : records) {
      std::fprintf(file, "%llu,%llu,\"%s\"\n", static_cast<unsigned long long>(r.start - begin),
                   static_cast<unsigned long long>(r.end - r.start), r.name.c_str());
    }
    std::fclose(file);
  }
}

}  // namespace rein::gpu
