#include "trainer/trainer_checkpoint.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/checkpoint/checkpoint_folder.h"
#include "common/checkpoint/durable_file.h"
#include "common/checkpoint/safetensors.h"
#include "common/models/model_folder.h"
#include "common/files/read_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::trainer {
namespace {

using checkpoint::NamedTensor;
using checkpoint::TensorView;
using nlohmann::json;

constexpr char kStateFormat[] = "rein.trainer.v1";
constexpr size_t kMaxStateBytes = size_t{1} << 30;

// `flat` covers the trained part.
at::Tensor Of(const weights::Registry& registry, const weights::Parameter& p, const at::Tensor& flat) {
  return flat.narrow(0, p.offset - registry.trained_begin(), p.elements);
}

NamedTensor Part(const std::string& arena, const weights::Parameter& p, const at::Tensor& of) {
  return {absl::StrCat(arena, "/", p.spec.name),
          {"F32", p.spec.shape, reinterpret_cast<const char*>(of.const_data_ptr<float>()),
           static_cast<size_t>(p.elements) * sizeof(float)}};
}

// `with_master`: also where the folder's own weights are the master weights.
absl::Status WriteOptimizer(const weights::Registry& registry, const Arenas& arenas,
                            bool with_master, const std::string& path) {
  std::vector<NamedTensor> tensors;
  for (const weights::Parameter& p : registry.parameters()) {
    if (!registry.InTrainedPart(p)) continue;
    if (with_master) tensors.push_back(Part("master", p, Of(registry, p, arenas.master)));
    tensors.push_back(Part("moment1", p, Of(registry, p, arenas.moment1)));
    tensors.push_back(Part("moment2", p, Of(registry, p, arenas.moment2)));
  }
  return checkpoint::WriteSafetensors(path, tensors);
}

absl::Status ReadArena(const checkpoint::SafetensorsFile& file, const std::string& arena,
                       const weights::Registry& registry, const at::Tensor& flat) {
  for (const weights::Parameter& p : registry.parameters()) {
    if (!registry.InTrainedPart(p)) continue;
    const std::string name = absl::StrCat(arena, "/", p.spec.name);
    const TensorView* view = file.Find(name);
    if (view == nullptr || view->dtype != "F32" || view->shape != p.spec.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          file.path(), ": tensor ", name,
          view == nullptr ? " is missing"
                          : absl::StrCat(" is ", view->dtype, "[", absl::StrJoin(view->shape, ", "), "]"),
          ", want F32[", absl::StrJoin(p.spec.shape, ", "), "]"));
    }
    Of(registry, p, flat)
        .view(p.spec.shape)
        .copy_(at::from_blob(const_cast<char*>(view->data), view->shape, at::kFloat));
  }
  return absl::OkStatus();
}

// Whether the weights that a checkpoint holds are the master weights themselves, and all of them are trained.
bool WeightsAreMaster(const PolicyTrainer& trainer) {
  return trainer.dtype() == "float32" && trainer.registry().trains_all();
}

// Zeros of the trained part's size.
Arenas EmptyArenas(const weights::Registry& registry) {
  auto arena = [&] { return at::zeros({registry.trained_elements()}, at::kFloat); };
  return {arena(), arena(), arena()};
}

absl::Status RestoreCritic(ParameterSet& critic, const std::string& path) {
  Arenas arenas = EmptyArenas(critic.registry());
  REIN_ASSIGN_OR_RETURN(auto file, checkpoint::SafetensorsFile::Open(path));
  REIN_RETURN_IF_ERROR(ReadArena(*file, "master", critic.registry(), arenas.master));
  REIN_RETURN_IF_ERROR(ReadArena(*file, "moment1", critic.registry(), arenas.moment1));
  REIN_RETURN_IF_ERROR(ReadArena(*file, "moment2", critic.registry(), arenas.moment2));
  return critic.Restore(arenas);
}

absl::Status CheckFrozen(const std::string& path, const char* what, uint64_t then, uint64_t now, const char* keys) {
  if (then == now) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: the %s that were not trained had digest %016x, this job's have %016x: start from the same base, with the same %s", path,
      what, then, now, keys));
}

}  // namespace

absl::StatusOr<uint64_t> SaveCheckpoint(PolicyTrainer& trainer, const std::string& path,
                                        const CheckpointExtras& extras) {
  Arenas arenas, critic_arenas;
  if (!extras.export_only) {  // all ranks take part
    REIN_ASSIGN_OR_RETURN(arenas, trainer.GatherArenas());
    if (trainer.critic() != nullptr) {
      REIN_ASSIGN_OR_RETURN(critic_arenas, trainer.critic()->Gather());
    }
  }
  if (trainer.rank() != 0) return 0;
  REIN_ASSIGN_OR_RETURN(auto writer, checkpoint::CheckpointWriter::Create(path));
  const std::string& folder = writer->folder();
  const bool adapter = !trainer.model().spec.lora.empty();
  REIN_RETURN_IF_ERROR(adapter ? models::SaveAdapterFolder(folder, trainer.model(), trainer.registry(),
                                                           trainer.parts(), extras.tokenizer_folder)
                               : models::SaveModelFolder(folder, trainer.model(), trainer.registry(),
                                                         trainer.compute(), extras.tokenizer_folder));
  if (!extras.export_only) {
    REIN_RETURN_IF_ERROR(WriteOptimizer(trainer.registry(), arenas, !WeightsAreMaster(trainer),
                                        folder + "/optimizer.safetensors"));
    if (trainer.critic() != nullptr) {
      REIN_RETURN_IF_ERROR(WriteOptimizer(trainer.critic()->registry(), critic_arenas,
                                          /*with_master=*/true, folder + "/critic.safetensors"));
    }
    json state = {{"format", kStateFormat},
                  {"updates", trainer.progress().updates},
                  {"optimizer_steps", trainer.progress().optimizer_steps},
                  {"dtype", trainer.dtype()},
                  {"frozen_digest", trainer.frozen_digest()}};
    if (trainer.critic() != nullptr) state["critic_frozen_digest"] = trainer.critic()->frozen_digest();
    if (trainer.progress().kl_coefficient) {
      state["kl_coefficient"] = *trainer.progress().kl_coefficient;
    }
    REIN_RETURN_IF_ERROR(
        checkpoint::WriteDurably(folder + "/trainer.json", state.dump(2) + "\n"));
    REIN_RETURN_IF_ERROR(
        checkpoint::WriteDurably(folder + "/controller_state.bin", extras.controller_state));
  }
  return writer->Commit();
}

absl::StatusOr<std::string> RestoreCheckpoint(PolicyTrainer& trainer, const std::string& path) {
  REIN_RETURN_IF_ERROR(checkpoint::VerifyCheckpoint(path));
  REIN_ASSIGN_OR_RETURN(json state, rein::json::ReadJsonFile(path + "/trainer.json"));
  REIN_RETURN_IF_ERROR(checkpoint::CheckFormat(state, kStateFormat, path + "/trainer.json"));
  if (state.value("dtype", json()) != trainer.dtype()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": was trained in ", state.value("dtype", json()).dump(), ", this job computes in ",
                     trainer.dtype(), "; set model.dtype"));
  }
  REIN_RETURN_IF_ERROR(CheckFrozen(path, "weights", state.value("frozen_digest", uint64_t{0}), trainer.frozen_digest(),
                                   "model.lora, model.base and model.freeze"));
  if (trainer.critic() != nullptr) {
    REIN_RETURN_IF_ERROR(CheckFrozen(path, "critic's weights", state.value("critic_frozen_digest", uint64_t{0}),
                                     trainer.critic()->frozen_digest(), "ppo.critic and model.base"));
  }
  const weights::Registry& registry = trainer.registry();
  Arenas arenas = EmptyArenas(registry);
  REIN_ASSIGN_OR_RETURN(auto file,
                        checkpoint::SafetensorsFile::Open(path + "/optimizer.safetensors"));
  REIN_RETURN_IF_ERROR(ReadArena(*file, "moment1", registry, arenas.moment1));
  REIN_RETURN_IF_ERROR(ReadArena(*file, "moment2", registry, arenas.moment2));
  if (WeightsAreMaster(trainer)) {
    REIN_RETURN_IF_ERROR(models::LoadWeights(path, trainer.model(), registry, arenas.master));
  } else {
    REIN_RETURN_IF_ERROR(ReadArena(*file, "master", registry, arenas.master));
  }
  TrainerProgress progress;
  progress.updates = state.value("updates", uint64_t{0});
  progress.optimizer_steps = state.value("optimizer_steps", int64_t{0});
  if (state.contains("kl_coefficient")) progress.kl_coefficient = state["kl_coefficient"];
  REIN_RETURN_IF_ERROR(trainer.RestoreArenas(arenas, progress));
  if (trainer.critic() != nullptr) {
    REIN_RETURN_IF_ERROR(RestoreCritic(*trainer.critic(), path + "/critic.safetensors"));
  }
  return files::ReadFile(path + "/controller_state.bin", kMaxStateBytes);
}

}  // namespace rein::trainer
