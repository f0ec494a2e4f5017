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

}  // namespace rein::config
