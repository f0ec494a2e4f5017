#include "common/config/algorithm_checks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/config/defaults.h"
#include "common/config/host_port.h"
#include "common/config/job_kind.h"
#include "common/config/scalar_value.h"
#include "common/config/schema.h"

namespace rein::config {
namespace {

std::string NameOf(v1::Advantage advantage) {
  return config::NameOf(*v1::Advantage_descriptor()->FindValueByNumber(advantage));
}

std::string NameOf(v1::RatioLevel ratio) {
  return config::NameOf(*v1::RatioLevel_descriptor()->FindValueByNumber(ratio));
}

// True where an advantage compares siblings.
bool ComparesSiblings(v1::Advantage advantage) {
  return advantage != v1::ADVANTAGE_REINFORCE_PP && advantage != v1::ADVANTAGE_GREEDY_BASELINE &&
         advantage != v1::ADVANTAGE_REWARD_TO_GO && advantage != v1::ADVANTAGE_GAE;
}

// The text of the value at a dotted path; "" where it is absent.
std::string ValueAt(const google::protobuf::Message& message, const std::string& path) {
  const size_t dot = path.find('.');
  const FieldDescriptor& field = *message.GetDescriptor()->FindFieldByName(path.substr(0, dot));
  const auto& reflection = *message.GetReflection();
  if (!reflection.HasField(message, &field)) return "";
  if (!IsMessage(field)) return ScalarText(message, field, 0);
  const auto& child = reflection.GetMessage(message, &field);
  return dot == std::string::npos ? child.ShortDebugString() : ValueAt(child, path.substr(dot + 1));
}

class Checker {
 public:
  Checker(const v1::JobConfig& job, const v1::GrpoConfig& config,
          const std::function<bool(const std::string&)>& given,
          const std::function<void(const std::string&, const std::string&)>& add)
      : job_(job),
        c_(config),
        kind_(KindOf(job)),
        defaults_(JobOfDefaults(kind_)),
        given_(given),
        add_(add) {}

  void CheckAll() {
    CheckBatch();
    CheckService();
    CheckAdvantage();
    CheckRatio();
    CheckKl();
    CheckCorrection();
    CheckSelection();
    CheckCurriculum();
  }

 private:
  // A key with its default value does no harm: a resolved job can be submitted again.
  void Unused(const std::string& key, const std::string& why) {
    if (!given_(key) || ValueAt(c_, key) == ValueAt(*PolicyGradientOf(defaults_), key)) return;
    add_(key, absl::StrCat("has no effect ", why));
  }

  void CheckBatch() {
    if (c_.minibatches() > c_.prompts()) {
      add_("minibatches", absl::StrCat("is ", c_.minibatches(), ", more than the ", c_.prompts(),
                                       " prompts of an Update"));
    }
    if (c_.dynamic_sampling() && c_.group_size() < 2) {
      add_("dynamic_sampling", "wants group_size 2 or more: a single reward is always equal to itself");
    }
  }

  // A loss from outside is the whole loss.
  void CheckService() {
    if (!c_.has_service()) {
      if (kind_ == "custom") add_("service", "is required by custom: host:port of your rein.v1.LossService");
      return;
    }
    for (const char* key : {"aggregation", "ratio", "entropy_coefficient", "recompute_old", "mask_negative_above",
                            "correction.mode", "reject.statistic", "clip_cov.share", "kl_cov.share",
                            "kl.estimator", "kl.importance_weighted"}) {
      if (std::string(key).rfind("kl.", 0) == 0 && c_.kl().place() == v1::KL_PLACE_REWARD) continue;
      Unused(key, "with service, whose loss is taken as it is");
    }
    const std::string& address = c_.service().address();
    if (!address.empty() && !IsHostPort(address)) add_("service.address", absl::StrCat("wants host:port, got '", address, "'"));
  }

  void CheckAdvantage() {
    const v1::Advantage advantage = c_.advantage();
    const std::string with = absl::StrCat("with advantage: ", NameOf(advantage));
    const bool divides =
        advantage == v1::ADVANTAGE_GROUP_RELATIVE || advantage == v1::ADVANTAGE_PASS_AT_K;
    if (!divides) Unused("normalize_by_std", with);
    if (!divides && advantage != v1::ADVANTAGE_PER_REWARD) Unused("advantage_epsilon", with);
    if (divides && !c_.normalize_by_std()) {
      Unused("advantage_epsilon", "while normalize_by_std is false");
    }
    if (ComparesSiblings(advantage)) Unused("gamma", with);
    if (advantage != v1::ADVANTAGE_GAE) {
      for (const char* key :
           {"lambda", "gae_level", "critic.path", "critic.learning_rate", "critic.clip"}) {
        Unused(key, with);
      }
    }
    if (advantage == v1::ADVANTAGE_REINFORCE_PP ||
        advantage == v1::ADVANTAGE_REINFORCE_PP_BASELINE) {
      Unused("whiten", absl::StrCat(with, ", which always does"));
    }
    if (ComparesSiblings(advantage) && c_.group_size() < 2) {
      add_("group_size", absl::StrCat("is 1, but advantage: ", NameOf(advantage),
                                      " compares siblings: 2 or more"));
    }
    if (advantage == v1::ADVANTAGE_PER_REWARD && job_.rewards_size() < 2) {
      add_("advantage", "per_reward normalises each of several rewards, and there is one; "
                        "group_relative does the same");
    }
    if (advantage == v1::ADVANTAGE_PER_REWARD && c_.kl().place() == v1::KL_PLACE_REWARD &&
        c_.kl().coefficient() > 0) {
      add_("kl.place", "reward cannot stand beside advantage: per_reward, which has no one reward "
                       "to take it from; loss can");
    }
  }

  void CheckRatio() {
    const bool clips = c_.has_clip();
    if (c_.has_reinforce()) Unused("ratio", "with reinforce, which has no ratio");
    if ((c_.has_dppo_tv() || c_.has_dppo_kl()) && c_.ratio() != v1::RATIO_LEVEL_TOKEN) {
      add_("ratio", absl::StrCat("is ", NameOf(c_.ratio()), ", but dppo masks single tokens: token"));
    }
    if (c_.ratio() != v1::RATIO_LEVEL_GEOMETRIC) return;
    if (!clips) add_("ratio", "geometric clips tokens before the mean: it wants clip: {low, high}");
    for (const char* key : {"clip.dual", "clip.cap"}) {
      Unused(key, "with ratio: geometric, whose tokens are clipped in log space");
    }
  }

  void CheckKl() {
    const v1::KlConfig& kl = c_.kl();
    if (kl.coefficient() == 0) {
      for (const char* key : {"kl.estimator", "kl.place", "kl.importance_weighted", "kl.adaptive",
                              "kl.reference"}) {
        Unused(key, absl::StrCat("while ", kind_, ".kl.coefficient is 0"));
      }
      return;
    }
    if (!kl.adaptive().has_target()) Unused("kl.adaptive.horizon", "without kl.adaptive.target");
    if (kl.place() != v1::KL_PLACE_REWARD) return;
    if (kl.estimator() != v1::KL_ESTIMATOR_K1) {
      add_("kl.estimator", "must be k1 with kl.place: reward; other estimators are for the loss");
    }
    Unused("kl.importance_weighted", "with kl.place: reward, whose log-probs are those that sampled");
  }

  void CheckSelection() {
    const bool clip = c_.clip_cov().has_share(), kl = c_.kl_cov().has_share();
    if (clip && kl) add_("kl_cov", "cannot stand beside clip_cov: give one of them");
    if (!clip) {
      for (const char* key : {"clip_cov.low", "clip_cov.high"}) {
        Unused(key, absl::StrCat("without ", kind_, ".clip_cov.share"));
      }
    } else if (c_.clip_cov().low() >= c_.clip_cov().high()) {
      add_("clip_cov.low", absl::StrCat("is ", c_.clip_cov().low(), ", not below clip_cov.high ",
                                        c_.clip_cov().high()));
    }
    if (!kl) Unused("kl_cov.coefficient", absl::StrCat("without ", kind_, ".kl_cov.share"));
  }

  void CheckCurriculum() {
    const v1::CurriculumConfig& curriculum = c_.curriculum();
    if (!curriculum.has_min_pass_rate() && !curriculum.has_max_pass_rate()) {
      for (const char* key : {"curriculum.threshold", "curriculum.passes"}) {
        Unused(key, "without curriculum.min_pass_rate or max_pass_rate");
      }
    } else if (curriculum.has_min_pass_rate() && curriculum.has_max_pass_rate() &&
               curriculum.min_pass_rate() >= curriculum.max_pass_rate()) {
      add_("curriculum.min_pass_rate",
           absl::StrCat("is ", curriculum.min_pass_rate(), ", not below curriculum.max_pass_rate ",
                        curriculum.max_pass_rate()));
    }
  }

  void CheckCorrection() {
    const v1::CorrectionConfig& correction = c_.correction();
    if (correction.mode() == v1::WEIGHT_MODE_NONE) {
      for (const char* key : {"correction.level", "correction.low", "correction.high"}) {
        Unused(key, absl::StrCat("while ", kind_, ".correction.mode is none"));
      }
    } else if (!c_.recompute_old() && !c_.has_reinforce()) {
      add_("correction.mode",
           "counts the ratio to the sampling policy twice: the objective measures against it already. "
           "Set recompute_old: true (decoupled PPO) or the objective reinforce: {}");
    }
    if (correction.mode() == v1::WEIGHT_MODE_TRUNCATE) {
      Unused("correction.low", "with correction.mode: truncate, which cuts large weights only");
    }
    if (c_.staleness() == 0) Unused("when_stale", "while staleness is 0: then no rollout is of an older policy");
    const v1::RejectionConfig& reject = c_.reject();
    const bool weighs = correction.mode() != v1::WEIGHT_MODE_NONE || reject.statistic() != v1::REJECTION_STATISTIC_NONE ||
                        c_.has_mask_negative_above();
    if (c_.when_stale() == v1::STALE_POLICY_CORRECT && !weighs && (c_.has_reinforce() || c_.recompute_old())) {
      add_("when_stale", absl::StrCat("correct trains on rollouts however old, and with ",
                                      c_.has_reinforce() ? "reinforce" : "recompute_old",
                                      " nothing weighs them: set correction.mode, reject.statistic or "
                                      "mask_negative_above, or when_stale: drop"));
    }
    if (reject.statistic() == v1::REJECTION_STATISTIC_NONE) {
      for (const char* key : {"reject.low", "reject.high"}) {
        Unused(key, absl::StrCat("while ", kind_, ".reject.statistic is none"));
      }
    } else if (reject.has_low()) {
      const int form = (reject.statistic() - v1::REJECTION_STATISTIC_TOKEN_K1) % 3;  // k1, k2, k3
      if (form != 0) Unused("reject.low", "with k2 and k3, which are never negative");
      if (form == 0 && reject.low() > reject.high()) add_("reject.low", "is above reject.high");
    }
  }

  const v1::JobConfig& job_;
  const v1::GrpoConfig& c_;
  const std::string kind_;
  const v1::JobConfig defaults_;
  const std::function<bool(const std::string&)>& given_;
  const std::function<void(const std::string&, const std::string&)>& add_;
};

}  // namespace

void CheckPolicyGradient(const v1::JobConfig& job, const v1::GrpoConfig& config,
                         const std::function<bool(const std::string&)>& given,
                         const std::function<void(const std::string&, const std::string&)>& add) {
  Checker(job, config, given, add).CheckAll();
}

}  // namespace rein::config
