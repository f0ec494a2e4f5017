// The figures that every server and every channel agree on.

#pragma once

#include "absl/time/time.h"

namespace rein::rpc {

// Longest message; a longer one is refused with RESOURCE_EXHAUSTED by the receiver.
inline constexpr int kMaxMessageBytes = 256 << 20;
// Headers and status texts; a job with many mistakes has a long one.
inline constexpr int kMaxMetadataBytes = 64 << 10;
// Calls that still run so long after a server began to stop are cancelled.
inline constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
// A connection without traffic is probed after kKeepaliveTime and closed when the probe stays
// unanswered for kKeepaliveTimeout: calls on it then end with UNAVAILABLE.
inline constexpr absl::Duration kKeepaliveTime = absl::Seconds(10);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(20);
// Pauses between attempts to connect.
inline constexpr absl::Duration kMinReconnectPause = absl::Milliseconds(100);
inline constexpr absl::Duration kMaxReconnectPause = absl::Seconds(1);
// Longest attempt to connect, the TLS handshake of a busy machine included. What is shorter than a handshake takes
// never connects: outside a call nobody moves it on.
inline constexpr absl::Duration kConnectTimeout = absl::Seconds(20);
// Deadline of calls that only ask or command and do no work of their own.
inline constexpr absl::Duration kControlDeadline = absl::Seconds(10);

}  // namespace rein::rpc
