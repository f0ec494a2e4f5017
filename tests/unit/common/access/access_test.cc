#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "common/access/audit_log.h"
#include "common/access/call_limit.h"
#include "common/access/caller.h"
#include "common/access/method_access.h"
#include "common/access/user_tokens.h"
#include "rein/v1/controller.pb.h"
#include "rein/v1/debug.pb.h"
#include "rein/v1/reference.pb.h"
#include "rein/v1/reward.pb.h"
#include "rein/v1/rollout.pb.h"
#include "rein/v1/trainer.pb.h"
#include "rein/v1/weights.pb.h"

namespace rein::access {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Caller Service(const std::string& role) { return CallerOfCertificate({ServiceUri(role)}); }
Caller User(UserRole role) { return CallerOfCertificate({UserUri("maths", "ada", role)}); }

TEST(CallerTest, ACertificateSaysWhoItIs) {
  EXPECT_EQ(Service("trainer").Name(), "service trainer");
  Caller ada = CallerOfCertificate({"https://elsewhere/x", "spiffe://rein/user/maths/ada/submitter"});
  EXPECT_EQ(ada.Name(), "user ada");
  EXPECT_EQ(ada.tenant, "maths");
  EXPECT_EQ(ada.role, UserRole::kSubmitter);
  EXPECT_FALSE(ada.sees_all());
  EXPECT_TRUE(User(UserRole::kAdmin).sees_all());
}

TEST(CallerTest, OtherCertificatesAreNobodys) {
  for (const char* uri : {"spiffe://rein/service", "spiffe://rein/service/", "spiffe://other/service/trainer",
                          "spiffe://rein/user/maths/ada/root", "spiffe://rein/user/maths//admin", ""}) {
    EXPECT_FALSE(CallerOfCertificate({uri}).known()) << uri;
  }
  EXPECT_FALSE(CallerOfCertificate({}).known());
}

// Every method of the protocol says who may call it, and nobody else may.
TEST(MethodAccessTest, EveryMethodHasCallersAndRefusesAllOthers) {
  const google::protobuf::FileDescriptor* files[] = {
      v1::SubmitRequest::descriptor()->file(),       v1::LoadModelRequest::descriptor()->file(),
      v1::ScoreTokensRequest::descriptor()->file(),  v1::ScoreRewardsRequest::descriptor()->file(),
      v1::LoadTrainerRequest::descriptor()->file(),  v1::BeginWeightsRequest::descriptor()->file(),
      v1::TraceLayersRequest::descriptor()->file()};
  int methods = 0;
  for (const auto* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m, ++methods) {
        const auto* method = file->service(s)->method(m);
        const std::string path = "/" + method->service()->full_name() + "/" + method->name();
        const v1::MethodAccess& access = method->options().GetExtension(v1::access);
        EXPECT_TRUE(access.services_size() > 0 || !access.user().empty()) << path;
        EXPECT_TRUE(absl::IsUnauthenticated(CheckAccess(path, Caller()))) << path;
        for (const char* role : {"controller", "trainer", "rollout", "reference", "reward", "nonsense"}) {
          const auto& allowed = access.services();
          const bool may = std::find(allowed.begin(), allowed.end(), role) != allowed.end();
          EXPECT_EQ(CheckAccess(path, Service(role)).ok(), may) << path << " by " << role;
        }
        for (UserRole role : {UserRole::kViewer, UserRole::kSubmitter, UserRole::kAdmin}) {
          const bool may = !access.user().empty() && role >= *ParseUserRole(access.user());
          EXPECT_EQ(CheckAccess(path, User(role)).ok(), may) << path << " by " << NameOf(role);
        }
      }
    }
  }
  EXPECT_GE(methods, 41);
}

TEST(MethodAccessTest, WhatIsNotInTheProtosIsOpenToNobody) {
  for (const char* path : {"/rein.v1.ControllerService/Nothing", "/other.Service/Do", "", "/", "//"}) {
    EXPECT_TRUE(absl::IsPermissionDenied(CheckAccess(path, User(UserRole::kAdmin)))) << path;
  }
  EXPECT_TRUE(CheckAccess("/grpc.health.v1.Health/Check", Caller()).ok());
  EXPECT_THAT(std::string(CheckAccess("/rein.v1.ControllerService/Submit", User(UserRole::kViewer)).message()),
              HasSubstr("user ada (viewer) may not: a user with the role submitter may"));
}

class UserTokensTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) {
    std::ofstream(path_) << text;
    fs::last_write_time(path_, fs::file_time_type::clock::now() + std::chrono::seconds(++writes_));
    clock_.Advance(absl::Seconds(1));
  }

  int writes_ = 0;
  const std::string path_ = testing::TempDir() + "/user_tokens_test.json";
  sync::VirtualClock clock_{absl::FromUnixSeconds(1'800'000'000)};
};

TEST_F(UserTokensTest, KnowsThoseInTheFileAndFollowsIt) {
  const std::string token = NewToken();
  EXPECT_EQ(token.size(), 5 + 64);
  EXPECT_NE(token, NewToken());
  Write(FormatUserTokens({{.user = "ada", .tenant = "maths", .role = UserRole::kSubmitter,
                           .sha256 = DigestOf(token),
                           .expires = clock_.Now() + absl::Hours(1)}}));
  auto tokens = UserTokens::Open(path_, clock_);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  auto caller = (*tokens)->Find(token);
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->tenant, "maths");
  EXPECT_TRUE(absl::IsUnauthenticated((*tokens)->Find(token + "0").status()));
  EXPECT_TRUE(absl::IsUnauthenticated((*tokens)->Find("").status()));
  Write("{\"tokens\": [{}]}");  // half a change: what was known counts on
  EXPECT_TRUE((*tokens)->Find(token).ok());
  clock_.Advance(absl::Hours(2));
  EXPECT_THAT(std::string((*tokens)->Find(token).status().message()), HasSubstr("expired at"));
  Write("{\"tokens\": []}");
  EXPECT_THAT(std::string((*tokens)->Find(token).status().message()), HasSubstr("not known"));
}

TEST_F(UserTokensTest, TheFileHoldsNoToken) {
  const std::string token = NewToken();
  const std::string text = FormatUserTokens({{.user = "ada", .tenant = "ada", .sha256 = DigestOf(token)}});
  EXPECT_EQ(text.find(token.substr(5)), std::string::npos);
  EXPECT_EQ(ParseUserTokens(text)->size(), 1);
}

TEST_F(UserTokensTest, MistakesAreNamed) {
  const std::string digest(64, 'a');
  for (const auto& [text, wrong] : {std::pair<std::string, std::string>{"[]", "wants {\"tokens\""},
                                    {"{\"tokens\": [{\"role\": \"viewer\"}]}", "tokens[0] has no user"},
                                    {"{\"tokens\": [{\"user\": \"a\", \"role\": \"root\"}]}", "got 'root'"},
                                    {"{\"tokens\": [{\"user\": \"a\", \"role\": \"admin\", \"sha256\": \"\"}]}",
                                     "64 lower-case hexadecimal digits"},
                                    {"{\"tokens\": [{\"user\": \"a\", \"role\": \"admin\", \"sha256\": \"" + digest +
                                         "\", \"expires\": \"soon\"}]}",
                                     "expires"}}) {
    EXPECT_THAT(std::string(ParseUserTokens(text).status().message()), HasSubstr(wrong)) << text;
  }
  EXPECT_TRUE(absl::IsNotFound(UserTokens::Open("/nowhere/tokens.json", clock_).status()));
}

TEST(CallLimitTest, EachTenantHasItsOwn) {
  sync::VirtualClock clock{absl::FromUnixSeconds(1'800'000'000)};
  CallLimit limit(clock, {.per_second = 10, .at_once = 20});
  const Caller ada = User(UserRole::kViewer), bob = CallerOfCertificate({UserUri("physics", "bob", UserRole::kAdmin)}),
               eve = CallerOfCertificate({UserUri("maths", "eve", UserRole::kViewer)});
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(limit.Take(i % 2 == 0 ? ada : eve).ok()) << i;
  EXPECT_EQ(limit.Take(ada), absl::ResourceExhaustedError("too many calls of tenant maths: at most 10 a second; try again in a moment"));
  EXPECT_FALSE(limit.Take(eve).ok()) << "of the same tenant";
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(limit.Take(bob).ok()) << "not of his";
  EXPECT_FALSE(limit.Take(bob).ok()) << "an admin's calls count too";
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(limit.Take(Service("trainer")).ok());
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(limit.Take(Caller{.local = true}).ok());
  clock.Advance(absl::Milliseconds(500));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(limit.Take(ada).ok()) << i;
  EXPECT_FALSE(limit.Take(ada).ok());
  clock.Advance(absl::Hours(1));
  int taken = 0;
  while (limit.Take(ada).ok()) ++taken;
  EXPECT_EQ(taken, 20) << "no more is saved up";
}

class AuditLogTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove(path_); }
  std::string Read() {
    std::ifstream in(path_);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void Fill(int lines) {
    auto log = AuditLog::Open(path_, clock_);
    ASSERT_TRUE(log.ok()) << log.status();
    for (int i = 0; i < lines; ++i) {
      ASSERT_TRUE((*log)->Append({"user ada", "Cancel", "digits-" + std::to_string(i), "OK"}).ok());
    }
  }

  const std::string path_ = testing::TempDir() + "/audit_log_test.jsonl";
  sync::VirtualClock clock_{absl::FromUnixSeconds(1000)};
};

TEST_F(AuditLogTest, GoesOnAfterARestartAndATornLine) {
  Fill(2);
  std::ofstream(path_, std::ios::app) << "{\"number\":3,\"ti";
  Fill(1);
  auto summary = VerifyAuditLog(path_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->lines, 3);
  EXPECT_THAT(Read(), HasSubstr("\"object\":\"digits-1\""));
}

// What a full disk had room for does not spoil what follows.
TEST_F(AuditLogTest, HoldsTogetherAfterADiskWasFull) {
  signal(SIGXFSZ, SIG_IGN);
  auto log = AuditLog::Open(path_, clock_);
  ASSERT_TRUE((*log)->Append({"ada", "Submit", "first", "OK"}).ok());
  rlimit before, narrow;
  getrlimit(RLIMIT_FSIZE, &before);
  narrow = {fs::file_size(path_) + 20, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &narrow);
  EXPECT_FALSE((*log)->Append({"ada", "Submit", "second", "OK"}).ok());
  setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_TRUE((*log)->Append({"ada", "Submit", "third", "OK"}).ok());
  auto summary = VerifyAuditLog(path_);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->lines, 2);
}

TEST_F(AuditLogTest, EveryChangeIsFound) {
  Fill(3);
  const std::string whole = Read();
  std::vector<std::string> lines;
  std::istringstream in(whole);
  for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
  std::string changed = whole;
  changed.replace(changed.find("digits-1"), 8, "digits-9");
  for (const std::string& text : {changed, lines[0] + lines[2], lines[1] + lines[0] + lines[2],
                                  lines[0] + lines[0] + lines[1] + lines[2], "x\n" + whole}) {
    std::ofstream(path_) << text;
    EXPECT_TRUE(absl::IsDataLoss(VerifyAuditLog(path_).status())) << text;
    EXPECT_TRUE(absl::IsDataLoss(AuditLog::Open(path_, clock_).status()));
  }
}

TEST_F(AuditLogTest, TextFromOutsideStaysOneLine) {
  auto log = AuditLog::Open(path_, clock_);
  ASSERT_TRUE((*log)->Append({"user a\n{}", "Cancel", "\xff\"", "OK"}).ok());
  EXPECT_EQ(VerifyAuditLog(path_)->lines, 1);
}

}  // namespace
}  // namespace rein::access
