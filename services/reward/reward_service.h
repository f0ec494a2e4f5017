// RewardServiceImpl is the gRPC door of reward::Scorer.

#pragma once

#include "common/sync/clock.h"
#include "common/telemetry/metrics.h"
#include "rein/v1/reward.grpc.pb.h"
#include "reward/scoring/scorer.h"

namespace rein::services {

// Longest that one call may take, also when its caller set no deadline.
inline constexpr absl::Duration kMaxScoreTime = absl::Hours(1);

class RewardServiceImpl final : public v1::RewardService::Service {
 public:
  // Both must outlive the service.
  RewardServiceImpl(reward::Scorer& scorer, const sync::Clock& clock)
      : scorer_(scorer), clock_(clock) {}

  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRewardsRequest* request,
                     v1::ScoreRewardsReply* reply) override;

 private:
  reward::Scorer& scorer_;
  const sync::Clock& clock_;
};

// Counts and times every rule: rein_reward_requests_total, rein_reward_duration_seconds,
// rein_reward_score, and rein_reward_refused_programs_total once there is one. `metrics` must outlive the observer.
reward::RuleObserver MeasureRules(telemetry::Metrics& metrics);

}  // namespace rein::services
