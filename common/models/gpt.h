// What GPT-2 and StarCoder share.

#pragma once

#include <string>

#include "common/models/family.h"

namespace rein::models {

// The shape, and what has no key: LayerNorm, learned positions instead of turned ones, plain feed-forward layers,
// biases everywhere.
void ParseGptKeys(ConfigReader& config, const char* default_activation, DecoderSpec* spec);

// layers.#.attention.output. -> transformer.h.#.attn.c_proj. and so on.
std::string GptName(absl::string_view parameter);

}  // namespace rein::models
