#include <fstream>

#include <CLI/CLI.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/cli/app_text.h"
#include "services/cli/deploy_command.h"
#include "services/cli/doctor_command.h"
#include "services/cli/keep_commands.h"
#include "services/cli/report_text.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

void AddUpdate(v1::ListUpdatesReply& updates, uint64_t number, std::vector<std::pair<std::string, double>> figures) {
  v1::UpdateRecord& record = *updates.add_updates();
  record.set_update(number);
  for (const auto& [name, value] : figures) {
    v1::Metric& metric = *record.add_metrics();
    metric.set_name(name);
    metric.set_value(value);
  }
}

v1::ListUpdatesReply SomeUpdates() {
  v1::ListUpdatesReply updates;
  AddUpdate(updates, 1, {{"reward", 0.25}, {"reward/exact", 0.25}, {"entropy", 1.5}, {"seconds", 2}, {"odd,name", 1}});
  AddUpdate(updates, 2, {{"reward", 0.5}, {"reward/exact", 0.5}, {"seconds", 2.5}, {"odd,name", 1}});
  return updates;
}

TEST(MetricsTest, ATableOfTheUsualFewAsWideAsTheTerminal) {
  EXPECT_EQ(MetricsTable(SomeUpdates(), CommonKeys(SomeUpdates()), 200),
            "UPDATE  REWARD  ENTROPY  SECONDS\n1       0.25    1.5      2\n2       0.5     –        2.5\n");
  EXPECT_EQ(MetricsTable(SomeUpdates(), CommonKeys(SomeUpdates()), 24),
            "UPDATE  REWARD  ENTROPY\n1       0.25    1.5\n2       0.5     –\nno room for seconds (--keys, --csv)\n");
}

TEST(MetricsTest, CsvAndJsonKeepEveryDigit) {
  v1::ListUpdatesReply updates;
  AddUpdate(updates, 1, {{"a", 0.1}, {"b", 1e-300}});
  AddUpdate(updates, 2, {{"a", 3}});
  EXPECT_EQ(MetricsCsv(updates, {"a", "b"}), "update,a,b\r\n1,0.10000000000000001,1e-300\r\n2,3,\r\n");
  EXPECT_EQ(MetricsJsonLines(updates, {"a", "b"}), "{\"update\":1,\"a\":0.1,\"b\":1e-300}\n{\"update\":2,\"a\":3.0}\n");
}

TEST(MetricsTest, AKeyThatNoUpdateHasIsNamed) {
  EXPECT_EQ(MetricKeys(SomeUpdates(), {"reward", "entropi"}).status(),
            absl::InvalidArgumentError("no update has a figure entropi; did you mean entropy?"));
  EXPECT_THAT(*MetricKeys(SomeUpdates(), {}), ElementsAre("reward", "reward/exact", "entropy", "seconds", "odd,name"));
  EXPECT_THAT(std::string(MetricKeys({}, {"reward"}).status().message()), HasSubstr("there is no update yet"));
}

TEST(DiffTest, OnlyWhatDiffersWithContext) {
  EXPECT_EQ(DiffText("a\nb\nc\nd\ne", "a\nb\nX\nd\ne", 0), "- c\n+ X\n");
  EXPECT_EQ(DiffText("a\nb\nc\nd\ne", "a\nb\nX\nd\ne", 1), "  b\n- c\n+ X\n  d\n");
  EXPECT_EQ(DiffText("same\ntext", "same\ntext", 3), "");
  EXPECT_EQ(DiffText("x\na\nb\nc\ny", "a\nb\nc", 0), "- x\n  ...\n- y\n");
}

TEST(CompareTest, FiguresEvalsAndConfigs) {
  ComparedJob a{.updates = SomeUpdates()}, b{.updates = SomeUpdates()};
  a.job.set_name("small");
  b.job.set_name("large");
  a.job.set_config_yaml("grpo:\n  group_size: 8\nseed: 1\n");
  b.job.set_config_yaml("grpo:\n  group_size: 16\nseed: 1\n");
  b.job.add_evals()->set_accuracy(0.75);
  b.updates.mutable_updates(1)->mutable_metrics(0)->set_value(1);
  const std::string text = CompareText(a, b, 1);
  EXPECT_THAT(text, HasSubstr("                   small        large        DIFFERENCE\n"));
  EXPECT_THAT(text, HasSubstr("reward             0.5          1            +0.5\n"));
  EXPECT_THAT(text, HasSubstr("held-out accuracy  –            0.75\n"));
  EXPECT_THAT(text, HasSubstr("-   group_size: 8\n+   group_size: 16\n"));
  EXPECT_THAT(text, Not(HasSubstr("seed")));
}

void AddRollout(v1::ListRolloutsReply& reply, uint64_t prompt, const std::string& text, double reward) {
  v1::StoredRollout& stored = *reply.add_rollouts();
  stored.mutable_rollout()->mutable_group()->set_prompt(prompt);
  stored.mutable_rollout()->mutable_completion()->set_text(text);
  stored.mutable_rollout()->mutable_reward()->set_reward(reward);
  v1::Message& message = *stored.add_prompt();
  message.set_role("user");
  message.set_content("What?");
}

TEST(RolloutDiffTest, TheSamePromptUnderTwoPolicies) {
  v1::ListRolloutsReply before, after;
  AddRollout(before, 7, "The answer is 3", 0);
  AddRollout(before, 7, "The answer is 4", 0.5);
  AddRollout(before, 8, "x", 0);
  AddRollout(after, 7, "The answer is 5", 1);
  AddRollout(after, 9, "y", 0);
  EXPECT_EQ(RolloutDiffText(before, "update 1", after, "update 9", 16),
            "prompt 7 · mean reward 0.25 → 1 · best 0.5 → 1\n  user  What?\n  best  The answer is[- 4-]{+ 5+}\n"
            "1 of 1 prompts in both update 1 and update 9; [-only the first said-] {+only the second said+}\n");
  EXPECT_EQ(RolloutDiffText(before, "a", {}, "b", 16), "no prompt was in both a and b\n");
}

TEST(SizeTest, ThreeCharactersThatMatter) {
  EXPECT_EQ(Size(0), "0B");
  EXPECT_EQ(Size(999), "999B");
  EXPECT_EQ(Size(1500), "1.5KB");
  EXPECT_EQ(Size(2.4e10), "24GB");
}

TEST(ParseAgeTest, UnitsAndMistakes) {
  EXPECT_EQ(*ParseAge("30d"), absl::Hours(720));
  EXPECT_EQ(*ParseAge("1.5h"), absl::Minutes(90));
  EXPECT_EQ(*ParseAge("90s"), absl::Seconds(90));
  for (const char* wrong : {"", "30", "d", "-1d", "3w", "h3"}) EXPECT_FALSE(ParseAge(wrong).ok()) << wrong;
}

Observed Healthy() {
  Observed seen{.server = "lab:7000", .round_trip = absl::Milliseconds(3), .open_files_limit = 65536};
  seen.own.set_release("0.2.0");
  seen.controller.emplace();
  seen.controller->mutable_build()->set_release("0.2.1");
  seen.controller->set_disk_bytes(1000);
  seen.controller->set_disk_free_bytes(500);
  for (const char* role : {"trainer", "rollout", "reward"}) {
    v1::Actor& actor = seen.actors.emplace_back();
    actor.set_role(role);
    actor.set_name(std::string(role) + "-0");
    actor.set_state("READY");
    actor.mutable_build()->set_release("0.2.1");
  }
  return seen;
}

std::string Verdict(const Observed& seen, const std::string& what) {
  for (const Finding& finding : Diagnose(seen, absl::FromUnixSeconds(1000))) {
    if (finding.what != what) continue;
    return finding.kind == Finding::kGood ? "good" : finding.kind == Finding::kWarning ? "warning" : "fault";
  }
  return "nothing";
}

TEST(DoctorTest, WhatIsWellIsSaidToBeWell) {
  for (const Finding& finding : Diagnose(Healthy(), absl::FromUnixSeconds(1000))) {
    EXPECT_EQ(finding.kind, Finding::kGood) << finding.what << ": " << finding.detail;
    EXPECT_EQ(finding.advice, "") << finding.what;
  }
}

TEST(DoctorTest, EachFaultIsFoundAndHasAdvice) {
  const std::pair<std::string, std::function<void(Observed&)>> faults[] = {
      {"server", [](Observed& s) { s.connected = absl::UnavailableError("no answer"); }},
      {"version", [](Observed& s) { s.own.set_release("0.5.0"); }},
      {"clock", [](Observed& s) { s.skew = absl::Seconds(-30); }},
      {"disk", [](Observed& s) { s.controller->set_disk_free_bytes(20); }},
      {"rollout-0", [](Observed& s) { s.actors[1].set_state("LOST"); }},
      {"trainer-0", [](Observed& s) { s.actors[0].set_device("gpu:0"); }},
      {"certificate", [](Observed& s) { s.certificate_until = absl::FromUnixSeconds(999); }}};
  for (const auto& [what, breaks] : faults) {
    Observed seen = Healthy();
    breaks(seen);
    EXPECT_EQ(Verdict(seen, what), "fault") << what;
    for (const Finding& finding : Diagnose(seen, absl::FromUnixSeconds(1000))) {
      EXPECT_EQ(finding.kind == Finding::kGood, finding.advice.empty()) << finding.what;
    }
  }
  Observed seen = Healthy();
  seen.open_files_limit = 256;
  seen.certificate_until = absl::FromUnixSeconds(5000);
  seen.actors[1].mutable_build()->set_git_hash("other");
  for (const char* what : {"open files", "certificate", "rollout-0"}) EXPECT_EQ(Verdict(seen, what), "warning") << what;
  seen = Healthy();
  v1::Actor& alone = seen.actors.emplace_back(seen.actors.front());
  alone.set_name("second-trainer");
  alone.set_group("second");
  EXPECT_EQ(Verdict(seen, "rollout"), "warning") << "what another group has is not there for this one";
  const std::string text = FindingsText(Diagnose(seen, absl::FromUnixSeconds(1000)));
  EXPECT_NE(text.find("none is ready in group second"), std::string::npos) << text;
}

TEST(SecretsTest, AreTakenOutOfText) {
  const std::string token = "rein_" + std::string(64, 'a');
  for (const std::string& secret :
       {token, std::string("authorization: Bearer abc.def-ghi"), std::string("password=hunter2"), std::string("\"api_key\": \"sk-12345\""),
        std::string("HF_TOKEN=hf_abcdef"), std::string("client_secret: s3cr3t"),
        std::string("-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----"),
        std::string("https://ada:hunter2@proxy:80/")}) {
    const std::string clean = WithoutSecrets("before " + secret + " after");
    EXPECT_THAT(clean, HasSubstr("[removed]")) << clean;
    EXPECT_THAT(clean, HasSubstr("before ")) << clean;
    EXPECT_THAT(clean, HasSubstr(" after")) << clean;
    for (const char* leaked : {"aaaa", "abc.def", "hunter2", "sk-12345", "hf_abcdef", "s3cr3t", "MIGH"}) {
      EXPECT_THAT(clean, Not(HasSubstr(leaked))) << secret;
    }
  }
  const std::string plain = "max_completion_tokens: 24\ntokens 4611\nupdate 3/8 tok/s 41.2k";
  EXPECT_EQ(WithoutSecrets(plain), plain);
}

TEST(NeedsTest, AreReadFromManifests) {
  const auto needs = NeedsOf(R"(
apiVersion: v1
kind: Namespace
metadata: {name: rein}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: trainer}
spec:
  replicas: 3
  template:
    spec:
      containers: [{resources: {limits: {nvidia.com/gpu: "2"}, requests: {nvidia.com/gpu: "2"}}}]
      volumes: [{secret: {secretName: mine}}, {secret: {secretName: made}},
                {projected: {sources: [{secret: {name: projected}}]}}]
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: c}
spec: {secretName: made}
---
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: j}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: n}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: p}
spec: {accessModes: [ReadWriteMany]}
)");
  ASSERT_TRUE(needs.ok()) << needs.status();
  EXPECT_EQ(needs->name_space, "rein");
  EXPECT_EQ(needs->gpus, 6);
  EXPECT_TRUE(needs->default_storage_class);
  EXPECT_THAT(needs->secrets, ElementsAre("mine", "projected"));
  EXPECT_THAT(needs->crd_groups, ElementsAre("cert-manager.io", "jobset.x-k8s.io"));
  EXPECT_FALSE(NeedsOf("kind: [").ok());
  EXPECT_FALSE(NeedsOf("a: b").ok());
}

TEST(AppTextTest, CompletionAndManualNameEveryCommandAndFlag) {
  CLI::App app("Does things", "rein");
  CLI::App* deep = app.add_subcommand("certs", "Certificates")->add_subcommand("init", "Make some");
  bool flag = false;
  std::string job;
  deep->add_flag("-y,--yes", flag, "It's sure");
  deep->add_option("job", job, "A job");
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = *CompletionScript(app, shell);
    for (const char* word : {"certs", "init", "yes", "get jobs -o name"}) EXPECT_THAT(script, HasSubstr(word)) << shell;
  }
  EXPECT_FALSE(CompletionScript(app, "tcsh").ok());
  const auto pages = ManualPages(app);
  EXPECT_THAT(pages, Contains(::testing::Key("rein.1")));
  EXPECT_THAT(pages.at("rein-certs-init.1"), HasSubstr(".B \\-y,\\-\\-yes\nIt's sure\n"));
  EXPECT_THAT(pages.at("rein.1"), HasSubstr(".SH EXIT STATUS"));
}

}  // namespace
}  // namespace rein::cli
