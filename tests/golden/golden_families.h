// The checks of the golden vectors, one file for each family.

#pragma once

#include "tests/golden/golden_case.h"

namespace rein::trainer {

const Checks& AdvantageChecks();
const Checks& AggregationChecks();  // and KL
const Checks& PolicyChecks();
const Checks& OffPolicyChecks();
const Checks& PreferenceChecks();  // and value losses
const Checks& LogitChecks();

inline std::vector<const Checks*> Families() {
  return {&AdvantageChecks(), &AggregationChecks(), &PolicyChecks(),
          &OffPolicyChecks(), &PreferenceChecks(),  &LogitChecks()};
}

}  // namespace rein::trainer
