#include "trainer/algorithms/from_job.h"

namespace rein::trainer {
namespace {

Aggregation FromProto(v1::Aggregation aggregation) {
  switch (aggregation) {
    case v1::AGGREGATION_SEQUENCE_MEAN:
      return Aggregation::kSequenceMean;
    case v1::AGGREGATION_SEQUENCE_SUM:
      return Aggregation::kSequenceSum;
    default:
      return Aggregation::kTokenMean;
  }
}

KlEstimator FromProto(v1::KlEstimator estimator) {
  switch (estimator) {
    case v1::KL_ESTIMATOR_K1:
      return KlEstimator::kK1;
    case v1::KL_ESTIMATOR_K2:
      return KlEstimator::kK2;
    default:
      return KlEstimator::kK3;
  }
}

Algorithm FromProto(const v1::GrpoConfig& grpo) {
  GrpoSettings settings;
  settings.temperature = grpo.temperature();
  settings.minibatches = grpo.minibatches();
  settings.mask_truncated = grpo.mask_truncated();
  settings.aggregation = FromProto(grpo.aggregation());
  settings.clip = {grpo.clip().low(), grpo.clip().high(), std::nullopt};
  if (grpo.clip().has_dual()) settings.clip.dual = grpo.clip().dual();
  settings.kl_coefficient = grpo.kl().coefficient();
  settings.kl_estimator = FromProto(grpo.kl().estimator());
  settings.normalize_by_std = grpo.normalize_by_std();
  settings.advantage_epsilon = grpo.advantage_epsilon();
  return Grpo(settings);
}

}  // namespace

absl::StatusOr<Algorithm> AlgorithmFromJob(const v1::JobConfig& job) {
  switch (job.kind_case()) {
    case v1::JobConfig::kGrpo:
      return FromProto(job.grpo());
    case v1::JobConfig::kSft:
      return Sft(FromProto(job.sft().aggregation()));
    case v1::JobConfig::kEvaluate:
      // The trainer serves the weights that are scored; no Update is ever asked for.
      return Sft(Aggregation::kTokenMean);
    case v1::JobConfig::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("job: has no block of a known kind (grpo, sft, evaluate)");
}

}  // namespace rein::trainer
