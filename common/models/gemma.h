// What Gemma 2 and 3 share.

#pragma once

#include <vector>

#include "common/models/family.h"

namespace rein::models {

// The keys but those of rotation and windows.
void ParseGemmaKeys(ConfigReader& config, DecoderSpec* spec);

std::vector<TensorPlace> GemmaPlaces(const DecoderSpec& spec, const weights::ParameterSpec& parameter);

}  // namespace rein::models
