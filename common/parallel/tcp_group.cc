#include "common/parallel/tcp_group.h"

#include <ATen/ATen.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status/fatal.h"
#include "common/status/status_macros.h"

namespace rein::parallel {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;
constexpr absl::Duration kRetry = absl::Milliseconds(50);

absl::Status CheckTensor(const at::Tensor& tensor) {
  if (tensor.is_cpu() && tensor.is_contiguous()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "process group over TCP: wants contiguous tensors in host memory");
}

absl::Status CannotJoin(const GroupPlace& place, absl::string_view why) {
  return absl::UnavailableError(
      absl::StrCat("rank ", place.rank, " of ", place.size, " cannot join its group at ",
                   place.listener != nullptr ? place.listener->address() : place.address, ": ",
                   why));
}

// The next connection; invalid when `until` has come.
absl::StatusOr<PeerSocket> AcceptOne(const GroupPlace& place, absl::Time until) {
  while (absl::Now() < until) {
    if (place.others) REIN_RETURN_IF_ERROR(place.others());
    pollfd wait{.fd = place.listener->descriptor(), .events = POLLIN, .revents = 0};
    if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(kRetry))) <= 0) continue;
    PeerSocket peer(accept4(place.listener->descriptor(), nullptr, nullptr, SOCK_CLOEXEC));
    if (peer.descriptor() >= 0) return peer;
  }
  return PeerSocket();
}

absl::StatusOr<std::vector<PeerSocket>> AcceptRanks(const GroupPlace& place, absl::Time until) {
  std::vector<PeerSocket> peers(static_cast<size_t>(place.size));
  for (int joined = 1; joined < place.size; ++joined) {
    REIN_ASSIGN_OR_RETURN(PeerSocket peer, AcceptOne(place, until));
    if (peer.descriptor() < 0) {
      return CannotJoin(place, absl::StrCat("only ", joined, " ranks came in time"));
    }
    peer.SetTimeout(place.timeout);
    int32_t rank = -1;
    REIN_RETURN_IF_ERROR(peer.Receive(&rank, sizeof(rank)));
    if (rank < 1 || rank >= place.size || peers[rank].descriptor() >= 0) {
      return CannotJoin(place, absl::StrCat("a peer calls itself rank ", rank));
    }
    peers[rank] = std::move(peer);
  }
  return peers;
}

absl::StatusOr<std::vector<PeerSocket>> ConnectToFirst(const GroupPlace& place, absl::Time until) {
  const size_t colon = place.address.rfind(':');
  if (colon == std::string::npos) return CannotJoin(place, "wants an address host:port");
  const std::string host = place.address.substr(0, colon), port = place.address.substr(colon + 1);
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  while (absl::Now() < until) {
    if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) == 0) {
      PeerSocket peer(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const bool connected = connect(peer.descriptor(), found->ai_addr, found->ai_addrlen) == 0;
      const bool refused = !connected && errno == ECONNREFUSED;
      freeaddrinfo(found);
      // It listened before it told where.
      if (refused) return CannotJoin(place, "rank 0 does not wait any more");
      if (connected) {
        peer.SetTimeout(place.timeout);
        const int32_t rank = place.rank;
        REIN_RETURN_IF_ERROR(peer.Send(&rank, sizeof(rank)));
        std::vector<PeerSocket> peers;
        peers.push_back(std::move(peer));
        return peers;
      }
    }
    absl::SleepFor(kRetry);
  }
  return CannotJoin(place, "rank 0 did not answer in time");
}

}  // namespace

absl::StatusOr<std::unique_ptr<TcpGroup>> TcpGroup::Join(const GroupPlace& place) {
  if (place.size < 1 || place.rank < 0 || place.rank >= place.size) {
    return absl::InvalidArgumentError(absl::StrCat("rank is ", place.rank, " of ", place.size,
                                                   ", want 0 to ", place.size - 1));
  }
  if (place.rank == 0 && place.listener == nullptr) {
    return absl::InvalidArgumentError("rank 0 of a group wants a listener");
  }
  const absl::Time until = absl::Now() + place.timeout;
  REIN_ASSIGN_OR_RETURN(std::vector<PeerSocket> peers, place.rank == 0
                                                           ? AcceptRanks(place, until)
                                                           : ConnectToFirst(place, until));
  return std::unique_ptr<TcpGroup>(new TcpGroup(place.rank, place.size, std::move(peers)));
}

absl::Status TcpGroup::AllReduceSum(at::Tensor tensor) {
  REIN_RETURN_IF_ERROR(CheckTensor(tensor));
  at::Tensor flat = tensor.view(-1);
  const int64_t step = kChunkBytes / static_cast<int64_t>(tensor.element_size());
  at::Tensor incoming = at::empty({std::min(step, flat.numel())}, flat.options());
  for (int64_t begin = 0; begin < flat.numel(); begin += step) {
    at::Tensor chunk = flat.narrow(0, begin, std::min(step, flat.numel() - begin));
    REIN_RETURN_IF_ERROR(Fatal(ReduceChunk(chunk, incoming.narrow(0, 0, chunk.numel()))));
  }
  return absl::OkStatus();
}

absl::Status TcpGroup::ReduceChunk(at::Tensor chunk, const at::Tensor& incoming) const {
  const auto bytes = static_cast<int64_t>(chunk.nbytes());
  if (rank_ != 0) {
    REIN_RETURN_IF_ERROR(peers_[0].Send(chunk.const_data_ptr(), bytes));
    return peers_[0].Receive(chunk.mutable_data_ptr(), bytes);
  }
  for (int r = 1; r < size_; ++r) {
    REIN_RETURN_IF_ERROR(peers_[r].Receive(incoming.mutable_data_ptr(), bytes));
    chunk.add_(incoming);
  }
  return Spread(chunk, /*root=*/0);
}

absl::Status TcpGroup::Broadcast(at::Tensor tensor, int root) {
  REIN_RETURN_IF_ERROR(CheckTensor(tensor));
  return Fatal(Spread(tensor, root));
}

absl::Status TcpGroup::Spread(const at::Tensor& tensor, int root) const {
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

absl::Status TcpGroup::AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) {
  if (!parts[rank_].is_same(own)) at::Tensor(parts[rank_]).copy_(own);
  for (int root = 0; root < size_; ++root) REIN_RETURN_IF_ERROR(Broadcast(parts[root], root));
  return absl::OkStatus();
}

absl::Status TcpGroup::CheckPeers() const {
  for (size_t r = 0; r < peers_.size(); ++r) {
    if (peers_[r].descriptor() < 0 || !peers_[r].IsClosed()) continue;
    return absl::UnavailableError(absl::StrCat("process group: rank ", r, " is gone"));
  }
  return absl::OkStatus();
}

}  // namespace rein::parallel
