// ChatCall is one conversation with the policy of a rollout service, piece by piece.
//
//   auto call = ChatCall::Start("127.0.0.1:7002", R"({"model": "digits", "messages": [...]})", absl::Minutes(5));
//   while (std::optional<v1::ChatPiece> piece = call->Read()) ...
//   REIN_RETURN_IF_ERROR(call->Finish());
//
// Read() waits; destruction before the end cancels the call. One thread at a time.

#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "rein/v1/chat.pb.h"

namespace rein::services {

class ChatCall {
 public:
  virtual ~ChatCall() = default;
  // `address` is host:port. `deadline` is of the whole call.
  static std::unique_ptr<ChatCall> Start(const std::string& address, const std::string& body, absl::Duration deadline);

  // Absent at the end.
  virtual std::optional<v1::ChatPiece> Read() = 0;
  // Once, after the end: why it ended.
  virtual absl::Status Finish() = 0;
};

}  // namespace rein::services
