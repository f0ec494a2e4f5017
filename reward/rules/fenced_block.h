// LastFencedBlock finds the code that a chat model put between ``` lines.

#pragma once

#include <optional>

#include "absl/strings/string_view.h"

namespace rein::reward {

// Content of the last ``` block that closes, without the line that opens it; of the last that opens
// when none closes (a completion that was cut). nullopt without any.
std::optional<absl::string_view> LastFencedBlock(absl::string_view text);

}  // namespace rein::reward
