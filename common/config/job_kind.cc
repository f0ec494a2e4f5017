#include "common/config/job_kind.h"

namespace rein::config {
namespace {

const google::protobuf::FieldDescriptor* KindField(const v1::JobConfig& job) {
  static const auto* kind = v1::JobConfig::descriptor()->FindOneofByName("kind");
  return job.GetReflection()->GetOneofFieldDescriptor(job, kind);
}

bool IsPolicyGradient(const google::protobuf::FieldDescriptor* field) {
  return field != nullptr && field->message_type() == v1::GrpoConfig::descriptor();
}

}  // namespace

std::string KindOf(const v1::JobConfig& job) {
  const auto* field = KindField(job);
  return field == nullptr ? "" : field->name();
}

const v1::GrpoConfig* PolicyGradientOf(const v1::JobConfig& job) {
  const auto* field = KindField(job);
  if (!IsPolicyGradient(field)) return nullptr;
  return static_cast<const v1::GrpoConfig*>(&job.GetReflection()->GetMessage(job, field));
}

v1::GrpoConfig* PolicyGradientOf(v1::JobConfig& job) {
  const auto* field = KindField(job);
  if (!IsPolicyGradient(field)) return nullptr;
  return static_cast<v1::GrpoConfig*>(job.GetReflection()->MutableMessage(&job, field));
}

namespace {

template <typename Config>
TextJob Text(const Config& config, uint32_t lines, TextJob::Answers answers) {
  TextJob text{.answers = answers, .passes = config.passes(), .lines = lines};
  if (config.has_updates()) text.updates = config.updates();
  return text;
}

TextJob::Answers AnswersFor(v1::RewardObjective objective) {
  switch (objective) {
    case v1::REWARD_OBJECTIVE_SCORE:
      return TextJob::Answers::kScored;
    case v1::REWARD_OBJECTIVE_STEPS:
      return TextJob::Answers::kSteps;
    default:
      return TextJob::Answers::kPair;
  }
}

}  // namespace

std::optional<TextJob> TextJobOf(const v1::JobConfig& job) {
  using Answers = TextJob::Answers;
  switch (job.kind_case()) {
    case v1::JobConfig::kSft:
      return Text(job.sft(), job.sft().sequences(), Answers::kOne);
    case v1::JobConfig::kDistill:
      return Text(job.distill(), job.distill().sequences(), Answers::kOne);
    case v1::JobConfig::kPretrain:
      return Text(job.pretrain(), job.pretrain().sequences(), Answers::kOne);
    case v1::JobConfig::kDpo:
      return Text(job.dpo(), job.dpo().pairs(), Answers::kPair);
    case v1::JobConfig::kKto:
      return Text(job.kto(), job.kto().sequences(), Answers::kMarked);
    case v1::JobConfig::kOrpo:
      return Text(job.orpo(), job.orpo().pairs(), Answers::kPair);
    case v1::JobConfig::kSimpo:
      return Text(job.simpo(), job.simpo().pairs(), Answers::kPair);
    case v1::JobConfig::kRewardModel:
      return Text(job.reward_model(), job.reward_model().pairs(), AnswersFor(job.reward_model().objective()));
    default:
      return std::nullopt;
  }
}

std::optional<TextJob::Answers> AnswersOf(const v1::JobConfig& job) {
  const std::optional<TextJob> text = TextJobOf(job);
  if (!text) return std::nullopt;
  return text->answers;
}

bool LearnsAnswers(const v1::JobConfig& job) { return job.has_sft() || job.has_distill(); }

bool MeasuresHeldOut(const v1::JobConfig& job) {
  const std::optional<TextJob> text = TextJobOf(job);
  return text && text->answers != TextJob::Answers::kOne && job.rewards().empty() && job.data().has_eval();
}

const v1::DatasetConfig* DataOf(const v1::JobConfig& job) {
  if (job.has_generate() || job.has_score()) {
    return job.data().has_eval() ? &job.data().eval() : nullptr;
  }
  return job.data().has_train() ? &job.data().train() : nullptr;
}

uint32_t UpdatesOf(const v1::JobConfig& job) {
  if (const v1::GrpoConfig* config = PolicyGradientOf(job)) return config->updates();
  const std::optional<TextJob> text = TextJobOf(job);
  return text ? text->updates.value_or(0) : 0;
}

void SetUpdates(uint32_t updates, v1::JobConfig& job) {
  const auto* field = KindField(job);
  if (field == nullptr || field->message_type()->FindFieldByName("updates") == nullptr) return;
  auto* block = job.GetReflection()->MutableMessage(&job, field);
  block->GetReflection()->SetUInt32(block, field->message_type()->FindFieldByName("updates"), updates);
}

}  // namespace rein::config
