#include "trainer/algorithms/from_job.h"

#include "common/config/job_kind.h"
#include "trainer/algorithms/policy_gradient.h"

namespace rein::trainer {
namespace {

Aggregation FromProto(v1::Aggregation aggregation) {
  switch (aggregation) {
    case v1::AGGREGATION_SEQUENCE_MEAN:
      return Aggregation::kSequenceMean;
    case v1::AGGREGATION_SEQUENCE_SUM:
      return Aggregation::kSequenceSum;
    case v1::AGGREGATION_SEQUENCE_SUM_FIXED:
      return Aggregation::kSequenceSumFixed;
    case v1::AGGREGATION_TOKEN_SUM:
      return Aggregation::kTokenSum;
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
    case v1::KL_ESTIMATOR_ABS:
      return KlEstimator::kAbs;
    case v1::KL_ESTIMATOR_K1_STRAIGHT_THROUGH:
      return KlEstimator::kK1StraightThrough;
    case v1::KL_ESTIMATOR_K3_STRAIGHT_THROUGH:
      return KlEstimator::kK3StraightThrough;
    default:
      return KlEstimator::kK3;
  }
}

AdvantageKind FromProto(v1::Advantage advantage) {
  switch (advantage) {
    case v1::ADVANTAGE_LEAVE_ONE_OUT:
      return AdvantageKind::kLeaveOneOut;
    case v1::ADVANTAGE_REINFORCE_PP:
      return AdvantageKind::kReinforcePp;
    case v1::ADVANTAGE_REINFORCE_PP_BASELINE:
      return AdvantageKind::kReinforcePpBaseline;
    case v1::ADVANTAGE_GREEDY_BASELINE:
      return AdvantageKind::kGreedyBaseline;
    case v1::ADVANTAGE_OPTIMAL_BASELINE:
      return AdvantageKind::kOptimalBaseline;
    case v1::ADVANTAGE_GPG:
      return AdvantageKind::kGpg;
    case v1::ADVANTAGE_PASS_AT_K:
      return AdvantageKind::kPassAtK;
    case v1::ADVANTAGE_PER_REWARD:
      return AdvantageKind::kPerReward;
    case v1::ADVANTAGE_REWARD_TO_GO:
      return AdvantageKind::kRewardToGo;
    case v1::ADVANTAGE_GAE:
      return AdvantageKind::kGae;
    default:
      return AdvantageKind::kGroupRelative;
  }
}

template <typename Message>
DivergenceMask MaskFrom(const Message& dppo, Divergence divergence) {
  return {divergence, dppo.low(), dppo.high(), dppo.ratio_cap()};
}

Surrogate SurrogateFrom(const v1::GrpoConfig& config) {
  switch (config.surrogate_case()) {
    case v1::GrpoConfig::kCispo:
      return WeightRange{config.cispo().low(), config.cispo().high()};
    case v1::GrpoConfig::kSapo:
      return SoftGate{config.sapo().tau_positive(), config.sapo().tau_negative()};
    case v1::GrpoConfig::kDppoTv:
      return MaskFrom(config.dppo_tv(), Divergence::kTotalVariation);
    case v1::GrpoConfig::kDppoKl:
      return MaskFrom(config.dppo_kl(), Divergence::kKl);
    case v1::GrpoConfig::kReinforce:
      return PlainGradient{};
    case v1::GrpoConfig::kService:
      return OutsideLossSettings{config.service().address(), config.service().timeout_seconds(),
                                 config.service().entropies(), {}};
    default:
      break;
  }
  ClipRange clip{config.clip().low(), config.clip().high(), {}, {}};
  if (config.clip().has_dual()) clip.dual = config.clip().dual();
  if (config.clip().has_cap()) clip.cap = config.clip().cap();
  return clip;
}

void CorrectionsFrom(const v1::GrpoConfig& config, PolicyGradientSettings& settings) {
  const v1::CorrectionConfig& weights = config.correction();
  if (weights.mode() == v1::WEIGHT_MODE_TRUNCATE || weights.mode() == v1::WEIGHT_MODE_MASK) {
    ImportanceCorrection& correction = settings.correction.emplace();
    correction.level = weights.level() == v1::WEIGHT_LEVEL_SEQUENCE ? WeightLevel::kSequence
                                                                    : WeightLevel::kToken;
    correction.mask = weights.mode() == v1::WEIGHT_MODE_MASK;
    if (weights.has_low()) correction.low = weights.low();
    correction.high = weights.high();
  }
  if (config.reject().statistic() > v1::REJECTION_STATISTIC_NONE) {
    Rejection& rejection = settings.rejection.emplace();
    // The proto lists the statistics in the order of the enum, after "absent" and "none".
    rejection.statistic = static_cast<RejectionStatistic>(
        config.reject().statistic() - v1::REJECTION_STATISTIC_TOKEN_K1);
    if (config.reject().has_low()) rejection.low = config.reject().low();
    rejection.high = config.reject().high();
  }
  if (config.has_mask_negative_above()) settings.mask_negative_above = config.mask_negative_above();
}

Algorithm PolicyGradientFrom(const v1::GrpoConfig& config, const v1::JobConfig& job) {
  PolicyGradientSettings settings;
  settings.name = config::KindOf(job);
  settings.temperature = config.temperature();
  settings.epochs = config.epochs();
  settings.minibatches = config.minibatches();
  settings.mask_truncated = config.mask_truncated();
  settings.recompute_old = config.recompute_old();
  settings.advantage.kind = FromProto(config.advantage());
  settings.advantage.normalize_by_std = config.normalize_by_std();
  settings.advantage.epsilon = config.advantage_epsilon();
  settings.advantage.gamma = config.gamma();
  settings.advantage.whiten = config.whiten();
  for (const v1::RewardConfig& r : job.rewards()) settings.advantage.part_weights.push_back(r.weight());
  settings.ratio = config.ratio() == v1::RATIO_LEVEL_SEQUENCE    ? RatioLevel::kSequence
                   : config.ratio() == v1::RATIO_LEVEL_GEOMETRIC ? RatioLevel::kGeometric
                                                                 : RatioLevel::kToken;
  settings.surrogate = SurrogateFrom(config);
  settings.aggregation = FromProto(config.aggregation());
  settings.horizon = config.max_completion_tokens();
  settings.kl.coefficient = config.kl().coefficient();
  settings.kl.in_reward = config.kl().place() == v1::KL_PLACE_REWARD;
  if (config.kl().adaptive().has_target()) settings.kl.target = config.kl().adaptive().target();
  settings.kl.horizon = config.kl().adaptive().horizon();
  settings.kl_estimator = FromProto(config.kl().estimator());
  settings.kl_importance_weighted = config.kl().importance_weighted();
  settings.entropy_coefficient = config.entropy_coefficient();
  CorrectionsFrom(config, settings);
  settings.advantage.lambda = config.lambda();
  settings.advantage.turns = config.gae_level() == v1::GAE_LEVEL_TURN;
  if (config.clip_cov().has_share()) {
    settings.clip_cov = TokenSelection{CovarianceRange{config.clip_cov().low(), config.clip_cov().high()},
                                       config.clip_cov().share()};
  }
  if (config.kl_cov().has_share()) {
    settings.kl_cov = TokenSelection{{}, config.kl_cov().share()};
    settings.kl_cov_coefficient = config.kl_cov().coefficient();
  }
  if (config.advantage() == v1::ADVANTAGE_GAE) {
    settings.critic = CriticSettings{config.critic().path(), config.critic().learning_rate(),
                                     config.critic().clip()};
  }
  return PolicyGradient(settings);
}

DpoSettings DpoFrom(const v1::DpoConfig& dpo) {
  DpoSettings settings{DpoLoss::kSigmoid, dpo.beta(), dpo.label_smoothing()};
  if (dpo.loss() == v1::DPO_LOSS_IPO) settings.loss = DpoLoss::kIpo;
  if (dpo.loss() == v1::DPO_LOSS_IPO_SUM) settings.loss = DpoLoss::kIpoSum;
  if (dpo.loss() == v1::DPO_LOSS_HINGE) settings.loss = DpoLoss::kHinge;
  return settings;
}

}  // namespace

absl::StatusOr<Algorithm> AlgorithmFromJob(const v1::JobConfig& job) {
  if (const v1::GrpoConfig* config = config::PolicyGradientOf(job)) {
    return PolicyGradientFrom(*config, job);
  }
  switch (job.kind_case()) {
    case v1::JobConfig::kSft: {
      Algorithm sft = Sft(FromProto(job.sft().aggregation()));
      sft.embedding_noise = job.sft().neftune_alpha();
      return sft;
    }
    case v1::JobConfig::kDistill:
      return Distillation(job.distill().divergence() == v1::DIVERGENCE_REVERSE
                              ? TeacherDivergence::kReverse
                              : TeacherDivergence::kForward,
                          job.distill().temperature());
    case v1::JobConfig::kPretrain: {
      Algorithm pretrain = Sft(Aggregation::kTokenMean, job.pretrain().z_loss());
      pretrain.name = "pretrain";
      return pretrain;
    }
    case v1::JobConfig::kDpo:
      return DirectPreference(DpoFrom(job.dpo()), job.dpo().reference_free());
    case v1::JobConfig::kKto:
      return MarkedPreference(
          {job.kto().beta(), job.kto().desirable_weight(), job.kto().undesirable_weight()});
    case v1::JobConfig::kOrpo:
      return OddsRatioPreference(job.orpo().beta());
    case v1::JobConfig::kSimpo:
      return SimplePreference({job.simpo().beta(), job.simpo().gamma()});
    case v1::JobConfig::kRewardModel:
      switch (job.reward_model().objective()) {
        case v1::REWARD_OBJECTIVE_SCORE:
          return ScoreModel();
        case v1::REWARD_OBJECTIVE_STEPS:
          return ProcessRewardModel();
        default:
          return RewardModel(job.reward_model().center_coefficient());
      }
    case v1::JobConfig::kEvaluate:
    case v1::JobConfig::kGenerate:
    case v1::JobConfig::kScore:
      // The trainer serves the weights that are scored; no Update is ever asked for.
      return Sft(Aggregation::kTokenMean);
    default:
      return absl::InvalidArgumentError("job: has no block of a known kind (grpo, sft, evaluate ...)");
  }
}

}  // namespace rein::trainer
