// What the families with DeepSeek's experts share: DeepSeek-V2 and V3, GLM-4.5.

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/models/family.h"

namespace rein::models {

// The shape, latent attention and the experts; not the routing rule beyond its counts.
void ParseDeepseekKeys(ConfigReader& config, DecoderSpec* spec);

// Experts, their shared part, and which layers are dense.
void ParseDeepseekExperts(ConfigReader& config, DecoderSpec* spec);

// Sigmoid scores, corrected choice within groups, weights over their sum (arXiv 2412.19437 section 2.1.2); and how many layers
// of multi-token prediction there are.
void ParseSigmoidRouting(ConfigReader& config, double default_multiplier, DecoderSpec* spec);

std::vector<TensorPlace> DeepseekPlaces(const DecoderSpec& spec, const weights::ParameterSpec& parameter);

// Tensors of layers of multi-token prediction, which stand behind the last one, that the spec does not hold.
bool IsDeepseekMtp(const DecoderSpec& spec, absl::string_view tensor);

// The embedding and the head, which each of those that it holds has again.
std::vector<std::pair<std::string, std::string>> DeepseekMtpCopies(const DecoderSpec& spec);

}  // namespace rein::models
