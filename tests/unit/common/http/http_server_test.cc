#include "common/http/http_server.h"

#include "absl/time/clock.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/http/admin_routes.h"
#include "common/http/bounded_connection.h"

namespace rein::http {
namespace {

using ::testing::HasSubstr;

// A connection on which these bytes were sent.
int Connected(int port, const std::string& bytes = "") {
  const int one = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(one, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t put = send(one, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (put <= 0) break;  // the server has had enough
    sent += static_cast<size_t>(put);
  }
  return one;
}

// What comes, as far as `size` bytes.
std::string Received(int socket, size_t size) {
  std::string bytes(size, ' ');
  size_t got = 0;
  for (ssize_t more; got < size && (more = recv(socket, bytes.data() + got, size - got, 0)) > 0;) got += static_cast<size_t>(more);
  bytes.resize(got);
  return bytes;
}

bool IsOpen(int socket) {
  char byte;
  return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

constexpr size_t kLarge = 8 << 20;  // more than the kernel keeps for a connection

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    HttpOptions options{.address = "127.0.0.1:0", .max_body_bytes = 100};
    options.routes = AdminRoutes(metrics_, ready_);
    options.routes.push_back({"GET", "/job/([^/]+)", access::UserRole::kViewer,
                              [](const Request& request, Response& response) {
                                if (request.captures[0] == "none") {
                                  response.SetError(absl::NotFoundError("no job none"));
                                } else {
                                  response.body = request.captures[0] + request.Query("view");
                                }
                              }});
    options.routes.push_back({"POST", "/echo", access::UserRole::kViewer,
                              [](const Request& request, Response& response) {
                                response.body = request.body;
                              }});
    options.routes.push_back({"GET", "/stream", access::UserRole::kViewer,
                              [](const Request&, Response& response) {
                                response.type = kEvents;
                                response.stream = [](const Response::Send& send) {
                                  for (int i = 0; i < 3; ++i) send("data: " + std::to_string(i) + "\n\n");
                                };
                              }});
    options.routes.push_back({"GET", "/large", access::UserRole::kViewer,
                              [](const Request&, Response& response) { response.body = std::string(kLarge, 'x'); }});
    auto server = HttpServer::Create(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  httplib::Client Client() { return httplib::Client("127.0.0.1", server_->port()); }
  httplib::Result Get(const std::string& path) { return Client().Get(path); }

  telemetry::Metrics metrics_;
  std::atomic<bool> ready_ = false;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ServesWhatWasCounted) {
  metrics_.AddCounter("rein_test_completions_total", "Scored", {{"result", "ok"}}).Add(3);
  metrics_.AddCounter("rein_test_completions_total", "Scored", {{"result", "ok"}}).Add();
  metrics_.AddGauge("rein_test_policy_version", "In use", {{"rl_job", "digits"}}).Set(7);
  metrics_.AddHistogram("rein_test_duration_seconds", "Time", {0.1, 1.0}, {{"rl_job", "old"}}).Observe(0.5);
  auto response = Get("/metrics");
  ASSERT_TRUE(response) << to_string(response.error());
  EXPECT_THAT(response->body, HasSubstr("rein_test_completions_total{result=\"ok\"} 4"));
  EXPECT_THAT(response->body, HasSubstr("rein_test_policy_version{rl_job=\"digits\"} 7"));
  EXPECT_THAT(response->body, HasSubstr("le=\"0.1\"} 0"));
  EXPECT_THAT(response->body, HasSubstr("le=\"1\"} 1"));
  metrics_.RemoveGauge("rein_test_policy_version", "In use", {{"rl_job", "digits"}});
  metrics_.RemoveHistogram("rein_test_duration_seconds", "Time", {{"rl_job", "old"}});
  EXPECT_THAT(Get("/metrics")->body, ::testing::Not(HasSubstr("rl_job")));
}

TEST_F(HttpServerTest, ComesBackToItsPortAtOnce) {
  const std::string address = server_->address();
  httplib::Client client("127.0.0.1", server_->port());
  client.set_keep_alive(false);  // the server closes first, and the kernel remembers the connection
  ASSERT_EQ(client.Get("/healthz")->status, 200);
  server_.reset();
  auto again = HttpServer::Create({.address = address, .routes = AdminRoutes(metrics_, ready_)});
  EXPECT_TRUE(again.ok()) << again.status();
  auto second = HttpServer::Create({.address = address, .routes = AdminRoutes(metrics_, ready_)});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);  // a port taken is still an error
}

TEST_F(HttpServerTest, TellsWhatTheProcessUses) {
  const std::string page = Get("/metrics")->body;
  auto value = [&](const std::string& name) {
    const size_t at = page.find("\n" + name + " ");
    return at == std::string::npos ? -1 : std::stod(page.substr(at + name.size() + 2));
  };
  EXPECT_GT(value("process_resident_memory_bytes"), 1e6);
  EXPECT_GT(value("process_open_fds"), 3);
  EXPECT_GE(value("process_threads"), 4);
  EXPECT_GE(value("process_cpu_seconds_total"), 0);
  EXPECT_NEAR(value("process_start_time_seconds"), static_cast<double>(time(nullptr)), 120);
}

TEST_F(HttpServerTest, IsHealthyAtOnceAndReadyWhenTold) {
  EXPECT_EQ(Get("/healthz")->status, 200);
  EXPECT_EQ(Get("/readyz")->status, 503);
  ready_ = true;
  EXPECT_EQ(Get("/readyz")->status, 200);
}

TEST_F(HttpServerTest, RoutesGetTheirPathQueryAndBody) {
  EXPECT_EQ(Get("/job/digits?view=x")->body, "digitsx");
  EXPECT_EQ(Get("/job/none")->status, 404);
  EXPECT_EQ(Get("/job/none")->body, "{\"error\":\"no job none\"}");
  EXPECT_EQ(Get("/nothing")->status, 404);
  EXPECT_EQ(Client().Post("/echo", "words", "text/plain")->body, "words");
  EXPECT_EQ(Client().Post("/echo", std::string(100, 'x'), "text/plain")->status, 200);
  EXPECT_EQ(Client().Post("/echo", std::string(101, 'x'), "text/plain")->status, 413);
  EXPECT_EQ(Client().Post("/echo", std::string(10000, 'x'), "text/plain")->status, 413);
}

TEST_F(HttpServerTest, StreamsPieces) {
  auto response = Get("/stream");
  EXPECT_EQ(response->body, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
  EXPECT_EQ(response->get_header_value("Content-Type"), kEvents);
}

// A web site whose name was made to point here must not read what this machine may.
TEST_F(HttpServerTest, AnotherHostsNameIsRefused) {
  for (const char* host : {"evil.example", "evil.example:80", "10.0.0.1"}) {
    EXPECT_EQ(Client().Get("/metrics", {{"Host", host}})->status, 403) << host;
  }
  for (const char* host : {"localhost", "localhost:7080", "127.0.0.1:1"}) {
    EXPECT_EQ(Client().Get("/metrics", {{"Host", host}})->status, 200) << host;
  }
}

// A web site must not have a visitor's browser change something here.
TEST_F(HttpServerTest, PagesOfOtherOriginsChangeNothing) {
  const std::string own = "http://127.0.0.1:" + std::to_string(server_->port());
  auto post = [&](const httplib::Headers& headers) { return Client().Post("/echo", headers, "x", "text/plain")->status; };
  EXPECT_EQ(post({}), 200) << "no browser";
  EXPECT_EQ(post({{"Origin", own}}), 200);
  EXPECT_EQ(post({{"Origin", own}, {"Sec-Fetch-Site", "same-origin"}}), 200);
  EXPECT_EQ(post({{"Origin", "http://evil.example"}}), 403);
  EXPECT_EQ(post({{"Origin", "null"}}), 403);
  EXPECT_EQ(post({{"Origin", own}, {"Sec-Fetch-Site", "cross-site"}}), 403);
  EXPECT_EQ(post({{"Sec-Fetch-Site", "same-site"}}), 403) << "another port of this host";
  EXPECT_EQ(Client().Get("/job/digits", {{"Sec-Fetch-Site", "cross-site"}})->status, 200) << "a link, say";
}

TEST_F(HttpServerTest, PagesMayNotBeFramedOrSniffed) {
  auto response = Get("/healthz");
  EXPECT_THAT(response->get_header_value("Content-Security-Policy"), HasSubstr("frame-ancestors 'none'"));
  EXPECT_EQ(response->get_header_value("X-Content-Type-Options"), "nosniff");
}

// Many clients that come at once all get in line.
TEST_F(HttpServerTest, ABurstOfConnectionsIsServed) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server_->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::vector<int> clients;
  for (int i = 0; i < 400; ++i) {
    clients.push_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    connect(clients.back(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
  }
  const std::string request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  int served = 0;
  for (int one : clients) {
    fcntl(one, F_SETFL, fcntl(one, F_GETFL) & ~O_NONBLOCK);
    pollfd connected{one, POLLOUT, 0};
    poll(&connected, 1, 5000);
    char answer[16] = {};
    if (send(one, request.data(), request.size(), MSG_NOSIGNAL) > 0 && recv(one, answer, 12, MSG_WAITALL) == 12) {
      served += std::string(answer) == "HTTP/1.1 200";
    }
    close(one);
  }
  EXPECT_EQ(served, 400);
}

// Connections that never finish their request are dropped.
TEST_F(HttpServerTest, SlowSendersAreDropped) {
  std::vector<int> slow;
  for (int i = 0; i < 3; ++i) slow.push_back(Connected(server_->port(), "GET /he"));
  for (int one : slow) {
    EXPECT_EQ(Received(one, 1), "");  // closed by the server
    close(one);
  }
}

// Many more of them than threads, of every kind: none has to give up for others to be answered.
TEST_F(HttpServerTest, SlowConnectionsHoldUpNobody) {
  const std::string post = "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  const std::vector<std::string> beginnings = {"", "G", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", post + "Content-Length: 10\r\n\r\nhalf",
                                               post + "Transfer-Encoding: chunked\r\n\r\n5\r\nha"};
  std::vector<int> slow;
  for (size_t i = 0; i < 200; ++i) slow.push_back(Connected(server_->port(), beginnings[i % beginnings.size()]));
  httplib::Client client = Client();
  client.set_read_timeout(60, 0);  // threads held ten seconds each, four at a time, would take several minutes
  for (int i = 0; i < 20; ++i) {
    auto answer = client.Get("/healthz");
    ASSERT_TRUE(answer) << to_string(answer.error());
    EXPECT_EQ(answer->status, 200);
  }
  EXPECT_EQ(client.Post("/echo", "words", "text/plain")->body, "words");
  // What a slow one has begun it may also end.
  const int last = Connected(server_->port(), post + "Connection: close\r\nContent-Length: 10\r\n\r\nhalf");
  ASSERT_EQ(client.Get("/healthz")->status, 200);
  ASSERT_EQ(send(last, "a dozen", 6, MSG_NOSIGNAL), 6);
  EXPECT_THAT(Received(last, 4096), ::testing::EndsWith("\r\n\r\nhalfa doze"));
  close(last);
  for (int one : slow) close(one);
}

// Clients that ask for much and take nothing: what they are owed waits in memory, not on a thread.
TEST_F(HttpServerTest, SlowReadersHoldUpNobody) {
  std::vector<int> slow;
  for (int i = 0; i < 40; ++i) slow.push_back(Connected(server_->port(), "GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
  httplib::Client client = Client();
  client.set_read_timeout(30, 0);  // threads held five seconds each, four at a time, would take fifty
  auto answer = client.Get("/healthz");
  ASSERT_TRUE(answer) << to_string(answer.error());
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(client.Get("/large")->body, std::string(kLarge, 'x'));  // those that read have all of it
  for (int one : slow) close(one);
}

// Beyond what the process can hold, those that have been slow for longest give way to those that come.
TEST_F(HttpServerTest, TheSlowestGiveWay) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 256;  // as the server reads it: half of them for connections
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  auto server = HttpServer::Create({.address = "127.0.0.1:0", .routes = AdminRoutes(metrics_, ready_)});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<int> slow;
  for (int i = 0; i < 300; ++i) slow.push_back(Connected((*server)->port(), "GET /he"));
  httplib::Client client("127.0.0.1", (*server)->port());
  client.set_read_timeout(60, 0);
  auto answer = client.Get("/healthz");
  ASSERT_TRUE(answer) << to_string(answer.error());
  EXPECT_EQ(answer->status, 200);
  EXPECT_FALSE(IsOpen(slow.front()));
  for (int one : slow) close(one);
}

// The status of what is answered to these bytes; 0: the connection ended without an answer.
int StatusOfRaw(int port, const std::string& bytes) {
  const int one = Connected(port, bytes);
  const std::string answer = Received(one, 12);
  close(one);
  return answer.size() == 12 ? std::stoi(answer.substr(9)) : 0;
}

// httplib itself bounds each header, not their number.
TEST_F(HttpServerTest, AHeadIsBounded) {
  auto head_of = [](size_t bytes) {
    std::string head = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n";
    const std::string end = "\r\n";
    for (int i = 0; head.size() + end.size() < bytes; ++i) {
      const size_t left = bytes - head.size() - end.size();
      const size_t size = left < 2000 ? left : 1000;
      std::string line = "X-" + std::to_string(i) + ": ";
      line += std::string(size - line.size() - 2, 'x') + "\r\n";
      head += line;
    }
    return head + end;
  };
  const size_t limit = RequestBounds().head_bytes;
  EXPECT_EQ(StatusOfRaw(server_->port(), head_of(limit)), 200);
  for (size_t bytes : {limit + 1, 100 * limit}) {
    const int status = StatusOfRaw(server_->port(), head_of(bytes));
    EXPECT_TRUE(status == 431 || status == 0) << status;
  }
  EXPECT_EQ(Get("/healthz")->status, 200);
}

// With a length and, where the library knows no bound, in chunks.
TEST_F(HttpServerTest, ABodyIsBounded) {
  auto with_length = [&](size_t bytes) {
    return StatusOfRaw(server_->port(), "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: " +
                                            std::to_string(bytes) + "\r\n\r\n" + std::string(bytes, 'x'));
  };
  auto in_chunks = [&](size_t bytes) {
    std::string request = "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (size_t left = bytes; left > 0;) {
      const size_t size = std::min<size_t>(left, 9);
      request += std::to_string(size) + "\r\n" + std::string(size, 'x') + "\r\n";
      left -= size;
    }
    return StatusOfRaw(server_->port(), request + "0\r\n\r\n");
  };
  EXPECT_EQ(with_length(100), 200);
  EXPECT_EQ(in_chunks(100), 200);
  for (size_t bytes : {size_t{101}, size_t{10'000}, size_t{10'000'000}}) {
    const int whole = with_length(bytes), pieces = in_chunks(bytes);
    EXPECT_TRUE(whole == 413 || whole == 0) << bytes << ": " << whole;
    EXPECT_TRUE(pieces == 413 || pieces == 400 || pieces == 0) << bytes << ": " << pieces;
  }
  EXPECT_EQ(in_chunks(101), 413);
  EXPECT_EQ(Get("/healthz")->status, 200);
}

// Requests whose end two readers would see at two places.
TEST_F(HttpServerTest, WhereARequestEndsIsClear) {
  const std::string post = "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n";
  auto status = [&](const std::string& rest) { return StatusOfRaw(server_->port(), post + rest); };
  EXPECT_EQ(status("Content-Length: 5\r\n\r\nwords"), 200);
  EXPECT_EQ(status("Content-Length: 5\r\nContent-Length: 5\r\n\r\nwords"), 200);
  EXPECT_EQ(status("\r\n"), 200) << "no body";
  EXPECT_EQ(status("transfer-encoding: Chunked\r\n\r\n5;a=b\r\nwords\r\n0\r\n\r\n"), 200);
  for (const char* bad : {"Content-Length: 5\r\nContent-Length: 6\r\n\r\nwords", "Content-Length: +5\r\n\r\nwords", "Content-Length: \r\n\r\n",
                          "Content-Length: 99999999999999999999\r\n\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                          "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nfive\r\nwords\r\n0\r\n\r\n",
                          "Transfer-Encoding: chunked\r\n\r\n-1\r\nwords\r\n0\r\n\r\n"}) {
    EXPECT_EQ(status(bad), 400) << bad;
  }
  EXPECT_EQ(status("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"), 413);
  EXPECT_EQ(status("Transfer-Encoding: chunked\r\n\r\n" + std::string(5000, '0')), 400);
}

// A second request that came with the first, and a body that a GET should not have.
TEST_F(HttpServerTest, RequestsInARowAreAnsweredInTurn) {
  const std::string head = " HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  const int one = Connected(server_->port(), "GET /job/a" + head + "Content-Length: 4\r\n\r\nbodyGET /job/b" + head + "\r\nPOST /echo" + head +
                                                 "Connection: close\r\nContent-Length: 1\r\n\r\nc");
  const std::string answers = Received(one, 1 << 20);
  EXPECT_THAT(answers, HasSubstr("\r\n\r\naHTTP/1.1 200"));
  EXPECT_THAT(answers, HasSubstr("\r\n\r\nbHTTP/1.1 200"));
  EXPECT_THAT(answers, ::testing::EndsWith("\r\n\r\nc"));
  close(one);
}

TEST_F(HttpServerTest, ABodyIsAskedForOnce) {
  const int one = Connected(server_->port(), "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nConnection: close\r\n"
                                             "Content-Length: 5\r\n\r\n");
  const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  EXPECT_EQ(Received(one, go_on.size()), go_on);
  ASSERT_EQ(send(one, "words", 5, MSG_NOSIGNAL), 5);
  const std::string answer = Received(one, 4096);
  EXPECT_THAT(answer, ::testing::StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\nwords"));
  close(one);
}

// A client that sends all of what is too large, and looks for the answer only then.
TEST_F(HttpServerTest, ARefusalReachesTheClient) {
  const std::string large = "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3000000\r\n\r\n" + std::string(3'000'000, 'x');
  for (int i = 0; i < 20; ++i) EXPECT_EQ(StatusOfRaw(server_->port(), large), 413);
}

// A byte now and then used to buy a sender more time, for ever.
TEST_F(HttpServerTest, TricklingSendersAreDropped) {
  const absl::Time begin = absl::Now();
  const int one = Connected(server_->port(), "GET /healthz HTTP/1.1\r\n");
  pollfd closed{.fd = one, .events = POLLIN, .revents = 0};
  while (poll(&closed, 1, 500) == 0 && absl::Now() - begin < absl::Seconds(60)) send(one, "X", 1, MSG_NOSIGNAL);
  EXPECT_LT(absl::Now() - begin, RequestBounds().request + absl::Seconds(20));  // on a busy machine
  EXPECT_EQ(Get("/healthz")->status, 200);
  close(one);
}

TEST_F(HttpServerTest, BadAddressesAreRefused) {
  auto create = [](const std::string& address) { return HttpServer::Create({.address = address}).status(); };
  EXPECT_TRUE(absl::IsInvalidArgument(create("9464")));
  EXPECT_TRUE(absl::IsUnavailable(create(server_->address())));
  absl::Status open = create("0.0.0.0:0");
  EXPECT_TRUE(absl::IsInvalidArgument(open));
  EXPECT_THAT(std::string(open.message()), HasSubstr("would be open to other machines"));
}

}  // namespace
}  // namespace rein::http
