// Request is one prompt to complete several times, and where its completions go.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/text/model_text.h"
#include "rollout/engine/policy_version.h"
#include "rollout/engine/step_model.h"
#include "rollout/sampling/settings.h"
#include "rollout/sampling/stop_check.h"

namespace rein::rollout {

// The plain form of rein.v1.GroupId.
struct GroupId {
  uint64_t data_epoch = 0;
  uint64_t prompt = 0;
  uint64_t attempt = 0;

  bool operator==(const GroupId&) const = default;
};

struct GenerateSpec {
  GroupId group;
  std::vector<uint32_t> prompt;
  std::vector<uint32_t> siblings;  // which ones, no repeats
  SamplingSettings sampling;
  uint32_t turn = 0;
  std::optional<PolicyVersion> version;  // refuse unless it is in use
};

// A run of tokens sampled by one policy version.
struct VersionSpan {
  PolicyVersion version;
  uint32_t tokens = 0;

  bool operator==(const VersionSpan&) const = default;
};

// One finished sibling.
struct FinishedSibling {
  uint32_t sibling = 0;
  std::vector<uint32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> untempered_logprobs;
  std::vector<VersionSpan> versions;
  std::string text;  // empty without a tokenizer
  std::string expert_choices;  // as Completion.expert_choices; empty: not kept
  FinishReason reason = FinishReason::kAbort;
};

// Called from the engine's thread; must be quick and must not call the engine.
struct RequestCallbacks {
  // Each token as it is drawn, before the sibling ends with it; may be empty.
  std::function<void(uint32_t sibling, uint32_t token, float logprob)> on_token = nullptr;
  std::function<void(FinishedSibling)> on_sibling;
  // Once, after the last on_sibling: OK when all siblings came, aborted ones included.
  std::function<void(absl::Status)> on_end;
};

// What the siblings share.
struct Request {
  uint64_t id = 0;
  GenerateSpec spec;
  RequestCallbacks callbacks;
  StopCheck fresh_check;  // copied for each sibling
  absl::Time submitted;
  size_t unfinished = 0;           // siblings
  size_t unstarted = 0;            // siblings that wait and hold no token yet
  std::optional<uint64_t> leader;  // the sequence that computes the prompt for the others
};

// INVALID_ARGUMENT for a prompt that is empty, longer than the model takes, or holds an id outside
// the vocabulary; for siblings that are absent or repeated; for a sequence that cannot fit into the
// pages. FAILED_PRECONDITION for stop strings without tokenizer.
absl::StatusOr<std::shared_ptr<Request>> MakeRequest(GenerateSpec spec, RequestCallbacks callbacks,
                                                     const StepModelLimits& limits,
                                                     const text::ModelText& text);

}  // namespace rein::rollout
