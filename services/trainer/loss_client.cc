#include "services/trainer/loss_client.h"

#include <future>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/rpc/channel.h"
#include "common/rpc/retrying_call.h"
#include "rein/v1/loss.grpc.pb.h"
#include "trainer/training_sequence.h"

namespace rein::services {
namespace {

using Async = v1::LossService::StubInterface::async_interface;

template <typename From, typename To>
void Copy(const From& from, To* to) {
  to->Add(from.begin(), from.end());
}

v1::LossRequest ToProto(const std::string& job, const trainer::OutsideBatch& batch) {
  v1::LossRequest request;
  request.set_job(job);
  request.set_update(batch.update);
  request.set_step(static_cast<uint32_t>(batch.step));
  request.set_kl_coefficient(batch.kl_coefficient);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const trainer::TrainingSequence& from = *batch.sequences[i];
    v1::LossSequence* to = request.add_sequences();
    to->set_id(from.id);
    to->set_group(from.group);
    Copy(from.token_ids, to->mutable_token_ids());
    to->set_loss_mask(std::string(from.loss_mask.begin(), from.loss_mask.end()));
    Copy(batch.policy_logprobs[i], to->mutable_policy_logprobs());
    Copy(from.behaviour_logprobs, to->mutable_behaviour_logprobs());
    if (batch.kl_coefficient > 0) Copy(from.reference_logprobs, to->mutable_reference_logprobs());
    if (!batch.entropies.empty()) Copy(batch.entropies[i], to->mutable_entropies());
    Copy(batch.advantages[i], to->mutable_advantages());
    to->set_reward(from.reward);
    Copy(from.reward_parts, to->mutable_reward_parts());
    to->set_truncated(from.truncated);
  }
  return request;
}

trainer::OutsideLoss FromProto(const v1::LossReply& reply) {
  trainer::OutsideLoss loss{.loss = reply.loss()};
  for (const v1::LossGradient& gradient : reply.gradients()) {
    loss.logprob_gradients.emplace_back(gradient.logprobs().begin(), gradient.logprobs().end());
    loss.entropy_gradients.emplace_back(gradient.entropies().begin(), gradient.entropies().end());
  }
  for (const v1::Metric& metric : reply.metrics()) loss.metrics.push_back({metric.name(), metric.value()});
  return loss;
}

class LossConnection {
 public:
  explicit LossConnection(const std::string& address)
      : stub_(v1::LossService::NewStub(rpc::Connect(address))) {}

  absl::StatusOr<v1::LossReply> Evaluate(const v1::LossRequest& request, absl::Duration timeout) {
    std::promise<absl::StatusOr<v1::LossReply>> promise;
    rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, stub_->async(), &Async::Evaluate, request, timeout,
                           rpc::Done<v1::LossReply>([&promise](absl::StatusOr<v1::LossReply> reply) {
                             promise.set_value(std::move(reply));
                           }));
    return promise.get_future().get();
  }

 private:
  std::unique_ptr<v1::LossService::Stub> stub_;
  rpc::CallGroup calls_;  // destroyed first: it waits for the calls that use the stub
};

}  // namespace

std::function<absl::StatusOr<trainer::OutsideLoss>(const trainer::OutsideBatch&)> RemoteLoss(
    const std::string& job, const trainer::OutsideLossSettings& settings) {
  return [job, address = settings.address, seconds = settings.timeout_seconds,
          connection = std::make_shared<LossConnection>(settings.address)](
             const trainer::OutsideBatch& batch) -> absl::StatusOr<trainer::OutsideLoss> {
    absl::StatusOr<v1::LossReply> reply = connection->Evaluate(ToProto(job, batch), absl::Seconds(seconds));
    if (reply.ok()) return FromProto(*reply);
    const std::string said(reply.status().message());
    if (absl::IsDeadlineExceeded(reply.status())) {
      return absl::AbortedError(absl::StrCat("the loss service ", address, " gave no answer within ", seconds,
                                             " s (service.timeout_seconds)"));
    }
    const bool passed_on = absl::IsUnavailable(reply.status()) || absl::IsInvalidArgument(reply.status());
    return absl::Status(passed_on ? reply.status().code() : absl::StatusCode::kAborted,
                        absl::StrCat("the loss service ", address, ": ", said));
  };
}

}  // namespace rein::services
