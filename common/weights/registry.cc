#include "common/weights/registry.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status/status_macros.h"

namespace rein::weights {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 42;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

absl::Status Divide(const ParameterSpec& spec, absl::string_view axis, int dim, int size,
                    std::vector<int64_t>* shape) {
  if (dim < 0 || size == 1) return absl::OkStatus();
  if (dim >= static_cast<int>(shape->size()) || (*shape)[dim] % size != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter ", spec.name, ": dimension ", dim, " of [", absl::StrJoin(*shape, ", "),
        "] is not divisible by ", axis, " = ", size));
  }
  (*shape)[dim] /= size;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> LocalShape(const ParameterSpec& spec, MeshShape mesh) {
  int64_t elements = 1;
  for (int64_t size : spec.shape) {
    if (size <= 0 || elements > kMaxElements / size) {
      return absl::InvalidArgumentError(absl::StrCat("parameter ", spec.name, ": shape [",
                                                     absl::StrJoin(spec.shape, ", "),
                                                     "] has no sensible size"));
    }
    elements *= size;
  }
  if (spec.shape.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("parameter ", spec.name, ": shape is empty"));
  }
  std::vector<int64_t> local = spec.shape;
  REIN_RETURN_IF_ERROR(Divide(spec, "tp", spec.partition.tp_dim, mesh.tp, &local));
  REIN_RETURN_IF_ERROR(Divide(spec, "ep", spec.partition.ep_dim, mesh.ep, &local));
  return local;
}

bool OnStage(const Partition& partition, MeshShape mesh, MeshRank rank, int num_layers) {
  if (partition.layer < 0 || mesh.pp == 1) return true;
  return static_cast<int64_t>(partition.layer) * mesh.pp / std::max(num_layers, 1) == rank.pp;
}

}  // namespace

absl::StatusOr<Registry> Registry::Create(std::vector<ParameterSpec> specs, MeshShape mesh,
                                          MeshRank rank, int num_layers) {
  Registry registry;
  std::vector<std::vector<Parameter>> frozen, trained;  // each of neighbours that follow each other; all begin in `frozen`
  for (ParameterSpec& spec : specs) {
    REIN_ASSIGN_OR_RETURN(std::vector<int64_t> local, LocalShape(spec, mesh));
    if (!OnStage(spec.partition, mesh, rank, num_layers)) continue;
    Parameter parameter;
    parameter.elements = 1;
    for (int64_t size : local) parameter.elements *= size;
    parameter.local_shape = std::move(local);
    registry.parameter_count_ += parameter.elements;
    if (spec.trained) registry.trained_count_ += parameter.elements;
    const bool joins = spec.follows_previous && !frozen.empty();
    parameter.spec = std::move(spec);
    if (!joins) frozen.emplace_back();
    frozen.back().push_back(std::move(parameter));
  }
  auto first_trained = std::stable_partition(frozen.begin(), frozen.end(), [](const auto& block) {
    return std::none_of(block.begin(), block.end(), [](const Parameter& p) { return p.spec.trained; });
  });
  trained.assign(std::make_move_iterator(first_trained), std::make_move_iterator(frozen.end()));
  frozen.erase(first_trained, frozen.end());
  int64_t end = 0;
  for (auto* part : {&frozen, &trained}) {
    if (part == &trained) registry.trained_begin_ = RoundUp(end, kAlignElements);
    for (std::vector<Parameter>& block : *part) {
      end = RoundUp(end, kAlignElements);
      for (Parameter& parameter : block) {
        parameter.offset = end;
        end += parameter.elements;
        if (!registry.index_.emplace(parameter.spec.name, registry.parameters_.size()).second) {
          return absl::InvalidArgumentError(
              absl::StrCat("parameter ", parameter.spec.name, " is declared twice"));
        }
        registry.parameters_.push_back(std::move(parameter));
      }
    }
  }
  registry.arena_elements_ = RoundUp(end, kAlignElements);
  return registry;
}

const Parameter* Registry::Find(absl::string_view name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &parameters_[it->second];
}

Registry::Slice Registry::OptimizerSlice(int rank, int size) const {
  int64_t length = RoundUp((trained_elements() + size - 1) / size, kAlignElements);
  Slice slice;
  slice.begin = std::min(arena_elements_, trained_begin_ + rank * length);
  slice.end = std::min(arena_elements_, slice.begin + length);
  return slice;
}

}  // namespace rein::weights
