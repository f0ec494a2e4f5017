// AskOutside gets the derivatives of a loss that is computed elsewhere (Algorithm::outside), checks them, and gives them
// to every rank.

#pragma once

#include "absl/status/statusor.h"

#include "common/parallel/process_group.h"
#include "trainer/algorithms/algorithm.h"

namespace rein::trainer {

// Every rank calls it with the same batch; rank 0 asks. ABORTED names what is wrong with the answer: another number of
// sequences or derivatives than were sent, one that is not finite.
absl::StatusOr<OutsideLoss> AskOutside(const OutsideLossSettings& settings, const OutsideBatch& batch,
                                       parallel::ProcessGroup& group);

}  // namespace rein::trainer
