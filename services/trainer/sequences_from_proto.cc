#include "services/trainer/sequences_from_proto.h"

namespace rein::services {

using trainer::TrainingSequence;

std::vector<TrainingSequence> SequencesFromProto(
    const google::protobuf::RepeatedPtrField<v1::TrainingSequence>& protos) {
  std::vector<TrainingSequence> sequences;
  sequences.reserve(protos.size());
  for (const v1::TrainingSequence& proto : protos) {
    TrainingSequence& s = sequences.emplace_back();
    s.id = proto.id();
    s.token_ids.assign(proto.token_ids().begin(), proto.token_ids().end());
    s.loss_mask.assign(proto.loss_mask().begin(), proto.loss_mask().end());
    s.behaviour_logprobs.assign(proto.behaviour_logprobs().begin(),
                                proto.behaviour_logprobs().end());
    s.reference_logprobs.assign(proto.reference_logprobs().begin(),
                                proto.reference_logprobs().end());
    s.group = proto.group();
    s.reward = proto.reward();
    s.reward_parts.assign(proto.reward_parts().begin(), proto.reward_parts().end());
    s.greedy_reward = proto.greedy_reward();
    s.turn_rewards.assign(proto.turn_rewards().begin(), proto.turn_rewards().end());
    s.target_rewards.assign(proto.target_rewards().begin(), proto.target_rewards().end());
    s.first_position = proto.first_position();
    s.teacher_ids.assign(proto.teacher_ids().begin(), proto.teacher_ids().end());
    s.teacher_logprobs.assign(proto.teacher_logprobs().begin(), proto.teacher_logprobs().end());
    s.expert_choices = proto.expert_choices();
    s.truncated = proto.truncated();
    s.on_policy = proto.on_policy();
  }
  return sequences;
}

}  // namespace rein::services
