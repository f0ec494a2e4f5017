#include "common/rpc/server.h"

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <netinet/in.h>
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
  static sockaddr_in Loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
  }
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
