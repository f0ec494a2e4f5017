// What `rein debug mismatch` says: where two actors that hold the same weights begin to compute something else.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rein/v1/controller.pb.h"

namespace rein::cli {

// How one stage of two traces of the same tokens compares.
struct StageDifference {
  uint32_t tokens = 0;        // whose bits differ
  uint32_t first_token = 0;   // of these, when there is one
  double largest_norm = 0;    // relative difference of norms
};

// One for each stage; both traces have as many stages and tokens (else it is empty).
std::vector<StageDifference> CompareStages(const v1::TraceLayersReply& a, const v1::TraceLayersReply& b);

std::string MismatchText(const v1::TraceRolloutReply& reply);

}  // namespace rein::cli
