// The command against controllers of other versions, over gRPC.

#include "services/cli/version_skew.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/rpc/server.h"
#include "common/version/build_version.h"
#include "rein/v1/controller.grpc.pb.h"
#include "services/cli/command_line.h"
#include "services/cli/exit_code.h"

namespace rein::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(VersionSkewTest, OneMinorVersionApartWorks) {
  for (const char* theirs : {"0.3.0", "0.2.9", "0.4.7", "unknown", ""}) EXPECT_FALSE(SkewOf("0.3.1", theirs).has_value()) << theirs;
  for (const char* theirs : {"0.1.0", "0.5.0", "1.3.1", "0.10.0"}) EXPECT_TRUE(SkewOf("0.3.1", theirs).has_value()) << theirs;
  EXPECT_EQ(SkewOf("0.1.0", "0.3.0")->both, "rein 0.1.0, controller 0.3.0");
  EXPECT_THAT(SkewOf("0.1.0", "0.3.0")->next, HasSubstr("within one minor version: update this rein to 0.3.0"));
  EXPECT_THAT(SkewOf("1.0.0", "0.9.0")->next, HasSubstr("update the services to 1.0.0, or use a rein 0.9.0"));
}

// A controller of the given release that has one job, and does not know how to list actors.
class OtherController final : public v1::ControllerService::Service {
 public:
  std::string release;

  grpc::Status GetServer(grpc::ServerContext*, const v1::GetServerRequest*, v1::GetServerReply* reply) override {
    if (release.empty()) return {grpc::StatusCode::UNIMPLEMENTED, ""};
    reply->mutable_build()->set_release(release);
    return grpc::Status::OK;
  }
  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest*, v1::ListJobsReply* reply) override {
    reply->add_jobs()->set_name("digits");
    return grpc::Status::OK;
  }
};

class OtherVersionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("REIN_HOME", (testing::TempDir() + "/version_skew_test").c_str(), 1);
    server_ = *rpc::Server::Create({.address = "127.0.0.1:0"}, {&controller_});
  }

  // Its exit code, what it printed and what it said beside that.
  struct Result {
    int code;
    std::string out, err;
  };
  Result Rein(std::vector<std::string> words) {
    words.insert(words.begin(), "rein");
    words.insert(words.end(), {"--server", server_->address()});
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
    return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  }

  // This build's release with another minor version.
  static std::string Release(int more) {
    const std::vector<std::string> parts = absl::StrSplit(version::ThisBuild().release(), '.');
    return absl::StrCat(parts[0], ".", std::stoi(parts[1]) + more, ".0");
  }

  OtherController controller_;
  std::unique_ptr<rpc::Server> server_;
};

TEST_F(OtherVersionTest, OneApartIsSilent) {
  controller_.release = Release(1);
  const Result result = Rein({"get", "jobs", "-o", "name"});
  EXPECT_EQ(result.code, kExitOk);
  EXPECT_EQ(result.out, "digits\n");
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(OtherVersionTest, TwoApartIsSaidWithTheNextStep) {
  controller_.release = Release(2);
  const Result result = Rein({"get", "jobs", "-o", "name"});
  EXPECT_EQ(result.code, kExitOk);
  EXPECT_EQ(result.out, "digits\n") << "what both know works, and the warning is not among it";
  EXPECT_EQ(result.err, absl::StrCat("warning: rein ", version::ThisBuild().release(), ", controller ", Release(2),
                                     ": they work together within one minor version: update this rein to ", Release(2), "\n"));
}

TEST_F(OtherVersionTest, AControllerThatDoesNotKnowACallIsCalledOlder) {
  controller_.release = "";
  const Result result = Rein({"get", "actors"});
  EXPECT_EQ(result.code, kExitFailed);
  EXPECT_THAT(result.err, HasSubstr(absl::StrCat("the controller at ", server_->address(), " does not know this yet: it is older than this rein")));
}

}  // namespace
}  // namespace rein::cli
