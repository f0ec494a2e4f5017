// Sequence is one completion in the making: its tokens, its pages, and what was drawn so far.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"

#include "rollout/engine/policy_version.h"
#include "rollout/engine/request.h"
#include "rollout/sampling/stop_check.h"

namespace rein::rollout {

struct Sequence {
  uint64_t id = 0;
  std::shared_ptr<Request> request;
  uint32_t sibling = 0;
  uint64_t noise_key = 0;
  StopCheck stop;

  std::vector<uint32_t> tokens;  // prompt, then completion, as far as it is here
  uint32_t awaited = 0;          // tokens behind these that steps under way draw
  size_t draw_index = 0;         // in the last of those steps
  uint32_t prompt_tokens = 0;
  std::vector<float> logprobs;
  std::vector<float> untempered_logprobs;
  std::vector<VersionSpan> versions;

  std::vector<int32_t> pages;
  uint32_t computed_tokens = 0;
  uint32_t remembered_pages = 0;  // at the front of `pages`
  // Under which all computed tokens were computed; unset when weights changed meanwhile.
  std::optional<PolicyVersion> computed_under;

  bool finished = false;
  absl::Time admitted = absl::InfinitePast();
  absl::Time first_token = absl::InfinitePast();

  // The awaited ones are counted in.
  uint32_t known_tokens() const { return static_cast<uint32_t>(tokens.size()) + awaited; }
  uint32_t completion_tokens() const { return known_tokens() - prompt_tokens; }
  // Holds a token of its own: it must not be thrown away.
  bool started() const { return completion_tokens() > 0; }
  // Ends with an awaited token, whichever that is.
  bool ending() const { return completion_tokens() >= stop.limit(); }
};

}  // namespace rein::rollout
