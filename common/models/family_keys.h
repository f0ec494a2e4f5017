// What the config.json and the checkpoints of many families have in common; families call what fits them.

#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/models/config_reader.h"
#include "common/models/decoder_spec.h"
#include "common/models/family.h"
#include "common/models/tensor_place.h"

namespace rein::models {

// What the keys of a shape are called.
struct ShapeKeys {
  ConfigReader::Names model_dim{"hidden_size"};
  ConfigReader::Names num_layers{"num_hidden_layers"};
  ConfigReader::Names num_heads{"num_attention_heads"};
  ConfigReader::Names max_positions{"max_position_embeddings"};
  ConfigReader::Names norm_epsilon{"rms_norm_eps"};
  double default_epsilon = 1e-6;
  bool tied_by_default = false;
  // Of ParseLlamaKeys alone.
  ConfigReader::Names activation{"hidden_act"};
  const char* default_activation = "silu";
  double default_theta = 10000;
  double default_partial = 1;  // of a head's dims that turn
};

// Dimensions without the feed-forward width, the norm's epsilon, and whether the head is tied.
void ParseShape(ConfigReader& config, const ShapeKeys& keys, DecoderSpec* spec);

// num_key_value_heads and head_dim, where they are not those of the heads.
void ParseKvHeads(ConfigReader& config, DecoderSpec* spec);

nn::Activation ParseActivation(ConfigReader& config, const std::vector<const char*>& names,
                               const char* fallback);

// rope_theta with rope_scaling, or rope_parameters, and partial_rotary_factor, into spec->ropes[0].
void ParseRope(ConfigReader& config, DecoderSpec* spec, double default_theta = 10000,
               double default_partial = 1);
// The same of one object with rope_theta, rope_type and so on.
RopeSpec ParseRopeObject(ConfigReader& rope, double default_theta, int64_t max_positions,
                         int64_t original_max_positions, double* partial);

// sliding_window on the layers that layer_types calls "sliding_attention", or on those that `slides` names when
// there are no types. Windows that reach over the whole context are none.
void ParseWindows(ConfigReader& config, DecoderSpec* spec,
                  const std::function<bool(int64_t layer)>& slides);

// The same of Qwen: none unless use_sliding_window, then on layers from max_window_layers on.
void ParseQwenWindows(ConfigReader& config, DecoderSpec* spec);

// All of the above but windows, with Llama's names, and intermediate_size.
void ParseLlamaKeys(ConfigReader& config, DecoderSpec* spec, const ShapeKeys& keys = {});

// Whether layer n of a mixture of experts is sparse: (n + 1) % step == 0 and not in mlp_only_layers.
void ParseSparseLayers(ConfigReader& config, DecoderSpec* spec);

// spec->layers, one for each layer.
std::vector<LayerSpec>& EachLayer(DecoderSpec* spec);

// model.layers.#.self_attn.q_proj. and so on, experts as mlp.experts.#.gate_proj.
const NameMap& LlamaNames();
std::string LlamaName(absl::string_view parameter);
std::vector<TensorPlace> LlamaPlaces(const DecoderSpec& spec, const weights::ParameterSpec& parameter);

// attention.{q,k,v} as rows [q; k; v] of `tensor` + weight or bias; nothing for other parameters.
std::optional<TensorPlace> StackedQkvPlace(const DecoderSpec& spec, absl::string_view parameter,
                                           absl::string_view tensor);
// The same with rows [q of the group's heads; k; v] for each kv head, and, with as many kv heads as heads, [q; k; v]
// for each head.
std::optional<TensorPlace> PerGroupQkvPlace(const DecoderSpec& spec, absl::string_view parameter,
                                            absl::string_view tensor);
// mlp.{gate,up}.weight as rows [gate; up] of `tensor` + weight; nothing for other parameters.
std::optional<TensorPlace> StackedGateUpPlace(const DecoderSpec& spec, absl::string_view parameter,
                                              absl::string_view tensor);

// `first` before `rest`.
NameMap Joined(const NameMap& first, const NameMap& rest);

// `name`, or, of an expert's weight, also its place in tensors that hold all experts of a layer: mlp.experts.
// gate_up_proj [E, 2I, D] and down_proj [E, D, I], as `transformers` keeps them in memory.
std::vector<TensorPlace> WithFusedExperts(const DecoderSpec& spec, absl::string_view parameter,
                                          std::string name);
// The same with Llama's names.
std::vector<TensorPlace> FusableLlamaPlaces(const DecoderSpec& spec,
                                            const weights::ParameterSpec& parameter);

// "layers.3.attention.q.weight" ends with part "attention.q.".
bool IsPart(absl::string_view parameter, absl::string_view part);
// What stands behind the last dot: weight or bias.
std::string Kind(absl::string_view parameter);
// The number behind "layers.", and behind "experts."; -1 when there is none.
int64_t LayerOf(absl::string_view parameter);
int64_t ExpertOf(absl::string_view parameter);

}  // namespace rein::models
