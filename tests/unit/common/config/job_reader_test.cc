#include "common/config/job_reader.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"

#include "common/config/job_kind.h"
#include "common/config/yaml_writer.h"

namespace rein::config {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
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
  EXPECT_EQ(job->grpo().aggregation(), v1::AGGREGATION_SEQUENCE_MEAN);  // as in the paper
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
  EXPECT_EQ(line("grpo.group_size=0"),
            "grpo.group_size=0  grpo.group_size  wants a whole number in [1, 4096], got 0");
  EXPECT_THAT(line("grpo.group_size=2.5"), HasSubstr("a whole number in [1, 4096], got 2.5"));
  EXPECT_THAT(line("grpo.group_size='8'"), HasSubstr("a whole number in [1, 4096], got 8"));
  EXPECT_THAT(line("grpo.group_size=-3"), HasSubstr("got -3"));
  EXPECT_THAT(line("grpo.group_size=[1]"), HasSubstr("got a list"));
  EXPECT_THAT(line("seed=99999999999999999999"), HasSubstr("a whole number of at least 0"));
  EXPECT_THAT(line("grpo.top_k=4294967296"), HasSubstr("got 4294967296"));
  EXPECT_THAT(line("grpo.temperature=0"), HasSubstr("wants a number in (0, 10], got 0"));
  EXPECT_THAT(line("grpo.temperature=.nan"), HasSubstr("got .nan"));
  EXPECT_THAT(line("trainer.max_grad_norm=inf"), HasSubstr("a number of at least 0, got inf"));
  EXPECT_THAT(line("data.shuffle=yes"), HasSubstr("wants true or false, got yes"));
  EXPECT_THAT(line("grpo.kl.estimator=k4"), HasSubstr("wants one of k1, k2, k3, abs,"));
  EXPECT_THAT(line("grpo.aggregation=tokenmean"), HasSubstr("did you mean token_mean?"));
  EXPECT_THAT(line("grpo.clip=3"), HasSubstr("wants keys such as low, got '3'"));
  EXPECT_THAT(line("rewards=numeric"), HasSubstr("wants a list, got 'numeric'"));
  EXPECT_THAT(line("rewards.0=numeric"), HasSubstr("wants keys such as exact_match"));
}

TEST_F(JobReaderTest, ChoicesAreNamed) {
  EXPECT_THAT(Report(std::string(kShortest) + "sft: {}\n"),
              HasSubstr("job.yaml:6:1  sft  cannot stand beside grpo: give one of grpo, dr_grpo, "
                        "dapo, "));
  EXPECT_THAT(Report("name: a\nmodel: model\n"), HasSubstr("wants one of the keys grpo, dr_grpo, "));
  EXPECT_THAT(Report(kShortest, {"rewards=[{weight: 2}]"}),
              HasSubstr("wants one of the keys exact_match, regex"));
  EXPECT_THAT(Report("grpo: {}\n"), HasSubstr("name        is required: Name of the job"));
  EXPECT_THAT(Report("grpo: {}\n"), HasSubstr("model       is required: "));
}

TEST_F(JobReaderTest, MistakesInRewardsAreNamed) {
  auto report = [&](const std::string& rewards) {
    return Report(kShortest, {"rewards=[" + rewards + "]"});
  };
  EXPECT_THAT(report("{math: {place: boxed, markers: ['=>']}}"),
              HasSubstr("rewards.0.math.markers  has no effect with this place"));
  EXPECT_THAT(report("{math: {markers: [' ']}}"), HasSubstr("holds an empty marker"));
  EXPECT_THAT(report("{math: inbox}"), HasSubstr("wants one of any, boxed, marker, whole"));
  EXPECT_THAT(report("{math: {tolerance: 1}}"), HasSubstr("wants a number in [0, 0.1], got 1"));
  EXPECT_THAT(report("{json: '{'}"), HasSubstr("rewards.0.json.schema  is no JSON: "));
  EXPECT_THAT(report("{json: '{\"type\": \"text\"}'}"), HasSubstr("/type is 'text', want one of"));
  EXPECT_THAT(report("{json: {schema: '{}', column: schema}}"),
              HasSubstr("rewards.0.json.column  cannot stand beside schema"));
  EXPECT_THAT(report("{script: Klingon}"), HasSubstr("is no Unicode script"));
  EXPECT_THAT(report("{script: {}}"), HasSubstr("rewards.0.script.name  is required"));
  EXPECT_THAT(report("{repetition: {ngram: 0}}"), HasSubstr("in [1, 64], got 0"));
  EXPECT_THAT(report("{code: {build: [g++, main]}}"), HasSubstr("rewards.0.code.command  is required beside build"));
  EXPECT_THAT(report("{code: {test_seconds: 20}}"), HasSubstr("is 20, more than timeout_seconds 10"));
  EXPECT_THAT(report("{code: {isolation: none}}"), HasSubstr("wants one of full, weak, got none"));
  EXPECT_THAT(report("{numeric: {}, range: {min: 1, max: 0}}"),
              HasSubstr("is empty: min 1 is above max 0"));
  EXPECT_THAT(report("{numeric: {}, clip: {min: 1, max: 0}}"), HasSubstr("rewards.0.clip  is empty"));
  EXPECT_THAT(report("{numeric: {}, clip: {min: 0.5}, gate: 0.5}"),
              HasSubstr("which every score reaches after clip.min 0.5"));
  EXPECT_THAT(report("{numeric: {}, gate: {otherwise: 1}}"),
              HasSubstr("rewards.0.gate.at_least  is required"));
  EXPECT_THAT(report("{numeric: {}, when: {column: data_source}}"),
              HasSubstr("rewards.0.when.is  is required"));
  EXPECT_THAT(Report(kShortest, {"reward_clip={min: 2, max: 1}"}), HasSubstr("reward_clip  is empty"));
  auto by_itself = [&](const std::string& key) {
    return Report(kShortest, {"grpo.advantage=per_reward", "rewards=[{numeric: {}}, {math: {}}]", key});
  };
  EXPECT_THAT(by_itself("reward_clip={max: 1}"), HasSubstr("reward_clip  has no effect on advantage: per_reward"));
  EXPECT_THAT(by_itself("rewards.1.gate=1"), HasSubstr("rewards.1.gate  has no effect on advantage"));
  EXPECT_THAT(by_itself("rewards.1.when={column: a, is: [b]}"),
              HasSubstr("which needs every reward of every prompt"));
}

TEST_F(JobReaderTest, RewardsAreRead) {
  auto job = Read(std::string(kShortest), {"rewards=[{math: boxed, gate: {at_least: 1, otherwise: -1}, range: {min: 0, max: 1}}, {json: {}, "
                                           "when: {column: source, is: [api, 3]}, clip: {max: 1}}]", "reward_clip={min: -1}"});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->rewards(0).math().place(), v1::ANSWER_PLACE_BOXED);
  EXPECT_EQ(job->rewards(0).math().tolerance(), 1e-6);
  EXPECT_EQ(job->rewards(0).gate().otherwise(), -1);
  EXPECT_EQ(job->rewards(1).when().is(1), "3");
  EXPECT_FALSE(job->rewards(1).clip().has_min());
  EXPECT_EQ(job->reward_clip().min(), -1);
}

TEST_F(JobReaderTest, RewardModelsReadWhatTheyLearn) {
  const std::string job = "name: a\nmodel: model\ndata: {train: train.jsonl, eval: train.jsonl}\n";
  const std::string steps = job + "reward_model: {objective: steps}\n";
  EXPECT_TRUE(Read(job + "reward_model: {}\n").ok()) << "held-out pairs are measured";
  EXPECT_TRUE(Read(steps, {"data.train.label=labels", "data.train.steps=completions", "eval.every=2", "eval.patience=3"}).ok());
  EXPECT_THAT(Report(steps, {"rewards=[{numeric: {}}]"}), HasSubstr("rewards  have no effect in reward_model"));
  EXPECT_THAT(Report(steps, {"data.train.answer=a"}), HasSubstr("data.train.answer  has no effect in reward_model"));
  EXPECT_THAT(Report(steps, {"reward_model.center_coefficient=0.1"}), HasSubstr("wants objective: pairs"));
  EXPECT_THAT(Report(steps, {"reward_model.separator=''"}), HasSubstr("is empty: nothing would end a step"));
  EXPECT_THAT(Report(job + "reward_model: {objective: score}\n", {"data.train.chosen=a"}),
              HasSubstr("data.train.chosen  has no effect"));
  EXPECT_THAT(Report(job + "reward_model: {separator: a}\n"), HasSubstr("wants objective: steps"));
  EXPECT_THAT(Report(kShortest, {"rewards=[{model: {path: model, steps: min}}]", "environment={remote: 'h:1'}"}),
              HasSubstr("rewards.0.model.steps  cannot stand beside an environment"));
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
  EXPECT_THAT(report({"placement.group=A 1"}), HasSubstr("placement.group  wants at most 63 of a-z, 0-9 and -, not - in front; got 'A 1'"));
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

TEST_F(JobReaderTest, APresetIsItsDefaultsAndNothingElse) {
  const std::string gspo = "name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n"
                           "gspo: {clip: {high: 0.1}}\n";
  auto job = Read(gspo);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(KindOf(*job), "gspo");
  const v1::GrpoConfig& config = *PolicyGradientOf(*job);
  EXPECT_EQ(config.ratio(), v1::RATIO_LEVEL_SEQUENCE);
  EXPECT_EQ(config.clip().low(), 3e-4);  // the preset's
  EXPECT_EQ(config.clip().high(), 0.1);  // the user's
  EXPECT_EQ(config.minibatches(), 4);
  EXPECT_EQ(config.kl().coefficient(), 0);
  // Another choice than the preset's replaces it whole.
  auto other = Read(gspo, {"gspo.clip=", "gspo.cispo={high: 3}"});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_FALSE(other->gspo().has_clip());
  EXPECT_EQ(other->gspo().cispo().high(), 3);
}

TEST_F(JobReaderTest, ContradictionsOfAlgorithmsExplainThemselves) {
  auto report = [&](const std::string& block) {
    return Report("name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n" + block);
  };
  EXPECT_THAT(report("grpo: {group_size: 1}"), HasSubstr("compares siblings: 2 or more"));
  EXPECT_THAT(report("grpo: {gamma: 0.9}"), HasSubstr("has no effect with advantage: group_relative"));
  EXPECT_THAT(report("rloo: {normalize_by_std: false}"), HasSubstr("with advantage: leave_one_out"));
  EXPECT_THAT(report("reinforce_pp: {whiten: true}"), HasSubstr("which always does"));
  EXPECT_THAT(report("dr_grpo: {advantage_epsilon: 0.1}"), HasSubstr("while normalize_by_std is false"));
  EXPECT_THAT(report("rloo: {ratio: sequence}"), HasSubstr("with reinforce, which has no ratio"));
  EXPECT_THAT(report("grpo: {dppo_tv: {}, ratio: sequence}"), HasSubstr("dppo masks single tokens"));
  EXPECT_THAT(report("gmpo: {sapo: {}}"), HasSubstr("geometric clips tokens before the mean"));
  EXPECT_THAT(report("gmpo: {clip: {dual: 3}}"), HasSubstr("clipped in log space"));
  EXPECT_THAT(report("grpo: {sapo: {}, clip: {}}"), HasSubstr("cannot stand beside"));
  EXPECT_THAT(report("grpo: {kl: {coefficient: 0.1, place: reward}}"), HasSubstr("must be k1"));
  EXPECT_THAT(report("rloo: {kl: {importance_weighted: true}}"), HasSubstr("those that sampled"));
  EXPECT_THAT(report("grpo: {correction: {mode: truncate}}"), HasSubstr("Set recompute_old: true"));
  EXPECT_THAT(report("grpo: {correction: {high: 3}}"), HasSubstr("while grpo.correction.mode is none"));
  EXPECT_THAT(report("grpo: {when_stale: drop}"), HasSubstr("grpo.when_stale  has no effect while staleness is 0"));
  EXPECT_THAT(report("grpo: {staleness: 1, when_stale: correct, recompute_old: true}"),
              HasSubstr("with recompute_old nothing weighs them: set correction.mode"));
  EXPECT_THAT(report("rloo: {staleness: 1, when_stale: correct}"), HasSubstr("with reinforce nothing weighs them"));
  EXPECT_THAT(report("rloo: {correction: {mode: truncate, low: 0.5}}"), HasSubstr("cuts large weights only"));
  EXPECT_THAT(report("grpo: {reject: {high: 3}}"), HasSubstr("while grpo.reject.statistic is none"));
  EXPECT_THAT(report("grpo: {reject: {statistic: token_k3, low: 0.5}}"), HasSubstr("never negative"));
  EXPECT_THAT(report("remax: {dynamic_sampling: true}"), HasSubstr("wants group_size 2 or more"));
  EXPECT_THAT(report("grpo: {advantage: per_reward}"), HasSubstr("there is one"));
  for (const char* good : {"grpo: {reject: {statistic: sequence_mean_k1, low: 0.8, high: 1.2}}",
                           "grpo: {recompute_old: true, correction: {mode: mask, low: 0.5, high: 5}}",
                           "rloo: {correction: {mode: truncate}}", "dapo: {clip: {dual: 3}}",
                           "grpo: {staleness: 1, when_stale: correct}", "grpo: {staleness: 2, when_stale: drop}",
                           "rloo: {staleness: 1, when_stale: correct, correction: {mode: truncate}}"}) {
    auto job = Read("name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n" +
                    std::string(good));
    EXPECT_TRUE(job.ok()) << job.status();
  }
}

TEST_F(JobReaderTest, ContradictionsOfEntropyCurriculumAndTeachersExplainThemselves) {
  auto report = [&](const std::string& block) {
    return Report("name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n" + block);
  };
  EXPECT_THAT(report("grpo: {clip_cov: {share: 0.1}, kl_cov: {share: 0.1}}"),
              HasSubstr("cannot stand beside clip_cov"));
  EXPECT_THAT(report("grpo: {clip_cov: {low: 2}}"), HasSubstr("has no effect without grpo.clip_cov.share"));
  EXPECT_THAT(report("grpo: {clip_cov: {share: 0.1, low: 6}}"), HasSubstr("is 6, not below clip_cov.high 5"));
  EXPECT_THAT(report("grpo: {kl_cov: {coefficient: 2}}"), HasSubstr("has no effect without grpo.kl_cov.share"));
  EXPECT_THAT(report("grpo: {gae_level: turn}"), HasSubstr("has no effect with advantage: group_relative"));
  EXPECT_THAT(report("grpo: {curriculum: {passes: 3}}"),
              HasSubstr("has no effect without curriculum.min_pass_rate or max_pass_rate"));
  EXPECT_THAT(report("grpo: {curriculum: {min_pass_rate: 0.5, max_pass_rate: 0.4}}"),
              HasSubstr("is 0.5, not below curriculum.max_pass_rate 0.4"));
  EXPECT_THAT(report("grpo: {kl: {reference: model}}"), HasSubstr("while grpo.kl.coefficient is 0"));
  EXPECT_THAT(report("on_policy_distillation: {}"), HasSubstr("kl.reference  is required: the folder of the teacher"));
  const std::string taught = "name: a\nmodel: model\ndata: {train: train.jsonl}\n"
                             "on_policy_distillation: {kl: {reference: model}";
  EXPECT_THAT(Report(taught + ", dynamic_sampling: true}\n"), HasSubstr("there are no rewards"));
  auto job = Read(taught + "}\n");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->on_policy_distillation().gamma(), 0);
  EXPECT_EQ(job->on_policy_distillation().kl().place(), v1::KL_PLACE_REWARD);
}

TEST_F(JobReaderTest, EnvironmentsExplainThemselves) {
  const std::string game = "name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{environment: {}}]\ngrpo: {}\n";
  auto report = [&](const std::string& environment) { return Report(game + "environment: " + environment + "\n"); };
  EXPECT_THAT(Report(game), HasSubstr("wants an environment, and there is none"));
  EXPECT_THAT(report("{max_turns: 3}"), HasSubstr("environment"));
  EXPECT_THAT(report("{remote: game}"), HasSubstr("environment.remote.address  wants host:port, got 'game'"));
  EXPECT_THAT(report("{remote: 'game:0'}"), HasSubstr("wants host:port"));
  EXPECT_THAT(report("{remote: {}}"), HasSubstr("environment.remote.address"));
  EXPECT_THAT(report("{tools: {}}"), HasSubstr("wants at least one tool"));
  EXPECT_THAT(report("{tools: {code: {}}}"), HasSubstr("environment.tools.code.seconds"));
  EXPECT_THAT(report("{tools: {calculator: {}, format: xml}}"), HasSubstr("environment.tools.format"));
  EXPECT_THAT(report("{remote: 'game:1', max_tokens: 100}"), HasSubstr("is 100, less than the 256 tokens of one turn"));
  EXPECT_THAT(report("{remote: 'game:1', timeout_seconds: 5}"),
              HasSubstr("environment.step_timeout_seconds  is 60, more than timeout_seconds 5"));
  EXPECT_THAT(Report(game + "environment: {tools: {calculator: {}}}\n", {"data.train.chat_template=false"}),
              HasSubstr("are shown by the chat template"));
  EXPECT_THAT(Report("name: a\nmodel: model\ndata: {train: train.jsonl}\nsft: {}\nenvironment: {remote: 'game:1'}\n"),
              HasSubstr("has no effect in sft, which generates nothing"));
  auto job = Read(game + "environment: {tools: {calculator: {}}}\n");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->environment().tools().has_calculator());
  EXPECT_FALSE(job->environment().tools().has_code()) << "a tool that was not asked for";
  EXPECT_EQ(job->environment().max_turns(), 8u);
  EXPECT_FALSE(Read(kShortest)->has_environment());
  job = Read(game + "environment: {tools: {code: 2}}\n");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->environment().tools().code().seconds(), 2);
  EXPECT_FALSE(job->environment().tools().has_calculator());
}

TEST_F(JobReaderTest, DistillationWantsATeacher) {
  auto report = [&](const std::string& keys) {
    return Report("name: a\nmodel: model\ndata: {train: train.jsonl}\ndistill: {" + keys + "}\n");
  };
  EXPECT_THAT(report(""), HasSubstr("distill.teacher"));
  EXPECT_THAT(report("teacher: absent"), HasSubstr("absent does not exist"));
  EXPECT_THAT(report("teacher: model, divergence: sideways"), HasSubstr("distill.divergence"));
  EXPECT_THAT(report("teacher: model, updates: 3, passes: 2"), HasSubstr("has no effect beside distill.updates"));
  auto job = Read("name: a\nmodel: model\ndata: {train: train.jsonl}\ndistill: {teacher: model}\n");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->distill().top_k(), 64u);
}

TEST_F(JobReaderTest, ALossFromOutsideIsTheWholeLoss) {
  auto report = [&](const std::string& block) {
    return Report("name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n" + block);
  };
  EXPECT_THAT(report("custom: {}"), HasSubstr("custom.service  is required by custom"));
  EXPECT_THAT(report("custom: {service: loss}"), HasSubstr("wants host:port, got 'loss'"));
  EXPECT_THAT(report("custom: {service: 'loss:7700', aggregation: sequence_sum}"),
              HasSubstr("custom.aggregation  has no effect with service"));
  EXPECT_THAT(report("grpo: {service: 'loss:7700', entropy_coefficient: 0.1}"),
              HasSubstr("grpo.entropy_coefficient  has no effect with service"));
  EXPECT_THAT(report("custom: {service: 'loss:7700', clip: {low: 0.1}}"), HasSubstr("clip"));
  auto job = Read("name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n"
                  "custom: {service: 'loss:7700', advantage: leave_one_out}\n");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->custom().service().address(), "loss:7700");
  EXPECT_EQ(job->custom().service().timeout_seconds(), 60);
}

TEST_F(JobReaderTest, ARewardModelIsAFolderOrAJob) {
  auto report = [&](const std::string& rewards) { return Report(kShortest, {"rewards=[{model: " + rewards + "}]"}); };
  EXPECT_THAT(report("{}"), HasSubstr("wants a folder (path) or a job"));
  EXPECT_THAT(report("{path: model, job: judge}"), HasSubstr("wants only one of path and job"));
  EXPECT_THAT(report("absent"), HasSubstr("absent does not exist"));
  EXPECT_THAT(report("{path: model, dtype: int8}"), HasSubstr("wants float32 or bfloat16, got int8"));
  auto job = Read(kShortest, {"rewards=[{model: model}]"});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->rewards(0).model().path(), (folder_ / "model").string());
  EXPECT_TRUE(job->rewards(0).model().chat_template());
}

TEST_F(JobReaderTest, EvaluationsSayWhatCannotBe) {
  auto report = [&](std::vector<std::string> overrides) {
    overrides.push_back("data.eval=held_out.jsonl");
    return Report(kShortest, overrides);
  };
  EXPECT_THAT(report({"eval.samples=4"}), HasSubstr("at temperature 0 all completions of a prompt are equal"));
  EXPECT_THAT(report({"eval.samples=4", "eval.temperature=1", "eval.pass_at=[1, 8]"}),
              HasSubstr("is 8, more than the 4 samples of a prompt"));
  EXPECT_THAT(report({"eval.pass_at=[0]"}), HasSubstr("eval.pass_at"));
  EXPECT_THAT(report({"eval.datasets=[{file: train.jsonl}]"}), HasSubstr("wants a name"));
  EXPECT_THAT(report({"eval.datasets=[{file: train.jsonl, name: eval}]"}), HasSubstr("stands twice: eval"));
  EXPECT_THAT(report({"eval.settings=[{name: hot}, {name: hot}]"}), HasSubstr("stands twice: hot"));
  EXPECT_THAT(report({"eval.settings=[{temperature: 1}]"}), HasSubstr("Name in results"));
  EXPECT_THAT(report({"eval.patience=2"}), HasSubstr("and there is none"));
  EXPECT_THAT(Report(kShortest, {"eval.pass_at=[1]"}), HasSubstr("has no effect without data.eval and rewards"));
  const std::string sft = "name: a\nmodel: model\ndata: {train: train.jsonl, eval: held_out.jsonl}\nsft: {}\n";
  EXPECT_THAT(Report(sft + "eval: {patience: 2}\n"), HasSubstr("wants eval.every above 0"));
  EXPECT_TRUE(Read(sft + "eval: {patience: 2, every: 5}\n").ok()) << "the loss needs no rewards";
}

TEST_F(JobReaderTest, AdaptersWantWeightsAndATraining) {
  constexpr char kJob[] = "name: a\nmodel: %s\ndata: {train: train.jsonl}\nsft: {}\n";
  auto job = [&](const char* model) { return absl::StrFormat(kJob, model); };
  auto lora = Read(job("{path: model, lora: {rank: 8, target: [q_proj, 'experts.*']}, freeze: [norm]}"));
  ASSERT_TRUE(lora.ok()) << lora.status();
  EXPECT_EQ(lora->model().lora().alpha(), 32);
  EXPECT_EQ(lora->model().lora().target(1), "experts.*");
  EXPECT_EQ(Read(job("{path: model, lora: 8}"))->model().lora().rank(), 8u);
  EXPECT_FALSE(Read(job("model"))->model().has_lora()) << "no block, no adapters";
  EXPECT_THAT(Report(job("{path: model, lora: {alpha: 8}}")), HasSubstr("model.lora"));
  EXPECT_THAT(Report(job("{config: model, lora: 8}")), HasSubstr("model.lora  wants a model with weights"));
  EXPECT_THAT(Report(job("{config: model, freeze: [norm]}")), HasSubstr("model.freeze  wants a model with weights"));
  EXPECT_THAT(Report(job("{path: model, lora: {rank: 8, dropout: 0.1}}")), HasSubstr("model.lora.dropout  is 0.1, want 0"));
  EXPECT_THAT(Report("name: a\nmodel: {path: model, lora: 8}\ndata: {eval: held_out.jsonl}\nscore: {}\n"),
              HasSubstr("model.lora  has no effect: score trains nothing"));
  EXPECT_EQ(Read(job("{path: model, lora: {rank: 8, save: [lm_head]}}"))->model().lora().save(0), "lm_head");
  EXPECT_EQ(Read(job("{path: model, lora: 8, base: nf4}"))->model().base(), v1::BASE_FORMAT_NF4);
  EXPECT_THAT(Report(job("{path: model, lora: 8, base: fp4}")), HasSubstr("int8, nf4"));
  EXPECT_THAT(Report(job("{config: model, base: int8}")), HasSubstr("model.base  wants a model with weights"));
  EXPECT_THAT(Report("name: a\nmodel: {path: model, base: int8}\ndata: {eval: held_out.jsonl}\nscore: {}\n"),
              HasSubstr("model.base  has no effect: score trains nothing"));
  EXPECT_THAT(Report(job("{path: model, mtp: true, lora: 8}")), HasSubstr("model.mtp  cannot stand beside model.lora"));
  EXPECT_TRUE(Read(job("{path: model, mtp: true}"), {"trainer.mtp_loss=0.3", "trainer.weight_decay=0.1"}).ok());
  EXPECT_THAT(Report(job("{path: model, mtp: true}"), {"trainer.weight_decay=0.1"}), HasSubstr("trainer.weight_decay  would shrink the layers of model.mtp"));
  EXPECT_THAT(Report(job("model"), {"trainer.mtp_loss=0.3"}), HasSubstr("trainer.mtp_loss  wants model.mtp: true"));
  EXPECT_THAT(Report(kShortest, {"trainer.mtp_loss=0.3"}), HasSubstr("trainer.mtp_loss  has no place in grpo: want sft or pretrain"));
  EXPECT_THAT(Report(job("model"), {"trainer.router.replay=true"}), HasSubstr("trainer.router.replay  has no place in sft"));
  EXPECT_THAT(Report(kShortest, {"trainer.router.capacity_factor=1"}), HasSubstr("trainer.router.capacity_factor  has no place in grpo"));
}

TEST_F(JobReaderTest, JobsThatTrainNothingRefuseWhatTrains) {
  const std::string generate = "name: a\nmodel: model\ndata: {eval: held_out.jsonl}\ngenerate: {}\n";
  auto job = Read(generate);
  ASSERT_TRUE(job.ok()) << job.status();
  auto again = Read(ToYaml(*job));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(HashOf(*job), HashOf(*again));
  EXPECT_THAT(Report(generate, {"trainer.beta1=0.5"}), HasSubstr("has no effect in generate, which trains nothing"));
  EXPECT_THAT(Report(generate, {"eval.samples=2"}), HasSubstr("has no effect in generate"));
  EXPECT_THAT(Report(generate, {"generate.samples=2", "generate.temperature=0"}), HasSubstr("completions of a prompt are equal"));
  EXPECT_THAT(Report("name: a\nmodel: model\ngenerate: {}\n"), HasSubstr("data.eval  is required by generate"));
  EXPECT_THAT(Report("name: a\nmodel: model\nscore: {}\nrewards: [{numeric: {}}]\n"),
              HasSubstr("have no effect in score"));
}

TEST_F(JobReaderTest, PretrainingReadsACorpusAndNothingElse) {
  std::ofstream(folder_ / "corpus.idx") << "x";
  const std::string pretrain = "name: a\nmodel: {config: model}\npretrain: {sequence_tokens: 64, corpus: [corpus.idx]}\n";
  auto job = Read(pretrain);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->pretrain().corpus(0).path(), (folder_ / "corpus.idx").string());
  EXPECT_EQ(TextJobOf(*job)->lines, 64u);
  EXPECT_TRUE(Read(ToYaml(*job)).ok());
  EXPECT_THAT(Report(pretrain, {"data.train=train.jsonl"}), HasSubstr("which reads pretrain.corpus"));
  EXPECT_THAT(Report(pretrain, {"pretrain.corpus=[]"}), HasSubstr("is required: at least one .idx file"));
  EXPECT_THAT(Report(pretrain, {"pretrain.corpus=[absent.idx]"}), HasSubstr("absent.idx does not exist"));
  EXPECT_THAT(Report(pretrain, {"pretrain.split='0,1'"}), HasSubstr("leaves nothing to train on"));
  EXPECT_THAT(Report(pretrain, {"pretrain.split='9,x'"}), HasSubstr("wants shares of at least 0"));
  EXPECT_THAT(Report(pretrain, {"pretrain.split='1,1,1,1'"}), HasSubstr("has 4 shares, at most 3"));
  EXPECT_THAT(Report(pretrain, {"pretrain.corpus=[{path: corpus.idx, weight: 1}, corpus.idx]"}),
              HasSubstr("1 of 2 parts have a weight"));
  EXPECT_THAT(Report(pretrain, {"eval.every=5"}), HasSubstr("without a held-out share: pretrain.split"));
  EXPECT_THAT(Report(pretrain, {"model.max_length=32"}), HasSubstr("is 64, more than model.max_length 32"));
  EXPECT_TRUE(Read(pretrain, {"pretrain.split='9,1'", "eval.every=5", "eval.patience=1"}).ok());
}

TEST_F(JobReaderTest, SchemasNameColumns) {
  auto dataset = [&](const std::string& yaml) {
    auto job = Read(kShortest, {"data.train=" + yaml});
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? job->data().train() : v1::DatasetConfig();
  };
  EXPECT_EQ(dataset("{file: train.jsonl, schema: verl}").answer(), "reward_model.ground_truth");
  EXPECT_EQ(dataset("{file: train.jsonl, schema: trl}").answer(), "completion");
  EXPECT_EQ(dataset("{file: train.jsonl, schema: openai}").prompt(), "messages");
  EXPECT_EQ(dataset("{file: train.jsonl, schema: sharegpt}").prompt(), "conversations");
  EXPECT_EQ(dataset("{file: train.jsonl, schema: alpaca}").context(), "input");
  EXPECT_EQ(dataset("{file: train.jsonl, schema: alpaca, prompt: question}").prompt(), "question");
  EXPECT_THAT(Report(kShortest, {"data.train={file: train.jsonl, schema: parquet}"}),
              HasSubstr("one of verl, trl, openai, sharegpt, alpaca"));
}

TEST_F(JobReaderTest, EveryPresetReadsAndPrintsBack) {
  for (const char* name : {"grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp",
                           "reinforce_pp_baseline", "remax", "cispo", "sapo", "gmpo"}) {
    auto job = Read("name: a\nmodel: model\ndata: {train: train.jsonl}\nrewards: [{numeric: {}}]\n" +
                    std::string(name) + ": {}\n");
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(KindOf(*job), name);
    auto again = Read(ToYaml(*job));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(HashOf(*job), HashOf(*again));
  }
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

TEST_F(JobReaderTest, WhatIsTooLongIsLeftOutOrCutAndKeysAndValuesMayBeNarrow) {
  const std::string sft = "name: a\nmodel: model\ndata: {train: train.jsonl}\nsft: {}\n";
  EXPECT_TRUE(Read(sft, {"data.truncate=left"}).ok());
  EXPECT_THAT(Report(sft, {"data.truncate=middle"}), HasSubstr("data.truncate"));
  EXPECT_THAT(Report(sft, {"data.truncate=right", "data.drop_long_prompts=true"}), HasSubstr("give one of the two"));
  EXPECT_THAT(Report("name: a\nmodel: {config: model}\npretrain: {corpus: [a.idx], sequence_tokens: 8}\n", {"data.truncate=right"}),
              ContainsRegex("data.truncate  +has no effect: pretrain joins documents"));
  EXPECT_EQ(Read(sft, {"model.kv_cache=fp8"})->model().kv_cache(), v1::KV_FORMAT_FP8);
  EXPECT_THAT(Report(sft, {"model.kv_cache=fp8_rollout"}), ContainsRegex("model.kv_cache  +fp8_rollout has no effect in sft"));
  EXPECT_TRUE(Read(kShortest, {"model.kv_cache=fp8_rollout"}).ok());
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
