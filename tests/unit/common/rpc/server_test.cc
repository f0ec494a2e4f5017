#include "common/rpc/server.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/limits.h"
#include "rein/v1/reward.grpc.pb.h"
#include "tests/unit/common/rpc/health.h"

namespace rein::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RefusingService final : public v1::RewardService::Service {
 public:
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRewardsRequest* request,
                     v1::ScoreRewardsReply*) override {
    if (request->items_size() == 0) return grpc::Status::OK;
    return ToGrpc(absl::InvalidArgumentError(std::string(kMaxStatusBytes + 100, 'x')));
  }
};

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// Passes bytes on between one client and a server after holding the first ones back: a machine too busy for handshakes.
class SlowDoor {
 public:
  SlowDoor(const std::string& server, absl::Duration delay) : delay_(delay) {
    server_port_ = std::stoi(server.substr(server.rfind(':') + 1));
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any = Loopback(0);
    socklen_t size = sizeof(any);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&any), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&any), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(any.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }
  ~SlowDoor() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (std::thread& pump : pumps_) pump.join();
    close(listener_);
  }
  const std::string& address() const { return address_; }

 private:
  static void Pump(int from, int to) {
    char bytes[4096];
    for (ssize_t got; (got = recv(from, bytes, sizeof(bytes), 0)) > 0;) {
      if (send(to, bytes, static_cast<size_t>(got), MSG_NOSIGNAL) != got) break;
    }
    shutdown(from, SHUT_RDWR);
    shutdown(to, SHUT_RDWR);
  }
  void Serve() {
    for (int client; (client = accept(listener_, nullptr, nullptr)) >= 0;) {
      const int server = socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in to = Loopback(server_port_);
      EXPECT_EQ(connect(server, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
      pumps_.emplace_back(Pump, client, server);
      pumps_.emplace_back([this, client, server] {
        absl::SleepFor(delay_);
        Pump(server, client);
      });
    }
  }

  const absl::Duration delay_;
  int server_port_ = 0, listener_ = -1;
  std::string address_;
  std::vector<std::thread> pumps_;
  std::thread thread_;
};

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = Server::Create(
        {.address = "127.0.0.1:0",
         .on_handled =
             [this](const HandledCall& call) {
               std::lock_guard<std::mutex> lock(mutex_);
               handled_.push_back(call.service + "." + call.method + " " + call.code);
             }},
        {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = Connect(server_->address());
  }

  absl::Status Score(int items) {
    auto stub = v1::RewardService::NewStub(channel_);
    grpc::ClientContext context;
    SetDeadline(context, absl::Seconds(10));
    v1::ScoreRewardsRequest request;
    for (int i = 0; i < items; ++i) request.add_items();
    v1::ScoreRewardsReply reply;
    return FromGrpc(stub->Score(&context, request, &reply));
  }

  RefusingService service_;
  std::mutex mutex_;
  std::vector<std::string> handled_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ServerTest, AHandshakeMayTakeLongerThanAPauseBetweenAttempts) {
  auto door = std::make_unique<SlowDoor>(server_->address(), 2 * kMaxReconnectPause);
  channel_ = Connect(door->address());
  EXPECT_TRUE(Score(0).ok());
  channel_.reset();
}

TEST_F(ServerTest, CountsCallsByMethodAndCode) {
  EXPECT_TRUE(Score(0).ok());
  EXPECT_EQ(Score(1).code(), absl::StatusCode::kInvalidArgument);
  server_.reset();
  EXPECT_THAT(handled_, ElementsAre("rein.v1.RewardService.Score OK",
                                    "rein.v1.RewardService.Score INVALID_ARGUMENT"));
}

TEST_F(ServerTest, LongStatusTextsArriveCut) {
  EXPECT_EQ(Score(1).message().size(), kMaxStatusBytes);
}

TEST_F(ServerTest, AnswersTheStandardHealthService) {
  EXPECT_EQ(AskHealth(channel_), kServing);
  server_->SetServing(false);
  EXPECT_EQ(AskHealth(channel_), kNotServing);
}

// The server may close the connection that sent too much; others do not notice.
TEST_F(ServerTest, MetadataIsBounded) {
  auto call = [&](size_t bytes) {
    auto stub = v1::RewardService::NewStub(Connect(server_->address()));
    grpc::ClientContext context;
    SetDeadline(context, absl::Seconds(30));
    context.AddMetadata("x-pad", std::string(bytes, 'x'));
    v1::ScoreRewardsReply reply;
    return FromGrpc(stub->Score(&context, v1::ScoreRewardsRequest(), &reply));
  };
  EXPECT_TRUE(call(kMaxMetadataBytes - 1024).ok()) << "with what gRPC itself adds";
  for (size_t bytes : {size_t{kMaxMetadataBytes}, size_t{kMaxMetadataBytes} + 1, 100 * size_t{kMaxMetadataBytes}}) {
    EXPECT_FALSE(call(bytes).ok()) << bytes;
    EXPECT_TRUE(Score(0).ok()) << bytes;
  }
}

TEST_F(ServerTest, AMessageIsBounded) {
  grpc::ChannelArguments boundless;
  boundless.SetMaxSendMessageSize(-1);
  auto stub = v1::RewardService::NewStub(
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), boundless));
  auto call = [&](size_t bytes) {
    grpc::ClientContext context;
    SetDeadline(context, absl::Seconds(60));
    v1::ScoreRewardsRequest request;
    std::string* text = request.add_model_scorers();
    text->assign(bytes, 'x');
    while (request.ByteSizeLong() > bytes) text->pop_back();  // what stands around it
    EXPECT_EQ(request.ByteSizeLong(), bytes);
    v1::ScoreRewardsReply reply;
    return FromGrpc(stub->Score(&context, request, &reply));
  };
  EXPECT_TRUE(call(kMaxMessageBytes).ok());
  EXPECT_EQ(call(size_t{kMaxMessageBytes} + 1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Score(0).ok());
}

// Speaks as much HTTP/2 as it takes to announce a message and send as much of it as the server takes.
class Announcer {
 public:
  explicit Announcer(const std::string& address) {
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in server = Loopback(std::stoi(address.substr(address.rfind(':') + 1)));
    EXPECT_EQ(connect(socket_, reinterpret_cast<sockaddr*>(&server), sizeof(server)), 0);
    std::string head;  // HPACK, each a literal that is not indexed
    for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{{":method", "POST"},
                                                                                      {":scheme", "http"},
                                                                                      {":path", "/rein.v1.RewardService/Score"},
                                                                                      {":authority", "127.0.0.1"},
                                                                                      {"content-type", "application/grpc"},
                                                                                      {"te", "trailers"}}) {
      head += '\0' + std::string(1, static_cast<char>(name.size())) + name + std::string(1, static_cast<char>(value.size())) + value;
    }
    Put("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "") + Frame(kHeaders, kEndHeaders, 1, head));
  }
  ~Announcer() { close(socket_); }

  // The bytes of the message that the server took until it ended the call; `each` is called between frames.
  uint64_t Send(uint64_t message, const std::function<void()>& each) {
    std::string prefix(1, '\0');  // not compressed
    for (int shift = 24; shift >= 0; shift -= 8) prefix += static_cast<char>(message >> shift);
    Put(Frame(kData, 0, 1, prefix));
    stream_ -= 5;
    connection_ -= 5;
    uint64_t sent = 0;
    while (!ended_ && sent < message) {
      const int64_t piece = std::min<int64_t>({16384, stream_, connection_, static_cast<int64_t>(message - sent)});
      if (piece > 0) {
        Put(Frame(kData, 0, 1, std::string(static_cast<size_t>(piece), 'x')));
        sent += static_cast<uint64_t>(piece);
        stream_ -= piece;
        connection_ -= piece;
      }
      pollfd ready{.fd = socket_, .events = POLLIN, .revents = 0};
      if (piece <= 0 && poll(&ready, 1, 60'000) == 0) {
        ADD_FAILURE() << "the server neither takes more nor ends the call";
        break;
      }
      while (!ended_ && poll(&ready, 1, 0) > 0) TakeFrame();
      each();
    }
    return sent;
  }
  bool ended() const { return ended_; }

 private:
  enum : uint8_t { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kGoAway = 7, kWindowUpdate = 8 };
  enum : uint8_t { kAck = 1, kEndStream = 1, kEndHeaders = 4 };

  static std::string Number(uint32_t number) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(number >> shift);
    return bytes;
  }
  static uint32_t NumberAt(const std::string& bytes, size_t at) {
    uint32_t number = 0;
    for (size_t i = at; i < at + 4; ++i) number = number << 8 | static_cast<uint8_t>(bytes[i]);
    return number;
  }
  static std::string Frame(uint8_t kind, uint8_t flags, uint32_t stream, const std::string& content) {
    return Number(static_cast<uint32_t>(content.size())).substr(1) + static_cast<char>(kind) + static_cast<char>(flags) + Number(stream) + content;
  }

  void Put(const std::string& bytes) {
    if (send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) ended_ = true;
  }
  std::string Take(size_t size) {
    std::string bytes(size, '\0');
    if (size > 0 && recv(socket_, bytes.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) ended_ = true;
    return bytes;
  }
  void TakeFrame() {
    const std::string head = Take(9);
    const std::string content = Take(NumberAt(head, 0) >> 8);
    if (ended_) return;
    const auto kind = static_cast<uint8_t>(head[3]), flags = static_cast<uint8_t>(head[4]);
    if (kind == kReset || kind == kGoAway || (kind == kHeaders && (flags & kEndStream) != 0)) ended_ = true;
    if (kind == kPing && (flags & kAck) == 0) Put(Frame(kPing, kAck, 0, content));
    if (kind == kWindowUpdate) (NumberAt(head, 5) == 0 ? connection_ : stream_) += NumberAt(content, 0);
    if (kind != kSettings || (flags & kAck) != 0) return;
    for (size_t at = 0; at + 6 <= content.size(); at += 6) {
      const uint32_t value = NumberAt(content, at + 2);
      if (content[at + 1] != 4) continue;  // of a stream's first window
      stream_ += int64_t{value} - first_window_;
      first_window_ = value;
    }
    Put(Frame(kSettings, kAck, 0, ""));
  }

  int socket_ = -1;
  int64_t first_window_ = 65535, stream_ = 65535, connection_ = 65535;
  bool ended_ = false;
};

uint64_t ResidentBytes() {
  uint64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * static_cast<uint64_t>(getpagesize());
}

#ifdef __SANITIZE_ADDRESS__
constexpr uint64_t kKeptFreed = 256 << 20;  // the address sanitizer's quarantine
#else
constexpr uint64_t kKeptFreed = 0;
#endif

// gRPC gathers what a message announces before it refuses it, so all that is on its way in together is bounded.
TEST_F(ServerTest, AMessageFarTooLargeIsNotGathered) {
  constexpr size_t kMost = 128 << 20;
  ServerOptions options{.address = "127.0.0.1:0"};
  options.incoming_bytes = kMost;
  auto server = Server::Create(std::move(options), {&service_});
  ASSERT_TRUE(server.ok()) << server.status();
  channel_ = Connect((*server)->address());
  for (int i = 0; i < 3; ++i) {
    Announcer announcer((*server)->address());
    const uint64_t before = ResidentBytes();
    uint64_t most = before;
    const uint64_t sent = announcer.Send(15ULL * kMaxMessageBytes, [&most] { most = std::max(most, ResidentBytes()); });  // nearly the 32 bits of a length
    EXPECT_TRUE(announcer.ended());
    EXPECT_LT(sent, 2 * kMost);
    EXPECT_LT(most - before, 2 * kMost + kKeptFreed);
    EXPECT_TRUE(Score(0).ok());
  }
  // Those that send less than they announced hold up nobody.
  Announcer half((*server)->address());
  EXPECT_EQ(half.Send(1 << 20, [] {}), 1 << 20);
  EXPECT_TRUE(Score(0).ok());
}

// Connections that say nothing, or half of what a connection begins with, take no thread and no turn from others.
TEST_F(ServerTest, ConnectionsThatHangCostOthersNothing) {
  const int port = std::stoi(server_->address().substr(server_->address().rfind(':') + 1));
  std::vector<int> hanging;
  for (int i = 0; i < 300; ++i) {
    const int one = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(one, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const std::string begin = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\x10\x01\x04\0\0\0\x01", 9);  // HEADERS of 16 bytes
    const size_t said = static_cast<size_t>(i) % (begin.size() + 1);
    ASSERT_EQ(send(one, begin.data(), said, MSG_NOSIGNAL), static_cast<ssize_t>(said));
    hanging.push_back(one);
  }
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Score(0).ok()) << i;
  channel_ = Connect(server_->address());  // a new connection, too
  EXPECT_TRUE(Score(0).ok());
  for (int one : hanging) close(one);
  EXPECT_TRUE(Score(0).ok());
}

TEST_F(ServerTest, ATakenPortIsAnErrorThatNamesIt) {
  auto second = Server::Create(server_->address(), &service_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("cannot listen on " + server_->address()));
  EXPECT_THAT(second.status().message(), HasSubstr("the port is taken"));
}

TEST_F(ServerTest, AChannelWithoutAPeerIsUnavailable) {
  server_.reset();
  EXPECT_EQ(Score(0).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace rein::rpc
