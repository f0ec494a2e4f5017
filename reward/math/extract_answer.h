// Where the final answer of a worked solution stands.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace rein::reward::math {

// Content of the last \boxed{...} or \fbox{...} whose braces close, or of "\boxed x".
std::optional<std::string> LastBoxed(absl::string_view text);

// What follows the last of the markers (lower case; letter case of the text is ignored) up to the
// end of its line or sentence, or to </answer>; without ** and a final point. nullopt without a
// marker, or with nothing behind it. Linear in the text.
std::optional<std::string> AfterMarker(absl::string_view text,
                                       const std::vector<std::string>& markers);

// "####" (GSM8K), "<answer>", "answer is", "answer:", "answer =", also in bold.
const std::vector<std::string>& DefaultMarkers();

}  // namespace rein::reward::math
