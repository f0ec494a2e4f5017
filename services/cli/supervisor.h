// Supervisor runs the services of one machine: starts them, restarts what ends, kills what the
// controller has given up, and stops all of them together. The ranks of a trainer live and die
// together: when one ends, all are started again.
//
// Several groups have a copy of every role each, and devices of their own.
//
// Several controllers share a PostgreSQL store, one of them leads; the services and this know all of their addresses.
//
// It belongs to one thread. A service that ends before everything was up once is an error of `rein
// up`.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "services/cli/child_process.h"
#include "services/cli/context.h"
#include "services/cli/controller_client.h"

namespace rein::cli {

struct LocalOptions {
  std::string programs;  // folder of rein-controller, rein-trainer, ...
  std::string state;     // folder of the store, logs and results
  std::string listen = "127.0.0.1:7000";
  std::string admin = "127.0.0.1:7080";
  int groups = 1;  // each runs a job; all that follows but `controllers` is of each
  // Of trainer, rollout and reference, unless told otherwise; the copies of a role are dealt over
  // them. Of several groups each gets an equal part of every list, or all share its only entry.
  std::vector<std::string> devices = {"cpu"};
  std::vector<std::string> trainer_devices;    // one rank each
  std::vector<std::string> rollout_devices;    // one service each
  std::vector<std::string> reference_devices;  // one service each
  int trainers = 1;                            // ranks of the one trainer, without trainer_devices
  int rollouts = 1;                            // without rollout_devices
  int references = 1;                          // without reference_devices
  int rewards = 1;
  int controllers = 1;              // several: with a PostgreSQL store
  std::string store;                // of the controllers; empty: SQLite in `state`
  std::string store_password_file;  // of a PostgreSQL store
  int threads = 0;  // of each role; 0: one per core
  double lease_seconds = 10;
  std::string tls;     // folder as rein certs init makes it: of each role, and user/admin; empty: plaintext
  std::string tokens;  // file of user tokens; empty: none
  bool reflection = false;  // each serves gRPC reflection
  unsigned log_mib = 16;  // of a service's log file, and of each of the older ones that are kept
  std::string openai;  // host:port for OpenAI's clients at the first rollout service; empty: none
};

class Supervisor {
 public:
  Supervisor(LocalOptions options, const sync::Clock& clock);
  ~Supervisor();

  // Has each service check its flags and files; starts nothing. All that is wrong.
  absl::Status Check();

  // Starts everything and waits until all services are registered. Writes the context.
  absl::Status Start(absl::Duration patience);

  // One round of care: call it every fraction of a second, and after SIGCHLD.
  void Tend();

  // Ends all services, kindly at first.
  void Stop();

  const Context& context() const { return context_; }
  // What runs where, for people.
  std::string Describe() const;

 private:
  struct Service {
    std::string role;
    std::string name;
    std::string group;          // of actors
    std::string device;         // empty: it has none
    Service* leader = nullptr;  // rank 0, of ranks 1, 2, ...
    size_t rank = 0;
    ChildProcess process;
    std::string address, admin;
    absl::Time started;
    absl::Time restart_at = absl::InfiniteFuture();
    int failures = 0;               // in a row
    bool ended_with_ranks = false;  // killed because another rank ended
  };

  void AddGroup(int group);
  void AddRole(const std::string& role, const std::string& group, const std::vector<std::string>& devices);
  ChildCommand CommandOf(const Service& service) const;
  // At which services of this machine reach an address that is listened to.
  static std::string Reached(const std::string& address);
  // Of the trainer that a rank belongs to.
  size_t RanksOf(const Service& trainer) const;
  // Services on the same GPU that stand before it.
  int SharersBefore(const Service& service) const;
  bool DevicesAreShared() const;
  absl::Status StartService(Service& service);
  static bool AreRanks(const Service& a, const Service& b);
  bool RanksAreEnding(const Service& service) const;
  void EndRanksOf(const Service& service);
  absl::Status StartAll();
  absl::Status StartControllers(absl::Time until);
  // host:port of each controller, with commas.
  std::string Controllers() const;
  bool ReadAddress(Service& service);
  std::string LogOf(const Service& service) const;
  std::string AddressFileOf(const Service& service) const;
  std::string LastLogLine(const Service& service) const;
  absl::Status WaitFor(absl::Time until, const std::function<bool()>& condition,
                       const std::string& what);
  void KillLost();

  const LocalOptions options_;
  const sync::Clock& clock_;
  std::vector<std::unique_ptr<Service>> services_;
  Context context_;
  std::unique_ptr<ControllerClient> controller_;
  absl::Time next_check_;
  bool up_ = false;
};

}  // namespace rein::cli
