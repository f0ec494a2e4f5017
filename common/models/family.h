// A model family: how its config.json becomes a DecoderSpec, and where its checkpoint keeps each parameter.
//
//   const ModelFamily* family = FindFamily("Qwen3ForCausalLM");   // null when unknown
//
// To add one: a file x.cc that defines `const ModelFamily kX`, its line in registry.cc, one in CMake and one in
// tests/golden/make_model_goldens.py.

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/models/config_reader.h"
#include "common/models/decoder_spec.h"
#include "common/models/tensor_place.h"
#include "common/weights/registry.h"

namespace rein::models {

struct ModelFamily {
  const char* architecture;  // config.json "architectures"[0]
  const char* model_type;    // config.json "model_type"
  // Reads every key that changes what is computed; faults go to the reader, which refuses keys left over.
  void (*parse)(ConfigReader& config, DecoderSpec* spec);
  // Where the checkpoint keeps a parameter. The first place is written; a folder may use any of them.
  std::vector<TensorPlace> (*places)(const DecoderSpec& spec, const weights::ParameterSpec& parameter);
  // Tensors of the file that hold no parameter, beside rotary_emb.inv_freq; may be null.
  bool (*skipped)(const DecoderSpec& spec, absl::string_view tensor);
  // Opens the names of the body's tensors; files of the body alone lack it.
  const char* body_prefix;
  // Tensors of the file that are another one again, (copy, original): compared on load, written on save. May be null.
  std::vector<std::pair<std::string, std::string>> (*copies)(const DecoderSpec& spec) = nullptr;
};

const ModelFamily* FindFamily(absl::string_view architecture);
std::vector<const ModelFamily*> AllFamilies();

// INVALID_ARGUMENT lists every key that is wrong, missing or unknown to the family.
absl::StatusOr<DecoderSpec> ParseConfig(const ModelFamily& family, const nlohmann::json& config);

}  // namespace rein::models
