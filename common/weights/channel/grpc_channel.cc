// The weight channel over gRPC: every receiver gets its own stream of chunks, all at once.

#include "absl/time/clock.h"
#include "common/status/status_macros.h"
#include "common/weights/channel/for_all.h"
#include "common/weights/channel/receiver_client.h"
#include "common/weights/channel/weight_channel.h"

namespace rein::weights {
namespace {

constexpr absl::Duration kAbortPatience = absl::Seconds(2);

absl::Status BeginToCommit(ReceiverClient& client) {
  REIN_RETURN_IF_ERROR(client.Begin());
  REIN_RETURN_IF_ERROR(client.SendChunks());
  return client.Commit();
}

class GrpcChannel final : public WeightChannel {
 public:
  std::vector<Outcome> Send(const Publication& publication,
                            const std::vector<Receiver>& receivers) override {
    const absl::Time deadline = absl::Now() + publication.deadline;
    std::vector<Outcome> outcomes(receivers.size());
    ForAll(receivers.size(), [&](size_t i) {
      ReceiverClient client(publication, receivers[i], deadline);
      outcomes[i] = {receivers[i].name, BeginToCommit(client)};
      if (!outcomes[i].status.ok()) client.Abort(kAbortPatience).IgnoreError();
    });
    return outcomes;
  }
};

}  // namespace

std::unique_ptr<WeightChannel> GrpcWeightChannel() { return std::make_unique<GrpcChannel>(); }

}  // namespace rein::weights
