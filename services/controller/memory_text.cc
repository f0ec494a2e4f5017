#include "services/controller/memory_text.h"

#include "absl/strings/str_format.h"

namespace rein::services {

std::string MemoryText(const google::protobuf::RepeatedPtrField<v1::MemoryPart>& parts) {
  constexpr double kGib = static_cast<double>(int64_t{1} << 30);
  double sum = 0;
  std::string list;
  for (const v1::MemoryPart& part : parts) {
    const double gib = static_cast<double>(part.bytes()) / kGib;
    sum += gib;
    absl::StrAppendFormat(&list, "%s %s %.1f", list.empty() ? "" : ",", part.name(), gib);
  }
  return absl::StrFormat("%.1f GiB of memory:%s", sum, list);
}

}  // namespace rein::services
