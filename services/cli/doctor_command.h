// `rein doctor` looks at what a run needs and says what to do about what is wrong; `rein debug bundle` packs what a
// report of a fault needs, with secrets taken out.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "rein/v1/controller.pb.h"
#include "services/cli/connection.h"
#include "services/cli/output.h"

namespace rein::cli {

// What was seen; what could not be is absent.
struct Observed {
  v1::BuildVersion own;
  absl::Status connected = absl::OkStatus();
  std::string server;
  absl::Duration round_trip;
  absl::Duration skew;  // the server's clock less this one's, at the middle of the round trip
  std::optional<v1::GetServerReply> controller;
  std::vector<v1::Actor> actors;
  std::optional<absl::Time> certificate_until;
  bool gpu_driver = false;        // nvidia-smi answers on this machine
  std::string gpus;               // what it names
  uint64_t open_files_limit = 0;
};

struct Finding {
  enum Kind { kGood, kWarning, kFault };
  Kind kind = kGood;
  std::string what;    // server, clock, disk, ...
  std::string detail;
  std::string advice;  // what to do; empty when good
};

// Pure.
std::vector<Finding> Diagnose(const Observed& seen, absl::Time now);
std::string FindingsText(const std::vector<Finding>& findings);

// Exit code 1 when something is at fault.
int RunDoctor(const absl::StatusOr<Connection>& connection);

struct BundleFlags {
  std::string job;   // empty: none in particular
  std::string file;  // .tar.gz to write; empty: rein-debug-TIME.tar.gz
};
int RunDebugBundle(const absl::StatusOr<Connection>& connection, const BundleFlags& flags);

// Tokens, keys, passwords and what looks like them, replaced by "[removed]".
std::string WithoutSecrets(const std::string& text);

}  // namespace rein::cli
