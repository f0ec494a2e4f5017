#include "common/config/reward_checks.h"

#include <set>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include <re2/re2.h>

#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/json/json_schema.h"
#include "common/json/parse_json.h"

namespace rein::config {
namespace {

using Add = std::function<void(const std::string& key, const std::string& text)>;

bool Compiles(const std::string& pattern, std::string* error) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  re2::RE2 compiled(pattern, options);
  if (error != nullptr) *error = compiled.error();
  return compiled.ok();
}

void CheckPattern(const std::string& key, const std::string& pattern, const Add& add) {
  std::string error;
  if (!Compiles(pattern, &error)) add(key, absl::StrCat("is no RE2 pattern: ", error));
}

void CheckLength(const std::string& key, const v1::LengthReward& length, const Add& add) {
  if (length.buffer_tokens() > length.max_tokens()) {
    add(key + ".buffer_tokens", absl::StrCat("is ", length.buffer_tokens(),
                                             ", more than max_tokens ", length.max_tokens()));
  }
  if (length.min_tokens() >= length.max_tokens() && length.max_tokens() > 0) {
    add(key + ".min_tokens",
        absl::StrCat("is ", length.min_tokens(), ", not below max_tokens ", length.max_tokens()));
  }
}

bool IsBound(const v1::RewardRange& range) { return range.has_min() || range.has_max(); }

void CheckRange(const std::string& key, const v1::RewardRange& range, const Add& add) {
  if (range.has_min() && range.has_max() && range.min() > range.max()) {
    add(key, absl::StrCat("is empty: min ", range.min(), " is above max ", range.max()));
  }
}

void CheckMath(const std::string& key, const v1::MathReward& math, const Add& add) {
  const bool marked =
      math.place() == v1::ANSWER_PLACE_ANY || math.place() == v1::ANSWER_PLACE_MARKER;
  if (!math.markers().empty() && !marked) add(key + ".markers", "has no effect with this place");
  for (const std::string& marker : math.markers()) {
    if (absl::StripAsciiWhitespace(marker).empty()) add(key + ".markers", "holds an empty marker");
  }
}

void CheckJson(const std::string& key, const v1::JsonReward& json, const Add& add) {
  if (json.has_schema() && json.has_column()) {
    add(key + ".column", "cannot stand beside schema: one of them");
  }
  if (!json.has_schema()) return;
  absl::StatusOr<nlohmann::json> schema = json::ParseJson(json.schema());
  if (!schema.ok()) {
    return add(key + ".schema",
               absl::StrCat("is no JSON: ", std::string(schema.status().message())));
  }
  absl::Status compiled = json::JsonSchema::Compile(*schema).status();
  if (!compiled.ok()) add(key + ".schema", std::string(compiled.message()));
}

void CheckScript(const std::string& key, const v1::ScriptReward& script, const Add& add) {
  const std::string& name = script.name();
  if (name.size() < 3 || name == "Any" || !Compiles(absl::StrCat("\\p{", name, "}"), nullptr)) {
    add(key + ".name",
        absl::StrCat("is no Unicode script, such as Latin, Han, Cyrillic: got '", name, "'"));
  }
}

void CheckCode(const std::string& key, const v1::RewardConfig& reward, const Add& add) {
  const v1::CodeReward& code = reward.code();
  if (!code.build().empty() && code.command().empty()) {
    add(key + ".command", "is required beside build: how what was built is run, such as [program]");
  }
  const double all = reward.has_timeout_seconds() ? reward.timeout_seconds() : 10;
  if (code.test_seconds() > all) {
    add(key + ".test_seconds",
        absl::StrCat("is ", code.test_seconds(), ", more than timeout_seconds ", all,
                     ", which bounds all tests"));
  }
}

void CheckReward(const std::string& key, const v1::RewardConfig& reward, const Add& add) {
  if (reward.has_regex()) CheckPattern(key + ".regex.pattern", reward.regex().pattern(), add);
  if (reward.has_format()) CheckPattern(key + ".format.regex", reward.format().regex(), add);
  if (reward.has_length()) CheckLength(key + ".length", reward.length(), add);
  if (reward.has_math()) CheckMath(key + ".math", reward.math(), add);
  if (reward.has_json()) CheckJson(key + ".json", reward.json(), add);
  if (reward.has_code()) CheckCode(key + ".code", reward, add);
  if (reward.has_script()) CheckScript(key + ".script", reward.script(), add);
  CheckRange(key + ".range", reward.range(), add);
  CheckRange(key + ".clip", reward.clip(), add);
  if (reward.has_when() && reward.when().is().empty()) {
    add(key + ".when.is", "is required: the values of the column for which the reward applies");
  }
  if (reward.has_gate() && reward.clip().has_min() &&
      reward.gate().at_least() <= reward.clip().min()) {
    add(key + ".gate.at_least",
        absl::StrCat("is ", reward.gate().at_least(), ", which every score reaches after clip.min ",
                     reward.clip().min()));
  }
}

// Advantages that take each reward by itself have no sum that could be clipped, replaced or lack a
// part.
void CheckEachByItself(const v1::JobConfig& job, const Add& add) {
  const v1::GrpoConfig* config = PolicyGradientOf(job);
  if (config == nullptr || config->advantage() != v1::ADVANTAGE_PER_REWARD) return;
  const char* why = "has no effect on advantage: per_reward, which takes each reward by itself";
  if (IsBound(job.reward_clip())) add("reward_clip", why);
  for (int i = 0; i < job.rewards_size(); ++i) {
    if (job.rewards(i).has_gate()) add(absl::StrCat("rewards.", i, ".gate"), why);
    if (job.rewards(i).has_when()) {
      add(absl::StrCat("rewards.", i, ".when"),
          "cannot stand beside advantage: per_reward, which needs every reward of every prompt");
    }
  }
}

}  // namespace

void CheckRewards(const v1::JobConfig& job, const Add& add) {
  std::set<std::string> names;
  for (int i = 0; i < job.rewards_size(); ++i) {
    const v1::RewardConfig& reward = job.rewards(i);
    const std::string key = absl::StrCat("rewards.", i);
    if (!names.insert(NameOfReward(reward)).second) {
      add(key, absl::StrCat("a second reward with the name ", NameOfReward(reward),
                            ": give it another by `name`"));
    }
    CheckReward(key, reward, add);
  }
  if (IsBound(job.reward_clip()) && job.rewards().empty()) {
    add("reward_clip", "has no effect without rewards");
  }
  CheckRange("reward_clip", job.reward_clip(), add);
  CheckEachByItself(job, add);
}

}  // namespace rein::config
