#include "common/config/job_reader.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "common/config/job_kind.h"
#include "common/config/yaml_writer.h"

namespace rein::config {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kShortest[] = R"(name: digits
model: model
data: {train: train.jsonl}
grpo: {}
rewards: [{numeric: {}}]
)";

class JobReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / "job_reader_test";
    fs::create_directories(folder_ / "model");
    std::ofstream(folder_ / "train.jsonl") << "{}\n";
    std::ofstream(folder_ / "held_out.jsonl") << "{}\n";
  }

  absl::StatusOr<v1::JobConfig> Read(const std::string& yaml,
                                     std::vector<std::string> overrides = {}) {
    return ReadJob({.yaml = yaml,
                    .file_name = "job.yaml",
                    .overrides = std::move(overrides),
                    .folder = folder_.string()});
  }

  // The report of a job that must be refused.
  std::string Report(const std::string& yaml, std::vector<std::string> overrides = {}) {
    auto job = Read(yaml, std::move(overrides));
    EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(job.status().message());
  }

  fs::path folder_;
};

TEST_F(JobReaderTest, TheShortestJobGetsItsDefaults) {
  auto job = Read(kShortest);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(KindOf(*job), "grpo");
  EXPECT_EQ(job->model().path(), (folder_ / "model").string());  // shorthand, made absolute
  EXPECT_EQ(job->data().train().file(), (folder_ / "train.jsonl").string());
  EXPECT_EQ(job->data().train().prompt(), "prompt");
  EXPECT_FALSE(job->data().has_eval());
  EXPECT_EQ(job->grpo().group_size(), 8);
  EXPECT_EQ(job->grpo().clip().low(), 0.2);
  EXPECT_FALSE(job->grpo().clip().has_dual());
  EXPECT_EQ(job->grpo().aggregation(), v1::AGGREGATION_TOKEN_MEAN);
  EXPECT_EQ(job->grpo().kl().estimator(), v1::KL_ESTIMATOR_K3);
  EXPECT_EQ(job->trainer().learning_rate(), 1e-6);
  EXPECT_EQ(job->rewards(0).weight(), 1.0);
  EXPECT_EQ(job->rewards(0).numeric().tolerance(), 1e-6);
  EXPECT_EQ(NameOfReward(job->rewards(0)), "numeric");
  EXPECT_EQ(job->seed(), 1);
}

TEST_F(JobReaderTest, ReadsEveryKindOfValue) {
  auto job = Read(R"(name: "digits"
model: {path: model, dtype: bfloat16, max_length: 512}
data:
  train: {file: train.jsonl, prompt: messages, chat_template: false}
  eval: held_out.jsonl
grpo:
  updates: 200
  temperature: 1
  clip: {low: 2e-1, high: .28}
  aggregation: sequence-mean
  kl: {coefficient: 0.01, estimator: k1}
rewards:
  - {numeric: {}, weight: 1.0}
  - {format: '-?\d+', weight: 0.2, name: shape}
trainer: {schedule: {cosine: {warmup: 10}}}
eval: {every: 10, accuracy: numeric}
placement: {trainer: [gpu:0], rollout: ["gpu:1", cpu]}
)");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->grpo().temperature(), 1.0);
  EXPECT_EQ(job->grpo().clip().high(), 0.28);
  EXPECT_EQ(job->grpo().aggregation(), v1::AGGREGATION_SEQUENCE_MEAN);
  EXPECT_EQ(job->rewards(1).format().regex(), "-?\\d+");
  EXPECT_EQ(job->trainer().schedule().cosine().warmup(), 10);
  EXPECT_FALSE(job->data().train().chat_template());
  EXPECT_EQ(job->placement().rollout(1), "cpu");
}

TEST_F(JobReaderTest, TellsAllProblemsAtOnceInTheOrderOfTheFile) {
  EXPECT_EQ(Report(R"(name: smollm2-products
model: model
data:
  train: {file: trian.jsonl}
grpo:
  groupsize: 16
  clip: {low: -0.2, high: 0.28}
rewards:
  - {numeric: {}}
)"),
            "job.yaml has 3 problems\n"
            "  job.yaml:4:17  data.train.file  trian.jsonl does not exist; train.jsonl does\n"
            "  job.yaml:6:3   grpo.groupsize   no such key; did you mean group_size?\n"
            "  job.yaml:7:15  grpo.clip.low    wants a number in [0, 1), got -0.2");
}

TEST_F(JobReaderTest, WrongValuesNameWhatIsWanted) {
  auto line = [&](const std::string& override_text) {
    std::string report = Report(kShortest, {override_text});
    size_t start = report.find('\n');
    return report.substr(start + 3);
  };
  EXPECT_EQ(line("grpo.group_size=1"),
            "grpo.group_size=1  grpo.group_size  wants a whole number in [2, 4096], got 1");
  EXPECT_THAT(line("grpo.group_size=2.5"), HasSubstr("a whole number in [2, 4096], got 2.5"));
  EXPECT_THAT(line("grpo.group_size='8'"), HasSubstr("a whole number in [2, 4096], got 8"));
  EXPECT_THAT(line("grpo.group_size=-3"), HasSubstr("got -3"));
  EXPECT_THAT(line("grpo.group_size=[1]"), HasSubstr("got a list"));
  EXPECT_THAT(line("seed=99999999999999999999"), HasSubstr("a whole number of at least 0"));
  EXPECT_THAT(line("grpo.top_k=4294967296"), HasSubstr("got 4294967296"));
  EXPECT_THAT(line("grpo.temperature=0"), HasSubstr("wants a number in (0, 10], got 0"));
  EXPECT_THAT(line("grpo.temperature=.nan"), HasSubstr("got .nan"));
  EXPECT_THAT(line("trainer.max_grad_norm=inf"), HasSubstr("a number of at least 0, got inf"));
  EXPECT_THAT(line("data.shuffle=yes"), HasSubstr("wants true or false, got yes"));
  EXPECT_THAT(line("grpo.kl.estimator=k4"), HasSubstr("wants one of k1, k2, k3, got k4"));
  EXPECT_THAT(line("grpo.aggregation=tokenmean"), HasSubstr("did you mean token_mean?"));
  EXPECT_THAT(line("grpo.clip=3"), HasSubstr("wants keys such as low, got '3'"));
  EXPECT_THAT(line("rewards=numeric"), HasSubstr("wants a list, got 'numeric'"));
  EXPECT_THAT(line("rewards.0=numeric"), HasSubstr("wants keys such as exact_match"));
}

TEST_F(JobReaderTest, ChoicesAreNamed) {
  EXPECT_THAT(Report(std::string(kShortest) + "sft: {}\n"),
              HasSubstr("job.yaml:6:1  sft  cannot stand beside grpo: give one of grpo, sft or "
                        "evaluate"));
  EXPECT_THAT(Report("name: a\nmodel: model\n"), HasSubstr("wants one of the keys grpo, sft or "));
  EXPECT_THAT(Report(kShortest, {"rewards=[{weight: 2}]"}),
              HasSubstr("wants one of the keys exact_match, regex"));
  EXPECT_THAT(Report("grpo: {}\n"), HasSubstr("name        is required: Name of the job"));
  EXPECT_THAT(Report("grpo: {}\n"), HasSubstr("model       is required: "));
}

TEST_F(JobReaderTest, ContradictionsAreNamed) {
  auto report = [&](std::vector<std::string> overrides) { return Report(kShortest, overrides); };
  EXPECT_THAT(report({"rewards="}), HasSubstr("rewards  is required by grpo"));
  EXPECT_THAT(report({"data="}), HasSubstr("data.train  is required by grpo"));
  EXPECT_THAT(report({"rewards.0.weight=0"}), HasSubstr("every weight is 0"));
  EXPECT_THAT(report({"grpo.kl.estimator=k1"}),
              HasSubstr("has no effect while grpo.kl.coefficient is 0"));
  EXPECT_THAT(report({"grpo.prompts=2", "grpo.minibatches=3"}), HasSubstr("is 3, more than the 2"));
  EXPECT_THAT(report({"eval.every=3"}), HasSubstr("has no effect without data.eval"));
  EXPECT_THAT(report({"eval.accuracy=numerc"}), HasSubstr("did you mean numeric?"));
  EXPECT_THAT(report({"rewards=[{numeric: {}}, {numeric: {}}]"}), HasSubstr("a second reward"));
  EXPECT_THAT(report({"rewards=[{regex: '('}]"}), HasSubstr("is no RE2 pattern: missing )"));
  EXPECT_THAT(report({"model.config=model"}), HasSubstr("wants only one of path, config and job"));
  EXPECT_THAT(report({"model={checkpoint: 3}"}), HasSubstr("has no effect without model.job"));
  EXPECT_THAT(report({"model.dtype=float16"}), HasSubstr("wants float32 or bfloat16, got float16"));
  EXPECT_THAT(report({"placement=apart"}), HasSubstr("wants shared, or {trainer"));
  EXPECT_THAT(report({"placement.trainer=[gpu]"}), HasSubstr("wants cpu or gpu:N, got 'gpu'"));
  EXPECT_THAT(report({"name=Digits"}), HasSubstr("of a-z, 0-9 and -"));
  EXPECT_THAT(report({"grpo.updates=5", "trainer.schedule.wsd={warmup: 3, decay: 4}"}),
              HasSubstr("warmup and decay take 7 updates, the job has 5"));
  EXPECT_THAT(report({"model.max_length=100"}), HasSubstr("less than a prompt of 1"));
  EXPECT_THAT(Report("{name: a, model: model, data: {train: train.jsonl}, "
                     "sft: {updates: 3, passes: 2}}"),
              HasSubstr("has no effect beside sft.updates"));
  EXPECT_THAT(Report("{name: a, model: model, evaluate: {}, trainer: {beta1: 0.5}}"),
              HasSubstr("data.eval  is required by evaluate"));
}

TEST_F(JobReaderTest, OverridesReachEverywhere) {
  auto job = Read(kShortest, {"grpo.group_size=4", "rewards.0.weight=2", "model.dtype=bfloat16",
                              "grpo.clip={low: 0.1}", "data.eval=held_out.jsonl", "seed="});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->grpo().group_size(), 4);
  EXPECT_EQ(job->rewards(0).weight(), 2);
  EXPECT_EQ(job->model().dtype(), "bfloat16");
  EXPECT_EQ(job->model().path(), (folder_ / "model").string());
  EXPECT_EQ(job->grpo().clip().low(), 0.1);
  EXPECT_EQ(job->data().eval().file(), (folder_ / "held_out.jsonl").string());
  EXPECT_EQ(job->seed(), 1);
}

TEST_F(JobReaderTest, WrongOverridesAreNamed) {
  EXPECT_THAT(Report(kShortest, {"group_size"}), HasSubstr("group_size    wants key.sub=value"));
  EXPECT_THAT(Report(kShortest, {"grpo..a=1"}), HasSubstr("is not a key"));
  EXPECT_THAT(Report(kShortest, {"rewards.7.weight=1"}),
              HasSubstr("an index below 1 here, got '7'"));
  EXPECT_THAT(Report(kShortest, {"seed.x=1"}), HasSubstr("wants a whole number"));
  EXPECT_THAT(Report(kShortest, {"grpo.clip=[1"}), HasSubstr("grpo.clip  value: 1:"));
  EXPECT_THAT(Report(kShortest, {"grpo.group_szie=1"}), HasSubstr("did you mean group_size?"));
}

TEST_F(JobReaderTest, WithoutAFolderPathsMustBeAbsolute) {
  auto job = ReadJob({.yaml = kShortest, .file_name = "job.yaml"});
  EXPECT_THAT(std::string(job.status().message()),
              HasSubstr("wants an absolute path on the controller's machine, got model"));
}

TEST_F(JobReaderTest, MissingFoldersAreNamed) {
  EXPECT_THAT(Report(kShortest, {"data.train=dat/x.jsonl"}),
              HasSubstr("dat/x.jsonl does not exist (there is no folder dat)"));
}

TEST_F(JobReaderTest, WhatIsPrintedReadsBackToTheSameJob) {
  auto job = Read(kShortest, {"rewards=[{regex: \"a\\\"b\\n'\", name: 'true'}, {format: '1.5'}]",
                              "placement.trainer=[cpu, gpu:1]", "trainer.schedule.wsd.decay=1"});
  ASSERT_TRUE(job.ok()) << job.status();
  std::string yaml = ToYaml(*job);
  auto again = Read(yaml);
  ASSERT_TRUE(again.ok()) << again.status() << "\n" << yaml;
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*job, *again)) << yaml;
  EXPECT_EQ(HashOf(*job), HashOf(*again));
  EXPECT_EQ(HashOf(*job).size(), 16);
  again->set_seed(2);
  EXPECT_NE(HashOf(*job), HashOf(*again));
}

}  // namespace
}  // namespace rein::config
