#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/parallel/process_group.h"
#include "common/status/status_macros.h"

namespace rein::parallel {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;
constexpr absl::Duration kRetry = absl::Milliseconds(50);

// A connected socket; every read and write has the group's timeout.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }

  int descriptor() const { return descriptor_; }

  void SetTimeout(absl::Duration timeout) const {
    timeval value = absl::ToTimeval(timeout);
    setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
    setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value));
    int on = 1;
    setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  absl::Status Send(const void* bytes, int64_t size) const {
    for (const auto* at = static_cast<const char*>(bytes); size > 0;) {
      ssize_t sent = send(descriptor_, at, static_cast<size_t>(size), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return Lost("send");
      at += sent;
      size -= sent;
    }
    return absl::OkStatus();
  }

  absl::Status Receive(void* bytes, int64_t size) const {
    for (auto* at = static_cast<char*>(bytes); size > 0;) {
      ssize_t got = recv(descriptor_, at, static_cast<size_t>(size), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return Lost(got == 0 ? "receive: the peer is gone" : "receive");
      at += got;
      size -= got;
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status Lost(const char* what) {
    return absl::UnavailableError(absl::StrCat("process group: ", what, ": ", std::strerror(errno)));
  }

  int descriptor_ = -1;
};

class TcpGroup final : public ProcessGroup {
 public:
  // At rank 0 peers[r] is rank r (peers[0] unused); elsewhere peers[0] is rank 0.
  TcpGroup(int rank, int size, std::vector<Socket> peers)
      : rank_(rank), size_(size), peers_(std::move(peers)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduceSum(at::Tensor tensor) override {
    REIN_RETURN_IF_ERROR(CheckTensor(tensor));
    at::Tensor flat = tensor.view(-1);
    const int64_t step = kChunkBytes / static_cast<int64_t>(tensor.element_size());
    at::Tensor incoming = at::empty({std::min(step, flat.numel())}, flat.options());
    for (int64_t begin = 0; begin < flat.numel(); begin += step) {
      at::Tensor chunk = flat.narrow(0, begin, std::min(step, flat.numel() - begin));
      const auto bytes = static_cast<int64_t>(chunk.nbytes());
      if (rank_ != 0) {
        REIN_RETURN_IF_ERROR(peers_[0].Send(chunk.const_data_ptr(), bytes));
        REIN_RETURN_IF_ERROR(peers_[0].Receive(chunk.mutable_data_ptr(), bytes));
        continue;
      }
      for (int r = 1; r < size_; ++r) {
        at::Tensor part = incoming.narrow(0, 0, chunk.numel());
        REIN_RETURN_IF_ERROR(peers_[r].Receive(part.mutable_data_ptr(), bytes));
        chunk.add_(part);
      }
      for (int r = 1; r < size_; ++r) {
        REIN_RETURN_IF_ERROR(peers_[r].Send(chunk.const_data_ptr(), bytes));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Broadcast(at::Tensor tensor, int root) override {
    REIN_RETURN_IF_ERROR(CheckTensor(tensor));
    const auto bytes = static_cast<int64_t>(tensor.nbytes());
    if (bytes == 0) return absl::OkStatus();
    if (rank_ != 0) {
      return rank_ == root ? peers_[0].Send(tensor.const_data_ptr(), bytes)
                           : peers_[0].Receive(tensor.mutable_data_ptr(), bytes);
    }
    if (root != 0) {
      REIN_RETURN_IF_ERROR(peers_[root].Receive(tensor.mutable_data_ptr(), bytes));
    }
    for (int r = 1; r < size_; ++r) {
      if (r != root) REIN_RETURN_IF_ERROR(peers_[r].Send(tensor.const_data_ptr(), bytes));
    }
    return absl::OkStatus();
  }

  absl::Status AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) override {
    if (!parts[rank_].is_same(own)) at::Tensor(parts[rank_]).copy_(own);
    for (int root = 0; root < size_; ++root) REIN_RETURN_IF_ERROR(Broadcast(parts[root], root));
    return absl::OkStatus();
  }

 private:
  static absl::Status CheckTensor(const at::Tensor& tensor) {
    if (tensor.is_cpu() && tensor.is_contiguous()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "process group over TCP: wants contiguous tensors in host memory");
  }

  const int rank_, size_;
  const std::vector<Socket> peers_;
};

absl::Status CannotJoin(const Rendezvous& r, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("rank ", r.rank, " of ", r.size,
                                             " cannot join its group at ", r.host, ":", r.port, ": ",
                                             why));
}

absl::StatusOr<std::vector<Socket>> AcceptRanks(const Rendezvous& r, absl::Time deadline) {
  Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int on = 1;
  setsockopt(listener.descriptor(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(r.host == "127.0.0.1" ? INADDR_LOOPBACK : INADDR_ANY);
  address.sin_port = htons(static_cast<uint16_t>(r.port));
  if (bind(listener.descriptor(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener.descriptor(), r.size) != 0) {
    return CannotJoin(r, std::strerror(errno));
  }
  std::vector<Socket> peers(static_cast<size_t>(r.size));
  for (int joined = 1; joined < r.size; ++joined) {
    listener.SetTimeout(std::max(absl::Milliseconds(1), deadline - absl::Now()));
    Socket peer(accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC));
    if (peer.descriptor() < 0) {
      return CannotJoin(r, absl::StrCat("only ", joined, " ranks came in time"));
    }
    peer.SetTimeout(r.timeout);
    int32_t rank = -1;
    REIN_RETURN_IF_ERROR(peer.Receive(&rank, sizeof(rank)));
    if (rank < 1 || rank >= r.size || peers[rank].descriptor() >= 0) {
      return CannotJoin(r, absl::StrCat("a peer calls itself rank ", rank));
    }
    peers[rank] = std::move(peer);
  }
  return peers;
}

absl::StatusOr<std::vector<Socket>> ConnectToFirst(const Rendezvous& r, absl::Time deadline) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  while (absl::Now() < deadline) {
    if (getaddrinfo(r.host.c_str(), absl::StrCat(r.port).c_str(), &hints, &found) == 0) {
      Socket peer(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const bool connected = connect(peer.descriptor(), found->ai_addr, found->ai_addrlen) == 0;
      freeaddrinfo(found);
      if (connected) {
        peer.SetTimeout(r.timeout);
        const int32_t rank = r.rank;
        REIN_RETURN_IF_ERROR(peer.Send(&rank, sizeof(rank)));
        std::vector<Socket> peers;
        peers.push_back(std::move(peer));
        return peers;
      }
    }
    absl::SleepFor(kRetry);  // rank 0 may not listen yet
  }
  return CannotJoin(r, "rank 0 did not answer in time");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinTcp(const Rendezvous& r) {
  if (r.size < 1 || r.rank < 0 || r.rank >= r.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank is ", r.rank, " of ", r.size, ", want 0 to ", r.size - 1));
  }
  const absl::Time deadline = absl::Now() + r.timeout;
  REIN_ASSIGN_OR_RETURN(std::vector<Socket> peers,
                        r.rank == 0 ? AcceptRanks(r, deadline) : ConnectToFirst(r, deadline));
  return std::make_unique<TcpGroup>(r.rank, r.size, std::move(peers));
}

}  // namespace rein::parallel
