// The weight channel over gRPC: every receiver gets its own stream of chunks, all at once.

#include "common/status/status_macros.h"
#include "common/weights/channel/receiver_client.h"
#include "common/weights/channel/weight_channel.h"

namespace rein::weights {
namespace {

class GrpcChannel final : public WeightChannel {
 public:
  std::vector<Outcome> Send(const Publication& publication,
                            const std::vector<Receiver>& receivers) override {
    return SendToEach(publication, receivers, [](ReceiverClient& client) {
      REIN_RETURN_IF_ERROR(client.Begin());
      REIN_RETURN_IF_ERROR(client.SendChunks());
      return client.Commit();
    });
  }
};

}  // namespace

std::unique_ptr<WeightChannel> GrpcWeightChannel() { return std::make_unique<GrpcChannel>(); }

}  // namespace rein::weights
