// Registry is the one place that knows every parameter of a model: its logical name, global shape,
// partition over the mesh and place in the flat arenas. Files, checkpoints, weight sync, optimizer and
// modules all read and write parameters through it; nothing else may invent a tensor name.
//
//   REIN_ASSIGN_OR_RETURN(Registry registry, Registry::Create(model.parameters, {.tp = 2}, {.tp = 1}));
//   const Parameter* q = registry.Find("layers.0.attention.q.weight");
//   arena.narrow(0, q->offset, q->elements).view(q->local_shape);
//
// One offset (in elements) holds in every arena: compute (bf16 or fp32), master, grad, moment1 and
// moment2 (fp32). Offsets are multiples of kAlignElements, so that a parameter starts on 256 bytes in a
// 2-byte and in a 4-byte arena alike, except where a spec asks to follow its neighbour directly.
//
// What is trained stands at the end, from trained_begin() on: gradients, master weights, moments and weight syncs
// cover that part alone (their element 0 is trained_begin()). Neighbours that follow each other stay together, so that
// a frozen one of them lies in that part too, and is never stepped.
//
// Quantised parameters have no place in the arenas. They stand in two tensors of their own, codes and scales
// (quantised_elements() and quantised_scales() of them), where Parameter::offset and Parameter::scale count.
// Immutable, copyable, thread-safe.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/weights/quantisation.h"

namespace rein::weights {

inline constexpr int64_t kAlignElements = 128;

// How many ranks stand along each axis of the mesh, or where one rank stands.
struct MeshShape {
  int dp = 1;  // data parallel: whole copies, optimizer state split by arena slices
  int tp = 1;  // tensor parallel: one dimension of a matrix
  int pp = 1;  // pipeline parallel: consecutive layers
  int cp = 1;  // context parallel: tokens; parameters are whole copies
  int ep = 1;  // expert parallel: the expert dimension
};
struct MeshRank {
  int dp = 0, tp = 0, pp = 0, cp = 0, ep = 0;
};

// Which dimension is divided along which axis; -1: none.
struct Partition {
  int tp_dim = -1;
  int ep_dim = -1;
  int layer = -1;  // decoder layer that owns it; -1: kept by every pipeline stage
};

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;  // global
  Partition partition;
  bool decay = true;             // whether weight decay applies (matrices, not norms and biases)
  bool follows_previous = false;  // no padding before it: the two can be viewed as one matrix
  bool trained = true;            // false: the optimizer leaves it as it was loaded
  Quantisation quantisation = Quantisation::kNone;  // of matrices that are not trained
};

struct Parameter {
  ParameterSpec spec;
  std::vector<int64_t> local_shape;  // what this rank holds
  int64_t offset = 0;                // first element in every arena; quantised: among the codes, in elements
  int64_t scale = 0;                 // quantised: its first scale
  int64_t elements = 0;              // of local_shape
};

class Registry {
 public:
  // INVALID_ARGUMENT for a repeated name, an empty or negative shape, a dimension that the mesh does
  // not divide, or a quantised parameter that is trained, no matrix, or of kNf4 and not of whole blocks; the message names
  // the parameter. All quantised ones have one format.
  static absl::StatusOr<Registry> Create(std::vector<ParameterSpec> specs, MeshShape mesh = {},
                                         MeshRank rank = {}, int num_layers = 0);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter* Find(absl::string_view name) const;  // null when there is none
  int64_t arena_elements() const { return arena_elements_; }  // padding included
  int64_t trained_begin() const { return trained_begin_; }
  int64_t trained_elements() const { return arena_elements_ - trained_begin_; }  // padding included
  bool trains_all() const { return trained_begin_ == 0 && quantised_elements_ == 0; }
  // Of parameters that are trained, padding excluded.
  int64_t trained_count() const { return trained_count_; }
  // Whether the parameter stands in the part that gradients and weight syncs cover.
  bool InTrainedPart(const Parameter& parameter) const {
    return parameter.spec.quantisation == Quantisation::kNone && parameter.offset >= trained_begin_;
  }
  Quantisation quantisation() const { return quantisation_; }
  int64_t quantised_elements() const { return quantised_elements_; }  // padding included
  int64_t quantised_scales() const { return quantised_scales_; }      // fp32
  int64_t quantised_bytes() const { return CodeBytes(quantisation_, quantised_elements_) + 4 * quantised_scales_; }
  // Numbers of the largest matrix that is unpacked at once: a quantised one with those that follow it.
  int64_t largest_quantised() const { return largest_quantised_; }
  int64_t parameter_count() const { return parameter_count_; }  // padding excluded

  // The part of the compute arena whose optimizer state data-parallel rank `rank` of `size` owns: equal slices of the
  // trained part, multiples of kAlignElements, the last one shorter.
  struct Slice {
    int64_t begin = 0, end = 0;
  };
  Slice OptimizerSlice(int rank, int size) const;

 private:
  std::vector<Parameter> parameters_;
  absl::flat_hash_map<std::string, size_t> index_;
  int64_t arena_elements_ = 0;
  int64_t trained_begin_ = 0;
  Quantisation quantisation_ = Quantisation::kNone;
  int64_t quantised_elements_ = 0, quantised_scales_ = 0, largest_quantised_ = 0;
  int64_t trained_count_ = 0;
  int64_t parameter_count_ = 0;
};

}  // namespace rein::weights
