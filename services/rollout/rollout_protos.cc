#include "services/rollout/rollout_protos.h"

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

v1::FinishReason ToProto(rollout::FinishReason reason) {
  switch (reason) {
    case rollout::FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case rollout::FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case rollout::FinishReason::kAbort:
      return v1::FINISH_REASON_ABORT;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<rollout::GenerateSpec> FromProto(const v1::GenerateRequest& request) {
  rollout::GenerateSpec spec = {
      .group = FromProto(request.group()),
      .prompt = {request.prompt_token_ids().begin(), request.prompt_token_ids().end()},
      .siblings = {request.siblings().begin(), request.siblings().end()},
      .turn = request.turn()};
  REIN_ASSIGN_OR_RETURN(spec.sampling, rollout::MakeSettings(request.sampling()));
  if (request.has_version()) {
    spec.version = {request.version().lineage(), request.version().number()};
  }
  return spec;
}

rollout::GroupId FromProto(const v1::GroupId& group) {
  return {group.data_epoch(), group.prompt(), group.attempt()};
}

v1::GenerateReply ToProto(const v1::GroupId& group, const rollout::FinishedSibling& sibling) {
  v1::GenerateReply reply;
  v1::Rollout* rollout = reply.mutable_rollout();
  *rollout->mutable_group() = group;
  rollout->set_sibling(sibling.sibling);
  v1::Completion* completion = rollout->mutable_completion();
  completion->mutable_token_ids()->Add(sibling.tokens.begin(), sibling.tokens.end());
  completion->mutable_behaviour_logprobs()->Add(sibling.logprobs.begin(), sibling.logprobs.end());
  completion->mutable_untempered_logprobs()->Add(sibling.untempered_logprobs.begin(),
                                                 sibling.untempered_logprobs.end());
  for (const rollout::VersionSpan& span : sibling.versions) {
    v1::VersionSpan* out = completion->add_versions();
    out->mutable_version()->set_lineage(span.version.lineage);
    out->mutable_version()->set_number(span.version.number);
    out->set_tokens(span.tokens);
  }
  completion->set_expert_choices(sibling.expert_choices);
  completion->set_text(sibling.text);
  completion->set_finish_reason(ToProto(sibling.reason));
  return reply;
}

}  // namespace rein::services
