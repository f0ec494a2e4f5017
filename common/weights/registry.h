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
// Immutable, copyable, thread-safe.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

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
};

struct Parameter {
  ParameterSpec spec;
  std::vector<int64_t> local_shape;  // what this rank holds
  int64_t offset = 0;                // first element in every arena
  int64_t elements = 0;              // of local_shape
};

class Registry {
 public:
  // INVALID_ARGUMENT for a repeated name, an empty or negative shape, or a dimension that the mesh does
  // not divide; the message names the parameter.
  static absl::StatusOr<Registry> Create(std::vector<ParameterSpec> specs, MeshShape mesh = {},
                                         MeshRank rank = {}, int num_layers = 0);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter* Find(absl::string_view name) const;  // null when there is none
  int64_t arena_elements() const { return arena_elements_; }  // padding included
  int64_t trained_begin() const { return trained_begin_; }
  int64_t trained_elements() const { return arena_elements_ - trained_begin_; }  // padding included
  bool trains_all() const { return trained_begin_ == 0; }
  // Of parameters that are trained, padding excluded.
  int64_t trained_count() const { return trained_count_; }
  // Whether the parameter stands in the part that gradients and weight syncs cover.
  bool InTrainedPart(const Parameter& parameter) const { return parameter.offset >= trained_begin_; }
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
  int64_t trained_count_ = 0;
  int64_t parameter_count_ = 0;
};

}  // namespace rein::weights
