// The address of a service: host:port. A host of IPv6 stands in brackets.

#pragma once

#include <string>

#include "absl/strings/numbers.h"

namespace rein::config {

// With a port from 1 to 65535.
inline bool IsHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  return colon != std::string::npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 &&
         port < 65536;
}

// "[::1]" of "[::1]:80"; all of an address without a port.
inline std::string HostOf(const std::string& address) {
  const size_t colon = address.rfind(':');
  const bool in_host = colon == std::string::npos || address.find(']', colon) != std::string::npos;
  return in_host ? address : address.substr(0, colon);
}

// ":80" of "[::1]:80"; empty without a port.
inline std::string PortOf(const std::string& address) { return address.substr(HostOf(address).size()); }

}  // namespace rein::config
