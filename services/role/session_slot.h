// SessionSlot holds the one job that a role of loaded models serves: rollout and reference.
//
//   REIN_ASSIGN_OR_RETURN(std::shared_ptr<RolloutSession> session, slot_.ForJob(request.fence()));
//
// `Session` has job(), IsSameLoad(request), Loaded(), Status(), receiver() (null: it takes no weights), and Close(),
// which ends what is under way. Thread-safe; who got a
// session keeps it alive.

#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "common/weights/weight_receiver.h"
#include "rein/v1/policy.pb.h"
#include "services/role/service_deps.h"

namespace rein::services {

template <typename Session>
class SessionSlot {
 public:
  // Null before the first Load.
  std::shared_ptr<Session> get() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return session_;
  }

  // FAILED_PRECONDITION when the fence's job is not the one that is loaded.
  absl::StatusOr<std::shared_ptr<Session>> ForJob(const v1::Fence& fence) const {
    std::shared_ptr<Session> loaded = get();
    if (loaded == nullptr) {
      return absl::FailedPreconditionError("no model is loaded: call Load first");
    }
    if (loaded->job() != fence.job()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the model of job '", loaded->job(), "' is loaded, the call is for '", fence.job(), "'"));
    }
    return loaded;
  }

  // Of the loaded model; null before one is loaded.
  std::shared_ptr<weights::WeightReceiver> receiver() const {
    std::shared_ptr<Session> loaded = get();
    if (loaded == nullptr || loaded->receiver() == nullptr) return nullptr;
    return {loaded, loaded->receiver()};
  }

  // Where the loaded job stands; empty before the first Load.
  auto Status() const -> decltype(std::declval<const Session&>().Status()) {
    std::shared_ptr<Session> loaded = get();
    if (loaded == nullptr) return {};
    return loaded->Status();
  }

  // The session of `request`: the one that is loaded, or what `open` makes once the old one's memory is
  // free. One call at a time.
  template <typename Request>
  absl::StatusOr<std::shared_ptr<Session>> Load(
      const Request& request, const ServiceDeps& deps,
      const std::function<absl::StatusOr<std::unique_ptr<Session>>()>& open) {
    std::lock_guard<std::mutex> one_load(load_mutex_);
    {
      std::shared_ptr<Session> old = get();
      if (old != nullptr && old->IsSameLoad(request)) return old;
      Set(nullptr);
      if (old != nullptr) old->Close();
    }
    absl::StatusOr<std::unique_ptr<Session>> opened = open();
    deps.GiveUpIfFatal(opened.status());
    REIN_RETURN_IF_ERROR(opened.status());
    std::shared_ptr<Session> session = *std::move(opened);
    deps.log.SetJob(session->job());
    deps.log.Info("model loaded", {{"parameters", absl::StrCat(session->Loaded().parameters())}});
    Set(session);
    return session;
  }

 private:
  void Set(std::shared_ptr<Session> session) {
    std::lock_guard<std::mutex> lock(mutex_);
    session_ = std::move(session);
  }

  std::mutex load_mutex_;
  mutable std::mutex mutex_;
  std::shared_ptr<Session> session_;
};

}  // namespace rein::services
