#include "common/parallel/rank_listener.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace rein::parallel {
namespace {

constexpr int kMaxWaiting = 1024;

}  // namespace

absl::StatusOr<std::unique_ptr<RankListener>> RankListener::Create(const std::string& host) {
  int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(host == "127.0.0.1" ? INADDR_LOOPBACK : INADDR_ANY);
  socklen_t size = sizeof(address);
  if (descriptor < 0 || bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(descriptor, kMaxWaiting) != 0 ||
      getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    const int error = errno;
    if (descriptor >= 0) close(descriptor);
    return absl::UnavailableError(
        absl::StrCat("rank 0 cannot listen for the others: ", absl::ErrnoToStatus(error, "").message()));
  }
  return std::unique_ptr<RankListener>(
      new RankListener(descriptor, absl::StrCat(host, ":", ntohs(address.sin_port))));
}

RankListener::~RankListener() { close(descriptor_); }

}  // namespace rein::parallel
