#include "trainer/router_rules.h"

#include <ATen/ATen.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace rein::trainer {

absl::Status CheckRouterRules(const RouterRules& rules, const models::DecoderSpec& spec,
                              const weights::Registry& registry) {
  const bool routers = spec.experts.routing.experts > 0;
  for (auto [key, value] : {std::pair{"auxiliary_loss", rules.auxiliary_loss.value_or(0)}, {"z_loss", rules.z_loss},
                            {"bias_rate", rules.bias_rate}, {"capacity_factor", rules.capacity}, {"replay", rules.replay ? 1.0 : 0.0}}) {
    if (value == 0 || routers) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("trainer.router.", key, " is ", value, ", but ", spec.architecture, " has no experts"));
  }
  if (rules.bias_rate == 0) return absl::OkStatus();
  for (const weights::Parameter& p : registry.parameters()) {
    if (absl::EndsWith(p.spec.name, "router.correction") && p.spec.trained) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("trainer.router.bias_rate is ", rules.bias_rate, ", but ", spec.architecture,
                                                 spec.experts.correction ? "'s correcting bias is frozen (model.lora, model.freeze)"
                                                                         : " has no correcting bias"));
}

int64_t ChoiceWidth(const RouterRules& rules, const models::DecoderSpec& spec) {
  return rules.replay ? spec.routers_before(spec.num_layers) * spec.experts.routing.chosen : 0;
}

Routers NewRecord(const RouterRules& rules, const models::Decoder& decoder, const PackedTargets& packed, double share,
                  const at::Tensor& even_E) {
  Routers record = decoder.NewRouterRecord();
  if (record == nullptr) return record;
  record->balance = rules.balance(decoder.spec());
  record->level = rules.level;
  record->z_loss = rules.z_loss;
  record->capacity = rules.capacity;
  record->share = share;
  record->even_E = even_E;
  if (!packed.choices.empty()) {
    const int64_t chosen = decoder.spec().experts.routing.chosen;
    record->replay_TRK = at::tensor(packed.choices, at::kLong).view({static_cast<int64_t>(packed.token.size()), -1, chosen}).to(decoder.device());
  }
  if (record->balance == 0 || rules.level != nn::RouterRecord::Level::kSequence) return record;
  std::vector<int64_t> sequence;
  for (size_t s = 0; s < packed.segments.size(); ++s) {
    sequence.insert(sequence.end(), static_cast<size_t>(packed.segments[s].length), static_cast<int64_t>(s));
  }
  record->sequence_T = at::tensor(sequence, at::kLong).to(decoder.device());
  return record;
}

}  // namespace rein::trainer
