#include "services/reward/reward_service.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

#include "common/rpc/grpc_status.h"

namespace rein::services {
namespace {

// A score is usually in [0, 1], a penalty in [-1, 0].
const std::vector<double>& ScoreBounds() {
  static const auto& bounds = *new std::vector<double>{-1,  -0.5, -0.25, 0,   0.1, 0.2, 0.3, 0.4,
                                                       0.5, 0.6,  0.7,   0.8, 0.9, 1,   2};
  return bounds;
}

const std::vector<double>& DurationBounds() {
  static const auto& bounds =
      *new std::vector<double>{0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 60, 300};
  return bounds;
}

}  // namespace

grpc::Status RewardServiceImpl::Score(grpc::ServerContext* context,
                                      const v1::ScoreRewardsRequest* request,
                                      v1::ScoreRewardsReply* reply) {
  absl::Duration left = absl::FromChrono(context->deadline()) - absl::Now();
  absl::Time deadline = clock_.Now() + std::min(left, kMaxScoreTime);
  return rpc::Answer(scorer_.Score(*request, deadline), reply);
}

reward::RuleObserver MeasureRules(telemetry::Metrics& metrics) {
  return [&metrics](const std::string& rule, const reward::RuleScores& result) {
    auto counter = [&](const char* outcome) {
      return metrics.AddCounter("rein_reward_requests_total", "Completions scored by a rule",
                                {{"reward", rule}, {"result", outcome}});
    };
    telemetry::Counter ok = counter("ok"), error = counter("error"), timeout = counter("timeout");
    telemetry::Histogram score =
        metrics.AddHistogram("rein_reward_score", "Scores of a rule before its weight",
                             ScoreBounds(), {{"reward", rule}});
    for (const absl::StatusOr<reward::Verdict>& value : result.scores) {
      if (value.ok() && value->skipped) continue;
      if (value.ok() && value->refused) {
        metrics
            .AddCounter("rein_reward_refused_programs_total",
                        "Completions whose program tried what the sandbox refuses",
                        {{"reward", rule}})
            .Add();
      }
      if (value.ok()) {
        ok.Add();
        score.Observe(value->score);
      } else {
        (absl::IsDeadlineExceeded(value.status()) ? timeout : error).Add();
      }
    }
    metrics
        .AddHistogram("rein_reward_duration_seconds", "Time of a rule in one call, over its items",
                      DurationBounds(), {{"reward", rule}})
        .Observe(absl::ToDoubleSeconds(result.elapsed));
  };
}

}  // namespace rein::services
