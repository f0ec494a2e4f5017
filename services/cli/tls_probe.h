// Why a server is not trusted, which gRPC does not tell: its certificate is looked at by itself.

#pragma once

#include <string>

namespace rein::cli {

// What is wrong with the certificate of `server` (host:port) under the authority in the PEM file `ca`, and what to do; "" when nothing
// is, or nobody answers within two seconds.
std::string WhyNotTrusted(const std::string& server, const std::string& ca);

}  // namespace rein::cli
