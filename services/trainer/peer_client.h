// PeerRanks are ranks 1.. of a data-parallel trainer, as rank 0 sees them: each gets a copy of every call
// that changes the model, and works on its share of it at the same time.
//
//   PeerRanks peers({"127.0.0.1:7011"});
//   PeerCalls calls = peers.Start(request);     // returns at once
//   ... the same call on this rank ...
//   REIN_RETURN_IF_ERROR(calls.Wait());
//
// Commands travel here, never inside a collective that could hang. Thread-safe.

#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "rein/v1/trainer.pb.h"

namespace rein::services {

// Calls under way; waits for them when destroyed.
class PeerCalls {
 public:
  PeerCalls();
  PeerCalls(PeerCalls&&) = default;
  ~PeerCalls() { Wait().IgnoreError(); }

  // The first error so far, in rank order, with the rank in front; never waits.
  absl::Status FirstError() const;
  // The same once all have answered.
  absl::Status Wait();
  // Calls that are not answered yet end with CANCELLED.
  void Cancel();

 private:
  friend class PeerRanks;
  struct State;

  std::vector<std::thread> threads_;
  std::shared_ptr<State> state_;
};

class PeerRanks {
 public:
  // gRPC addresses (host:port) of ranks 1, 2, ...; empty: a trainer of one rank.
  explicit PeerRanks(std::vector<std::string> addresses) : addresses_(std::move(addresses)) {}

  // Ranks of the trainer, this one included.
  int size() const { return static_cast<int>(addresses_.size()) + 1; }

  // The others join at `rendezvous` (host:port).
  PeerCalls Start(const v1::LoadTrainerRequest& request, const std::string& rendezvous) const;
  PeerCalls Start(const v1::UpdateRequest& request) const;
  PeerCalls Start(const v1::ForwardBackwardRequest& request) const;
  PeerCalls Start(const v1::OptimStepRequest& request) const;
  PeerCalls Start(const v1::SaveRequest& request) const;
  // Rank 0 has all the weights: nothing for the others to do.
  PeerCalls Start(const v1::PublishRequest&) const { return {}; }

 private:
  template <typename Reply, typename Request, typename Method>
  PeerCalls Call(const std::vector<Request>& requests, Method method) const;
  template <typename Reply, typename Request, typename Method>
  PeerCalls CallAll(const Request& request, Method method) const;

  std::vector<std::string> addresses_;
};

}  // namespace rein::services
