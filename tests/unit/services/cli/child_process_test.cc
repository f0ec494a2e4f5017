#include "services/cli/child_process.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "services/cli/connection.h"
#include "services/cli/context.h"

namespace rein::cli {
namespace {

using ::testing::HasSubstr;

class ChildProcessTest : public ::testing::Test {
 protected:
  ChildCommand Shell(const std::string& script) {
    return {.program = "/bin/sh",
            .arguments = {"-c", script},
            .environment = {{"WHO", "rein"}},
            .log_file = log_};
  }

  void SetUp() override { std::filesystem::remove(log_); }

  std::string Log() {
    std::ifstream in(log_);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  int WaitForEnd(ChildProcess& child) {
    int code = -1;
    for (int i = 0; i < 2000 && !child.Reap(code); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return code;
  }

  // A process that nobody has waited for is still there.
  static bool Gone(pid_t pid) {
    for (int i = 0; i < 400; ++i) {
      std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
      std::string text{std::istreambuf_iterator<char>(status), {}};
      if (text.empty() || text.find(") Z ") != std::string::npos) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  const std::string log_ = testing::TempDir() + "/child_process_test.log";
};

TEST_F(ChildProcessTest, RunsWithItsEnvironmentAndLog) {
  ChildProcess child;
  ASSERT_TRUE(child.Start(Shell("echo hello $WHO; echo oops >&2; exit 3")).ok());
  EXPECT_EQ(WaitForEnd(child), 3);
  EXPECT_FALSE(child.running());
  EXPECT_EQ(Log(), "hello rein\noops\n");
}

TEST_F(ChildProcessTest, ASignalReachesTheWholeGroup) {
  ChildProcess child;
  ASSERT_TRUE(child.Start(Shell("sleep 100 & echo $!; wait")).ok());
  while (Log().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  pid_t grandchild = std::stoi(Log());
  child.Signal(SIGTERM);
  EXPECT_EQ(WaitForEnd(child), 128 + SIGTERM);
  EXPECT_TRUE(Gone(grandchild));
}

TEST_F(ChildProcessTest, DiesWithItsParent) {
  pid_t parent = fork();
  if (parent == 0) {
    ChildProcess child;
    if (!child.Start(Shell("echo $$; sleep 100")).ok()) _exit(1);
    pause();
    _exit(0);
  }
  while (Log().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  pid_t orphan = std::stoi(Log());
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_TRUE(Gone(orphan));
}

TEST_F(ChildProcessTest, AMissingProgramIsNamed) {
  ChildProcess child;
  ChildCommand command = Shell("");
  command.program = "/nowhere/rein-trainer";
  EXPECT_EQ(child.Start(command), absl::NotFoundError("there is no program /nowhere/rein-trainer"));
}

TEST(ContextTest, IsFoundAgainUntilItIsRemoved) {
  const std::string home = testing::TempDir() + "/context_test";
  std::filesystem::remove_all(home);
  setenv("REIN_HOME", home.c_str(), 1);
  unsetenv("REIN_SERVER");
  for (const char* name : {"REIN_CONTEXT", "REIN_TLS", "REIN_CA", "REIN_TOKEN_FILE"}) unsetenv(name);
  setenv("XDG_CONFIG_HOME", (home + "/config").c_str(), 1);
  auto server = [](const std::string& flag) { return FindConnection({.server = flag}, "")->server; };
  absl::Status nothing = FindConnection({}, "").status();
  EXPECT_EQ(nothing.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(nothing.message()), HasSubstr("rein up"));
  ASSERT_TRUE(WriteContext({.controller = "127.0.0.1:7000", .state = home, .supervisor = 12}).ok());
  EXPECT_EQ(server(""), "127.0.0.1:7000");
  EXPECT_EQ(ReadContext()->supervisor, 12);
  EXPECT_EQ(server("elsewhere:1"), "elsewhere:1");
  setenv("REIN_SERVER", "from-environment:2", 1);
  EXPECT_EQ(server(""), "from-environment:2");
  unsetenv("REIN_SERVER");
  std::ofstream(ContextFile()) << "[broken";
  EXPECT_THAT(std::string(ReadContext().status().message()), HasSubstr("is damaged: remove it"));
  RemoveContext();
  EXPECT_FALSE(ReadContext().ok());
}

TEST(ConnectionTest, NamedContextsAndWhatWins) {
  const std::string home = testing::TempDir() + "/connection_test";
  std::filesystem::remove_all(home);
  setenv("XDG_CONFIG_HOME", home.c_str(), 1);
  setenv("REIN_HOME", home.c_str(), 1);
  unsetenv("REIN_SERVER");
  EXPECT_TRUE(ReadContexts()->known.empty());
  Contexts contexts{.current = "lab"};
  contexts.known["lab"] = {.server = "lab:7000", .ca = "/ca.crt", .token_file = "/token"};
  contexts.known["cloud"] = {.server = "cloud:7000", .tls = "/tls"};
  ASSERT_TRUE(WriteContexts(contexts).ok());
  EXPECT_EQ(FindConnection({}, "")->token_file, "/token");
  EXPECT_EQ(FindConnection({}, "cloud")->tls, "/tls");
  EXPECT_EQ(FindConnection({.ca = "/other.crt"}, "lab")->ca, "/other.crt");
  // The token of a context goes to no other server.
  EXPECT_EQ(FindConnection({.server = "elsewhere:1"}, "")->token_file, "");
  EXPECT_THAT(std::string(FindConnection({}, "clod").status().message()), HasSubstr("did you mean cloud?"));
  std::ofstream(ContextsFile()) << "contexts: {lab: {sever: x}}";
  EXPECT_THAT(std::string(ReadContexts().status().message()), HasSubstr("contexts.lab.sever: no such key"));
  std::ofstream(ContextsFile()) << "contexts: {lab: [";
  EXPECT_TRUE(absl::IsInvalidArgument(ReadContexts().status()));
}

TEST(ConnectionTest, SecretsGoOverTlsAlone) {
  EXPECT_TRUE(UseConnection({.server = "127.0.0.1:7000"}).ok());
  EXPECT_THAT(std::string(UseConnection({.server = "lab:7000"}).status().message()), HasSubstr("give --ca FILE"));
  EXPECT_THAT(std::string(UseConnection({.server = "127.0.0.1:1", .token_file = "/t"}).status().message()),
              HasSubstr("over TLS alone"));
  EXPECT_TRUE(absl::IsNotFound(UseConnection({.server = "lab:1", .ca = "/nowhere.crt"}).status()));
  EXPECT_TRUE(absl::IsNotFound(UseConnection({.server = "lab:1", .tls = "/nowhere"}).status()));
}

}  // namespace
}  // namespace rein::cli
