// IsHostPort says whether a text is the address of a service: host:port.

#pragma once

#include <string>

#include "absl/strings/numbers.h"

namespace rein::config {

inline bool IsHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  return colon != std::string::npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 &&
         port < 65536;
}

}  // namespace rein::config
