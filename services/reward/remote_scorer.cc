#include "services/reward/remote_scorer.h"

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

#include "services/reward/reward_client.h"

namespace rein::services {
namespace {

class RemoteScorers {
 public:
  absl::StatusOr<v1::ScoreRewardsReply> Score(const std::string& address,
                                              const v1::ScoreRewardsRequest& request,
                                              absl::Duration timeout) {
    std::promise<absl::StatusOr<v1::ScoreRewardsReply>> promise;
    At(address).Score(request, timeout, [&promise](absl::StatusOr<v1::ScoreRewardsReply> reply) {
      promise.set_value(std::move(reply));
    });
    absl::StatusOr<v1::ScoreRewardsReply> reply = promise.get_future().get();
    if (reply.ok()) return reply;
    return absl::Status(reply.status().code(),
                        absl::StrCat(address, ": ", reply.status().message()));
  }

 private:
  Rewarder& At(const std::string& address) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<Rewarder>& client = clients_[address];
    if (client == nullptr) client = ConnectRewarder(address);
    return *client;
  }

  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Rewarder>> clients_;
};

}  // namespace

reward::RemoteScorer MakeRemoteScorer() {
  return [scorers = std::make_shared<RemoteScorers>()](
             const std::string& address, const v1::ScoreRewardsRequest& request,
             absl::Duration timeout) { return scorers->Score(address, request, timeout); };
}

}  // namespace rein::services
