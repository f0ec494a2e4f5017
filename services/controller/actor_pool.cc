#include "services/controller/actor_pool.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

#include "services/controller/actor_registry.h"

namespace rein::services {
namespace {

// Of a reference: weights in bf16, in use and coming, and what a forward pass takes.
constexpr uint64_t kReferenceBytesPerParameter = 4;
constexpr uint64_t kReferenceScratch = uint64_t{3} << 29;

bool SameBuild(const v1::BuildVersion& a, const v1::BuildVersion& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

std::string Show(const v1::BuildVersion& build) {
  std::string text = absl::StrCat(build.release(), " (", build.git_hash(), ", ", build.flavour());
  if (!build.torch().empty()) absl::StrAppend(&text, ", LibTorch ", build.torch());
  if (!build.cuda().empty()) absl::StrAppend(&text, ", CUDA ", build.cuda());
  if (!build.nccl().empty()) absl::StrAppend(&text, ", NCCL ", build.nccl());
  if (!build.cublas().empty()) absl::StrAppend(&text, ", cuBLAS ", build.cublas());
  if (!build.gpu().empty()) absl::StrAppend(&text, ", on ", build.gpu());
  return text + ")";
}

}  // namespace

bool ActorPool::Wanted(const v1::Actor& actor) const {
  if (actor.state() != kActorReady || actor.rank() > 0) return false;
  const auto* devices = actor.role() == "trainer"     ? &placement_.trainer()
                        : actor.role() == "rollout"   ? &placement_.rollout()
                        : actor.role() == "reference" ? &placement_.reference()
                                                      : nullptr;
  return devices == nullptr || devices->empty() ||
         std::find(devices->begin(), devices->end(), actor.device()) != devices->end();
}

PooledActor ActorPool::Connect(const v1::Actor& actor) {
  PooledActor pooled{.actor = actor};
  pooled.view.name = actor.name();
  if (actor.role() == "trainer") {
    pooled.trainer = connector_.ConnectTrainer(actor);
  } else if (actor.role() == "rollout") {
    pooled.generator = connector_.ConnectGenerator(actor);
  } else if (actor.role() == "reference") {
    pooled.reference = connector_.ConnectReference(actor);
  } else {
    pooled.rewarder = connector_.ConnectRewarder(actor);
    pooled.view.loaded = pooled.view.has_weights = true;  // there is nothing to load
  }
  return pooled;
}

std::vector<std::string> ActorPool::Refresh(const std::vector<v1::Actor>& registered) {
  std::map<std::string, const v1::Actor*> wanted;
  for (const v1::Actor& actor : registered) {
    if (Wanted(actor)) wanted[actor.name()] = &actor;
  }
  std::vector<std::string> left;
  std::erase_if(actors_, [&](const auto& item) {
    auto found = wanted.find(item.first);
    bool stays = found != wanted.end() && found->second->epoch() == item.second.actor.epoch();
    if (!stays) left.push_back(item.first);
    return !stays;
  });
  for (const auto& [name, actor] : wanted) {
    if (actors_.count(name) == 0) actors_.emplace(name, Connect(*actor));
  }
  return left;
}

PooledActor* ActorPool::Find(const std::string& name) {
  auto found = actors_.find(name);
  return found == actors_.end() ? nullptr : &found->second;
}

PooledActor* ActorPool::trainer() {
  for (auto& [name, actor] : actors_) {
    if (actor.trainer != nullptr) return &actor;
  }
  return nullptr;
}

std::vector<ActorView> ActorPool::Views(const std::string& role) const {
  std::vector<ActorView> views;
  for (const auto& [name, actor] : actors_) {
    if (actor.actor.role() == role) views.push_back(actor.view);
  }
  return views;
}

uint64_t ActorPool::ReservedBeside(const v1::Actor& generator, uint64_t coming, uint64_t reference_parameters) const {
  if (generator.device_id().empty()) return 0;
  uint64_t bytes = 0;
  for (const auto& [name, other] : actors_) {
    if (other.actor.device_id() != generator.device_id()) continue;
    if (other.trainer != nullptr) bytes += coming;
    if (other.reference == nullptr || reference_parameters == 0) continue;
    bytes += kReferenceScratch + (other.view.loaded ? 0 : kReferenceBytesPerParameter * reference_parameters);
  }
  return bytes;
}

std::string ActorPool::BuildDifference() const {
  const v1::Actor* trainer = nullptr;
  for (const auto& [name, actor] : actors_) {
    if (actor.trainer != nullptr) trainer = &actor.actor;
  }
  for (const auto& [name, actor] : actors_) {
    if (trainer == nullptr || actor.rewarder != nullptr) continue;
    if (SameBuild(actor.actor.build(), trainer->build())) continue;
    return absl::StrCat(name, " runs ", Show(actor.actor.build()), ", ", trainer->name(), " ", Show(trainer->build()),
                        ": equal log-probabilities are promised between equal builds and GPUs only, so the promise is "
                        "withdrawn; mismatch_max tells how far they are apart");
  }
  return "";
}

}  // namespace rein::services
