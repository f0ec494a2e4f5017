#include "trainer/losses/aggregation.h"

namespace rein::trainer {

double TokenWeight(Aggregation aggregation, double targets, const GlobalCounts& counts) {
  if (targets == 0) return 0;
  switch (aggregation) {
    case Aggregation::kTokenMean:
      return 1 / counts.tokens;
    case Aggregation::kTokenSum:
      return 1;
    case Aggregation::kSequenceMean:
      return 1 / (targets * counts.sequences);
    case Aggregation::kSequenceSum:
      return 1 / counts.sequences;
    case Aggregation::kSequenceSumFixed:
      return 1 / (counts.sequences * counts.horizon);
  }
  return 0;
}

}  // namespace rein::trainer
