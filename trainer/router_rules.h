// RouterRules are what a job asks of the routers of a mixture of experts, beside what config.json says.

#pragma once

#include <optional>

#include "absl/status/status.h"

#include "common/models/decoder.h"
#include "common/weights/registry.h"
#include "trainer/packed_targets.h"

namespace rein::trainer {

struct RouterRules {
  std::optional<double> auxiliary_loss;  // weight; absent: config.json's
  nn::RouterRecord::Level level = nn::RouterRecord::Level::kBatch;
  double z_loss = 0;
  double bias_rate = 0;  // of the correcting bias, per optimizer step
  double capacity = 0;   // 0: no limit
  bool replay = false;   // of the choices that sequences bring

  double balance(const models::DecoderSpec& spec) const { return auxiliary_loss.value_or(spec.experts.balance); }
  // Whether a token that is computed once for several sequences counts otherwise than its copies would.
  bool CountsCopies(const models::DecoderSpec& spec) const {
    return balance(spec) > 0 || z_loss > 0 || capacity > 0;
  }
};

// INVALID_ARGUMENT when the model has no routers, or no correcting bias that is trained, and the rules ask for some.
absl::Status CheckRouterRules(const RouterRules& rules, const models::DecoderSpec& spec,
                              const weights::Registry& registry);

// Choices of a token that are replayed: of all routers together; 0: none are.
int64_t ChoiceWidth(const RouterRules& rules, const models::DecoderSpec& spec);

// A record for one pass over `packed`; null for a model without routers. `even_E` as in nn::RouterRecord. Replays the pack's choices.
Routers NewRecord(const RouterRules& rules, const models::Decoder& decoder, const PackedTargets& packed,
                  double share, const at::Tensor& even_E);

}  // namespace rein::trainer
