// What the tests of the rollout and reference services share: a process's parts, and a trainer's
// side of a weight sync.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/checkpoint/safetensors.h"
#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "common/rpc/fence_guard.h"
#include "common/rpc/reply_cache.h"
#include "common/sync/clock.h"
#include "common/telemetry/log.h"
#include "common/telemetry/metrics.h"
#include "common/weights/channel/weight_channel.h"
#include "rein/v1/policy.pb.h"

namespace rein::services {

// The golden model, as a trainer would hold it.
struct TrainerSide {
  explicit TrainerSide(const std::string& folder);

  // Sends the weights, multiplied by `scale`, as this version.
  absl::Status Publish(const std::string& address, weights::Version version, float scale = 1,
                       weights::InFlight in_flight = weights::InFlight::kContinue);

  models::ModelDescription model;
  weights::Registry registry;
  std::vector<float> arena;
};

// A role's process without a controller.
struct ProcessParts {
  ProcessParts() { fence.Open(); }

  sync::RealClock clock;
  rpc::FenceGuard fence{clock};
  rpc::ReplyCache replies;
  telemetry::Metrics metrics;
  std::unique_ptr<telemetry::Log> log = *telemetry::Log::Create(
      {.role = "test", .actor = "test", .file = testing::TempDir() + "/service_test.log"});
};

// A fence with a request id of its own.
v1::Fence NewFence(const std::string& job = "job");

}  // namespace rein::services
