// The weight channel over NCCL: receivers join a communicator whose id comes with BeginWeights, the arena
// goes out in buckets, and CommitWeights compares digests.

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/nccl/nccl_comm.h"
#include "common/status/status_macros.h"
#include "common/weights/channel/for_all.h"
#include "common/weights/channel/receiver_client.h"
#include "common/weights/channel/weight_channel.h"

namespace rein::weights {
namespace {

constexpr double kFirstShare = 0.6;  // of the deadline; the rest is for a second try

bool SameMembers(const std::vector<Receiver>& a, const std::vector<Receiver>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].address != b[i].address || a[i].actor_epoch != b[i].actor_epoch) return false;
  }
  return true;
}

class NcclChannel final : public WeightChannel {
 public:
  std::vector<Outcome> Send(const Publication& publication,
                            const std::vector<Receiver>& receivers) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const absl::Time start = absl::Now();
    std::vector<Outcome> outcomes;
    for (const Receiver& receiver : receivers) outcomes.push_back({receiver.name, absl::OkStatus()});
    for (double share : {kFirstShare, 1.0}) {
      std::vector<size_t> members;
      for (size_t i = 0; i < receivers.size(); ++i) {
        if (outcomes[i].status.ok()) members.push_back(i);
      }
      if (members.empty()) break;
      if (Try(publication, receivers, members, start + share * publication.deadline, &outcomes)) break;
    }
    return outcomes;
  }

 private:
  // True when the bytes went out and every member was asked to commit. False: those that do not answer
  // any more have their outcome, and the others can be tried again.
  bool Try(const Publication& publication, const std::vector<Receiver>& receivers,
           const std::vector<size_t>& members, absl::Time deadline, std::vector<Outcome>* outcomes) {
    std::vector<Receiver> joined;
    std::vector<std::unique_ptr<ReceiverClient>> clients;
    for (size_t i : members) {
      joined.push_back(receivers[i]);
      clients.push_back(std::make_unique<ReceiverClient>(publication, receivers[i], deadline));
    }
    absl::Status status = Gather(joined);
    if (status.ok()) status = BeginAll(clients, members, outcomes);
    if (status.ok()) status = Broadcast(publication, deadline);
    if (status.ok()) {
      ForAll(members.size(), [&](size_t m) {
        (*outcomes)[members[m]].status = clients[m]->Commit();
        if (!(*outcomes)[members[m]].status.ok()) clients[m]->Abort(kAbortPatience).IgnoreError();
      });
      return true;
    }
    member_.reset();
    members_.clear();
    ForAll(members.size(), [&](size_t m) {
      Outcome& outcome = (*outcomes)[members[m]];
      absl::Status alive = clients[m]->Abort(kAbortPatience);
      if (outcome.status.ok() && !alive.ok()) outcome.status = status;
    });
    if (absl::IsUnimplemented(status)) {
      for (size_t i : members) (*outcomes)[i].status = status;
      return true;
    }
    return false;
  }

  // Keeps the communicator of the same members, or draws the id of a new one.
  absl::Status Gather(const std::vector<Receiver>& joined) {
    if (member_ != nullptr && SameMembers(members_, joined)) return absl::OkStatus();
    member_.reset();
    REIN_ASSIGN_OR_RETURN(id_, nccl::NcclComm::NewId());
    members_ = joined;
    return absl::OkStatus();
  }

  absl::Status BeginAll(const std::vector<std::unique_ptr<ReceiverClient>>& clients,
                        const std::vector<size_t>& members, std::vector<Outcome>* outcomes) {
    const int size = static_cast<int>(clients.size()) + 1;
    ForAll(clients.size(), [&](size_t m) {
      (*outcomes)[members[m]].status = clients[m]->Begin({id_, static_cast<int>(m) + 1, size});
    });
    for (size_t i : members) {
      if (!(*outcomes)[i].status.ok()) return absl::AbortedError("a receiver refused to begin");
    }
    return absl::OkStatus();
  }

  absl::Status Broadcast(const Publication& publication, absl::Time deadline) {
    if (member_ == nullptr) {
      const int size = static_cast<int>(members_.size()) + 1;
      REIN_ASSIGN_OR_RETURN(member_,
                            nccl::NcclComm::Join({id_, 0, size, publication.device}, deadline));
    }
    return member_->Broadcast(publication.arena, publication.plan.arena_bytes, /*root=*/0, member_->own_stream(),
                              deadline);
  }

  std::mutex mutex_;
  std::string id_;
  std::vector<Receiver> members_;
  std::unique_ptr<nccl::NcclComm> member_;
};

}  // namespace

std::unique_ptr<WeightChannel> NcclWeightChannel() { return std::make_unique<NcclChannel>(); }

}  // namespace rein::weights
