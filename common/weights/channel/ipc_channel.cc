// The weight channel between processes that share a GPU: receivers map the sender's memory and copy from there, all at
// once.

#include "common/status/status_macros.h"
#include "common/weights/channel/ipc_memory.h"
#include "common/weights/channel/receiver_client.h"
#include "common/weights/channel/weight_channel.h"

namespace rein::weights {
namespace {

class IpcChannel final : public WeightChannel {
 public:
  std::vector<Outcome> Send(const Publication& publication, const std::vector<Receiver>& receivers) override {
    if (receivers.empty()) return {};
    const absl::StatusOr<IpcMemory> memory = ShareMemory(publication.arena, publication.device);
    if (memory.ok()) {
      return SendToEach(publication, receivers, [&](ReceiverClient& client) {
        REIN_RETURN_IF_ERROR(client.Begin({.ipc = *memory}));
        return client.Commit();
      });
    }
    std::vector<Outcome> outcomes;
    for (const Receiver& receiver : receivers) outcomes.push_back({receiver.name, memory.status()});
    return outcomes;
  }
};

}  // namespace

std::unique_ptr<WeightChannel> IpcWeightChannel() { return std::make_unique<IpcChannel>(); }

}  // namespace rein::weights
