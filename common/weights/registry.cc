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

absl::Status CheckQuantised(const Parameter& p) {
  const std::string shape = absl::StrCat("parameter ", p.spec.name, " [", absl::StrJoin(p.local_shape, ", "), "]");
  if (p.spec.trained || p.local_shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(shape, " is quantised, want a matrix that is not trained"));
  }
  if (p.spec.quantisation == Quantisation::kNf4 && p.elements % kNf4Block != 0) {
    return absl::InvalidArgumentError(absl::StrCat(shape, " has ", p.elements, " numbers, nf4 wants a multiple of ", kNf4Block,
                                                   "; int8 takes any"));
  }
  return absl::OkStatus();
}

bool OnStage(const Partition& partition, MeshShape mesh, MeshRank rank, int num_layers) {
  if (partition.layer < 0 || mesh.pp == 1) return true;
  return static_cast<int64_t>(partition.layer) * mesh.pp / std::max(num_layers, 1) == rank.pp;
}

}  // namespace

absl::StatusOr<Registry> Registry::Create(std::vector<ParameterSpec> specs, MeshShape mesh,
                                          MeshRank rank, int num_layers) {
  Registry registry;
  // Each of neighbours that follow each other; all begin in `frozen`.
  std::vector<std::vector<Parameter>> quantised, frozen, trained;
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
    if (const Quantisation format = parameter.spec.quantisation; format != Quantisation::kNone) {
      REIN_RETURN_IF_ERROR(CheckQuantised(parameter));
      registry.quantisation_ = format;
    }
    if (!joins) frozen.emplace_back();
    frozen.back().push_back(std::move(parameter));
  }
  auto first_dense = std::stable_partition(frozen.begin(), frozen.end(), [](const auto& block) {
    return block[0].spec.quantisation != Quantisation::kNone;
  });
  quantised.assign(std::make_move_iterator(frozen.begin()), std::make_move_iterator(first_dense));
  frozen.erase(frozen.begin(), first_dense);
  auto first_trained = std::stable_partition(frozen.begin(), frozen.end(), [](const auto& block) {
    return std::none_of(block.begin(), block.end(), [](const Parameter& p) { return p.spec.trained; });
  });
  trained.assign(std::make_move_iterator(first_trained), std::make_move_iterator(frozen.end()));
  frozen.erase(first_trained, frozen.end());
  int64_t end = 0;
  for (auto* part : {&quantised, &frozen, &trained}) {
    if (part == &frozen) registry.quantised_elements_ = RoundUp(std::exchange(end, 0), kAlignElements);
    if (part == &trained) registry.trained_begin_ = RoundUp(end, kAlignElements);
    for (std::vector<Parameter>& block : *part) {
      end = RoundUp(end, kAlignElements);
      const int64_t begin = end;
      for (Parameter& parameter : block) {
        parameter.offset = end;
        end += parameter.elements;
        if (parameter.spec.quantisation != registry.quantisation_ && part == &quantised) {
          return absl::InvalidArgumentError(absl::StrCat("parameter ", parameter.spec.name, " is quantised otherwise than others"));
        }
        if (part == &quantised) {
          parameter.scale = registry.quantised_scales_;
          registry.quantised_scales_ += ScaleCount(registry.quantisation_, parameter.local_shape[0], parameter.elements);
          registry.largest_quantised_ = std::max(registry.largest_quantised_, end - begin);
        }
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
