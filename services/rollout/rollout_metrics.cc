#include "services/rollout/rollout_metrics.h"

#include <vector>

#include "absl/time/time.h"

namespace rein::services {
namespace {

constexpr char kRunning[] = "rein_rollout_requests_running";
constexpr char kWaiting[] = "rein_rollout_requests_waiting";
constexpr char kKvUsage[] = "rein_rollout_kv_cache_usage_ratio";
constexpr char kVersion[] = "rein_rollout_policy_version";
constexpr char kRunningHelp[] = "Completions that are being generated";
constexpr char kWaitingHelp[] = "Completions that wait for their turn";
constexpr char kKvUsageHelp[] = "Share of the KV pages in use";
constexpr char kVersionHelp[] = "Number of the policy version in use";
constexpr char kRequests[] = "rein_rollout_requests_total";
constexpr char kRequestsHelp[] = "Completions that ended, by reason";

using Bounds = std::vector<double>;

// Boundaries of vLLM's histograms, so that dashboards can be compared.
Bounds FirstTokenBounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}
Bounds BetweenTokensBounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
          0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40,  80};
}
Bounds RequestBounds() {
  return {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
}
Bounds TokenBounds() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
}

telemetry::Labels With(telemetry::Labels labels, const std::string& name,
                       const std::string& value) {
  labels[name] = value;
  return labels;
}

}  // namespace

RolloutMetrics::RolloutMetrics(telemetry::Metrics& m, const std::string& job)
    : metrics_(m),
      job_({{"rl_job", job}}),
      running_(m.AddGauge(kRunning, kRunningHelp, job_)),
      waiting_(m.AddGauge(kWaiting, kWaitingHelp, job_)),
      kv_usage_(m.AddGauge(kKvUsage, kKvUsageHelp, job_)),
      version_(m.AddGauge(kVersion, kVersionHelp, job_)),
      generated_tokens_(m.AddCounter("rein_rollout_generated_tokens_total", "Tokens drawn", job_)),
      prompt_tokens_(m.AddCounter("rein_rollout_prompt_tokens_total",
                                  "Prompt tokens computed, shared ones once", job_)),
      prefix_queries_(m.AddCounter("rein_rollout_prefix_cache_queries_total",
                                   "Tokens that were looked up among computed ones", job_)),
      prefix_hits_(m.AddCounter("rein_rollout_prefix_cache_hits_total",
                                "Tokens that were found among computed ones", job_)),
      preemptions_(m.AddCounter("rein_rollout_preemptions_total",
                                "Completions put back for lack of KV pages", job_)),
      stopped_(m.AddCounter(kRequests, kRequestsHelp, With(job_, "finish_reason", "stop"))),
      cut_(m.AddCounter(kRequests, kRequestsHelp, With(job_, "finish_reason", "length"))),
      aborted_(m.AddCounter(kRequests, kRequestsHelp, With(job_, "finish_reason", "abort"))),
      first_token_(m.AddHistogram("rein_rollout_time_to_first_token_seconds",
                                  "From the request to its first token", FirstTokenBounds(), job_)),
      between_tokens_(m.AddHistogram("rein_rollout_inter_token_latency_seconds",
                                     "Mean time between tokens of a completion",
                                     BetweenTokensBounds(), job_)),
      duration_(m.AddHistogram("rein_rollout_request_duration_seconds",
                               "From the request to the last token", RequestBounds(), job_)),
      queued_(m.AddHistogram("rein_rollout_queue_duration_seconds",
                             "From the request to the first computed token", RequestBounds(),
                             job_)),
      prompt_lengths_(
          m.AddHistogram("rein_rollout_prompt_tokens", "Length of prompts", TokenBounds(), job_)),
      response_lengths_(m.AddHistogram("rein_rollout_response_tokens", "Length of completions",
                                       TokenBounds(), job_)) {}

RolloutMetrics::~RolloutMetrics() {
  metrics_.RemoveGauge(kRunning, kRunningHelp, job_);
  metrics_.RemoveGauge(kWaiting, kWaitingHelp, job_);
  metrics_.RemoveGauge(kKvUsage, kKvUsageHelp, job_);
  metrics_.RemoveGauge(kVersion, kVersionHelp, job_);
}

rollout::EngineObserver RolloutMetrics::Observer() {
  return {.on_sibling = [this](const rollout::SiblingFigures& figures) { OnSibling(figures); },
          .on_stats = [this](const rollout::EngineStats& stats) { OnStats(stats); }};
}

void RolloutMetrics::OnSibling(const rollout::SiblingFigures& figures) {
  prompt_lengths_.Observe(figures.prompt_tokens);
  response_lengths_.Observe(figures.completion_tokens);
  if (figures.reason == rollout::FinishReason::kAbort) {
    aborted_.Add();
    return;
  }
  (figures.reason == rollout::FinishReason::kStop ? stopped_ : cut_).Add();
  first_token_.Observe(absl::ToDoubleSeconds(figures.first_token));
  queued_.Observe(absl::ToDoubleSeconds(figures.queued));
  duration_.Observe(absl::ToDoubleSeconds(figures.total));
  if (figures.completion_tokens > 1) {
    between_tokens_.Observe(absl::ToDoubleSeconds(figures.between_tokens));
  }
}

void RolloutMetrics::OnStats(const rollout::EngineStats& stats) {
  running_.Set(stats.running);
  waiting_.Set(stats.waiting);
  kv_usage_.Set(stats.kv_usage);
  version_.Set(static_cast<double>(stats.version.number));
  auto add = [](telemetry::Counter& counter, uint64_t now, uint64_t before) {
    if (now > before) counter.Add(static_cast<double>(now - before));
  };
  add(generated_tokens_, stats.generated_tokens, last_.generated_tokens);
  add(prompt_tokens_, stats.prompt_tokens, last_.prompt_tokens);
  add(prefix_queries_, stats.prefix_queries_tokens, last_.prefix_queries_tokens);
  add(prefix_hits_, stats.prefix_hits_tokens, last_.prefix_hits_tokens);
  add(preemptions_, stats.preemptions, last_.preemptions);
  last_ = stats;
}

}  // namespace rein::services
