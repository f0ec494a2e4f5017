#include "common/config/explain.h"

#include <fstream>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/algorithm_table.h"
#include "common/config/axis_table.h"
#include "common/config/schema.h"
#include "rein/v1/job.pb.h"

namespace rein::config {
namespace {

using ::testing::HasSubstr;

TEST(ExplainTest, TellsTypeRangeDefaultMeaningAndPeers) {
  EXPECT_EQ(*Explain("grpo.clip.high"),
            "grpo.clip.high   number in [0, 1000], default 0.2\n"
            "  The ratio counts up to 1 + high (DAPO: 0.28); with ratio: geometric its logarithm up to "
            "high.\n"
            "  Elsewhere: verl actor.clip_ratio_high; TRL epsilon_high\n");
  EXPECT_THAT(*Explain("grpo.prompts"),
              HasSubstr("whole number in [1, 65536] (prompts), default 64"));
  EXPECT_THAT(*Explain("rewards.0.weight"), HasSubstr("rewards.0.weight   number in"));
}

TEST(ExplainTest, ListsTheKeysOfAPart) {
  std::string text = *Explain("trainer.schedule");
  EXPECT_THAT(text, HasSubstr("constant  keys\n"));
  EXPECT_THAT(*Explain("model"), HasSubstr("A value alone sets path"));
  EXPECT_THAT(*Explain("grpo"), HasSubstr("Give one of: grpo, dr_grpo, "));
  EXPECT_THAT(*Explain(""), HasSubstr("placement"));
}

TEST(ExplainTest, DefaultsAreThoseOfThePreset) {
  EXPECT_THAT(*Explain("gspo.clip.low"), HasSubstr("gspo.clip.low   number in [0, 1), default 3e-04"));
  EXPECT_THAT(*Explain("gmpo.ratio"), HasSubstr("default geometric"));
  EXPECT_THAT(*Explain("rloo"), HasSubstr("default leave_one_out"));
  EXPECT_THAT(*Explain("sapo.clip.low"), HasSubstr("default 0.2"));  // of the key itself
}

TEST(ExplainTest, ListsTheAlgorithmsAndTheReadmeDoesToo) {
  std::string text = *Explain("algorithms");
  EXPECT_THAT(text, HasSubstr("gspo   arXiv 2507.18071\n"));
  EXPECT_THAT(text, HasSubstr("  Sets: ratio: sequence, clip: {low: 3e-4, high: 4e-4}"));
  std::ifstream file("trainer/algorithms/README.md");
  std::string readme((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(readme, HasSubstr(AlgorithmTable())) << "paste the table of AlgorithmTable() there";
}

// Every choice of every axis is told, and nothing that is no choice.
TEST(ExplainTest, TellsTheFormulaOfEachAxis) {
  EXPECT_THAT(*Explain("grpo.advantage"), HasSubstr("  optimal_baseline   arXiv 2505.23585\n    Formula: r - sum(n_j r_j)"));
  EXPECT_THAT(*Explain("algorithms"), HasSubstr("  kl.estimator: k2   joschu"));
  std::map<std::string, std::set<std::string>> told;
  for (const AxisValue& axis : AxisValues()) {
    EXPECT_TRUE(told[axis.key].insert(axis.value).second) << axis.key << " " << axis.value;
    EXPECT_TRUE(Explain("grpo." + axis.key).ok()) << axis.key << " is no key";
    EXPECT_FALSE(axis.formula.empty() || axis.source.empty()) << axis.key;
  }
  for (const char* key : {"advantage", "ratio", "aggregation", "when_stale"}) {
    const auto names = NamesOf(*v1::GrpoConfig::descriptor()->FindFieldByName(key)->enum_type());
    EXPECT_EQ(told[key], std::set<std::string>(names.begin(), names.end())) << key;
  }
  const auto estimators = NamesOf(*v1::KlEstimator_descriptor());
  EXPECT_EQ(told["kl.estimator"], std::set<std::string>(estimators.begin(), estimators.end()));
  const auto& surrogate = *v1::GrpoConfig::descriptor()->FindOneofByName("surrogate");
  for (int i = 0; i < surrogate.field_count(); ++i) {
    const std::string name = surrogate.field(i)->name();
    EXPECT_TRUE(name == "service" || told.count(name) == 1) << name;
  }
  std::ifstream file("trainer/algorithms/README.md");
  std::string readme((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(readme, HasSubstr(AxisMarkdown())) << "paste the table of AxisMarkdown() there";
}

TEST(ExplainTest, SuggestsTheNearestKey) {
  EXPECT_EQ(Explain("grpo.clip.hihg").status(),
            absl::NotFoundError("no key grpo.clip.hihg; did you mean grpo.clip.high?"));
  EXPECT_EQ(Explain("learning_rate").status(),
            absl::NotFoundError("no key learning_rate; did you mean trainer.learning_rate?"));
}

// Every key can be explained, and every default is a value that its own rules allow.
void CheckFields(const Descriptor& type, std::set<const Descriptor*>& seen) {
  if (!seen.insert(&type).second) return;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    EXPECT_FALSE(RulesOf(field).doc().empty()) << field.full_name();
    if (IsMessage(field)) CheckFields(*field.message_type(), seen);
    EXPECT_TRUE(IsMessage(field) || field.has_presence() || field.is_repeated())
        << field.full_name() << " must be optional";
  }
}

TEST(ExplainTest, EveryKeyHasItsDoc) {
  std::set<const Descriptor*> seen;
  CheckFields(*v1::JobConfig::descriptor(), seen);
  EXPECT_GT(seen.size(), 10);
}

}  // namespace
}  // namespace rein::config
