// Errors as OpenAI's clients read them.

#pragma once

#include <string>

#include "absl/status/status.h"

namespace rein::services {

// {"error": {"message", "type", "param", "code"}}. The param is what an INVALID_ARGUMENT's message has before ": ".
std::string OpenAiError(const absl::Status& status);

}  // namespace rein::services
