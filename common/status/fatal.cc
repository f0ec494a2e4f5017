#include "common/status/fatal.h"

#include "absl/strings/cord.h"

namespace rein {
namespace {

constexpr char kMark[] = "rein/fatal";

}  // namespace

absl::Status Fatal(absl::Status status) {
  if (!status.ok()) status.SetPayload(kMark, absl::Cord());
  return status;
}

bool IsFatal(const absl::Status& status) { return status.GetPayload(kMark).has_value(); }

}  // namespace rein
