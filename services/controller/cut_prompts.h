// CutPrompts() cuts the items of a source that are too long (data.truncate).

#pragma once

#include <cstdint>
#include <memory>

#include "services/controller/prompt_source.h"

namespace rein::services {

// Tokens at most; 0: any number.
struct LengthLimits {
  uint64_t prompt = 0;  // of a prompt by itself, or of the part of a text before its answer
  uint64_t text = 0;    // of a text, prompt and answer together
};

// Cuts the prompt first, then the text. Targets that are cut off take their weight with them.
LearnedText CutText(LearnedText text, const LengthLimits& limits, v1::Truncation side);

// Every prompt and text of `source`, cut on `side`, which is LEFT or RIGHT.
std::unique_ptr<PromptSource> CutPrompts(std::unique_ptr<PromptSource> source, const LengthLimits& prompts,
                                         const LengthLimits& texts, v1::Truncation side);

}  // namespace rein::services
