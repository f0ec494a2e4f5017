// The weight channel between processes that share a GPU: receivers map the sender's memory and copy from there, all at
// once.

#include "absl/time/clock.h"
#include "common/status/status_macros.h"
#include "common/weights/channel/for_all.h"
#include "common/weights/channel/ipc_memory.h"
#include "common/weights/channel/receiver_client.h"
#include "common/weights/channel/weight_channel.h"

namespace rein::weights {
namespace {

constexpr absl::Duration kAbortPatience = absl::Seconds(2);

class IpcChannel final : public WeightChannel {
 public:
  std::vector<Outcome> Send(const Publication& publication, const std::vector<Receiver>& receivers) override {
    const absl::Time deadline = absl::Now() + publication.deadline;
    std::vector<Outcome> outcomes;
    for (const Receiver& receiver : receivers) outcomes.push_back({receiver.name, absl::OkStatus()});
    absl::StatusOr<IpcMemory> memory = ShareMemory(publication.arena, publication.device);
    ForAll(receivers.size(), [&](size_t i) {
      outcomes[i].status = memory.status();
      if (!memory.ok()) return;
      ReceiverClient client(publication, receivers[i], deadline);
      outcomes[i].status = CopyAndCommit(client, *memory);
      if (!outcomes[i].status.ok()) client.Abort(kAbortPatience).IgnoreError();
    });
    return outcomes;
  }

 private:
  static absl::Status CopyAndCommit(ReceiverClient& client, const IpcMemory& memory) {
    REIN_RETURN_IF_ERROR(client.Begin({.ipc = memory}));
    return client.Commit();
  }
};

}  // namespace

std::unique_ptr<WeightChannel> IpcWeightChannel() { return std::make_unique<IpcChannel>(); }

}  // namespace rein::weights
