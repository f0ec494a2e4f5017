#include "reward/rules/registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "reward/math/extract_answer.h"
#include "reward/rules/boxed_math.h"
#include "reward/rules/code.h"
#include "reward/rules/exact_match.h"
#include "reward/rules/json_shape.h"
#include "reward/rules/length.h"
#include "reward/rules/math.h"
#include "reward/rules/numeric.h"
#include "reward/rules/pattern.h"
#include "reward/rules/regex_match.h"
#include "reward/rules/repetition.h"
#include "reward/rules/script.h"

namespace rein::reward {
namespace {

Rule MakeExactMatch(const v1::ExactMatchReward& config) {
  ExactMatchOptions options = {config.ignore_case(), config.last_line()};
  return [options](const v1::RewardItem& item, const Expired&) -> absl::StatusOr<double> {
    return ExactMatch(item.completion().text(), item.answer(), options);
  };
}

absl::StatusOr<Rule> MakeRegex(const v1::RegexReward& config) {
  REIN_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(config.pattern()));
  return Rule([pattern](const v1::RewardItem& item, const Expired& expired) {
    return RegexMatch(pattern, item.completion().text(), item.answer(), expired);
  });
}

Rule MakeNumeric(const v1::NumericReward& config) {
  NumericOptions options;
  if (config.has_tolerance()) options.tolerance = config.tolerance();
  options.only_number = config.only_number();
  return [options](const v1::RewardItem& item, const Expired&) {
    return Numeric(item.completion().text(), item.answer(), options);
  };
}

absl::StatusOr<Rule> MakeFormat(const v1::FormatReward& config) {
  REIN_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(config.regex()));
  return Rule([pattern](const v1::RewardItem& item, const Expired&) -> absl::StatusOr<double> {
    return pattern.FitsAll(item.completion().text()) ? 1.0 : 0.0;
  });
}

absl::StatusOr<Rule> MakeLength(const v1::LengthReward& config) {
  LengthOptions options = {config.max_tokens(), config.buffer_tokens(), config.min_tokens()};
  if (options.max_tokens == 0) return absl::InvalidArgumentError("max_tokens must be at least 1");
  if (options.buffer_tokens > options.max_tokens || options.min_tokens > options.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("buffer_tokens ", options.buffer_tokens, " and min_tokens ",
                     options.min_tokens, " must not exceed max_tokens ", options.max_tokens));
  }
  return Rule([options](const v1::RewardItem& item, const Expired&) -> absl::StatusOr<double> {
    return LengthPenalty(static_cast<uint32_t>(item.completion().token_ids_size()), options);
  });
}

Rule MakeMath(const v1::MathReward& config) {
  MathOptions options;
  if (config.has_place()) options.place = config.place();
  for (const std::string& marker : config.markers()) {
    options.markers.push_back(absl::AsciiStrToLower(marker));
  }
  if (options.markers.empty()) options.markers = math::DefaultMarkers();
  if (config.has_tolerance()) options.same.tolerance = config.tolerance();
  options.same.require_units = config.require_units();
  return [options](const v1::RewardItem& item, const Expired&) {
    return MathAnswer(item.completion().text(), item.answer(), options);
  };
}

Rule MakeRepetition(const v1::RepetitionReward& config) {
  const uint32_t ngram = config.has_ngram() ? std::max(config.ngram(), 1u) : 3;
  if (config.unit() == v1::REPETITION_UNIT_TOKENS) {
    return [ngram](const v1::RewardItem& item, const Expired&) -> absl::StatusOr<Verdict> {
      const auto& ids = item.completion().token_ids();
      return TokenRepetition({ids.begin(), ids.end()}, ngram);
    };
  }
  return [ngram](const v1::RewardItem& item, const Expired&) -> absl::StatusOr<Verdict> {
    return WordRepetition(item.completion().text(), ngram);
  };
}

absl::StatusOr<Rule> MakeJson(const v1::JsonReward& config) {
  JsonShapeOptions options = {.column = config.column(), .fenced = config.fenced()};
  if (config.has_schema() && config.has_column()) {
    return absl::InvalidArgumentError("schema and column stand side by side: one of them");
  }
  if (config.has_schema()) {
    REIN_ASSIGN_OR_RETURN(nlohmann::json schema, json::ParseJson(config.schema()));
    REIN_ASSIGN_OR_RETURN(options.schema, json::JsonSchema::Compile(schema));
  }
  return Rule([options](const v1::RewardItem& item, const Expired&) {
    return JsonShape(item, options);
  });
}

absl::StatusOr<Rule> MakeScript(const v1::ScriptReward& config) {
  REIN_ASSIGN_OR_RETURN(Script script, Script::Create(config.name()));
  return Rule([script](const v1::RewardItem& item, const Expired&) -> absl::StatusOr<Verdict> {
    return script.Share(item.completion().text());
  });
}

// What an environment gave is known to whoever played the episode.
absl::StatusOr<Verdict> Given(const v1::RewardItem& item) {
  if (item.has_environment_reward()) return Verdict(item.environment_reward());
  return absl::InvalidArgumentError("no environment gave a reward: this completion is no episode");
}

absl::StatusOr<Rule> MakeCode(const v1::RewardConfig& reward) {
  const v1::CodeReward& config = reward.code();
  CodeOptions options;
  if (config.has_tests()) options.tests = config.tests();
  options.command.assign(config.command().begin(), config.command().end());
  options.build.assign(config.build().begin(), config.build().end());
  options.share = config.score() == v1::CODE_SCORE_SHARE;
  if (config.has_test_seconds()) options.limits.processor = absl::Seconds(config.test_seconds());
  options.limits.wall = 2 * options.limits.processor;
  if (config.has_memory_mb()) options.limits.memory_bytes = uint64_t{config.memory_mb()} << 20;
  if (config.has_output_kb()) options.limits.output_bytes = uint64_t{config.output_kb()} << 10;
  if (config.has_processes()) options.limits.processes = config.processes();
  options.tolerance = config.tolerance();
  // The rule ends before its own time does, which would be an error and no score.
  const double seconds = reward.has_timeout_seconds() ? reward.timeout_seconds() : 10;
  options.all_tests = absl::Seconds(0.9 * seconds);
  REIN_ASSIGN_OR_RETURN(sandbox::Sandbox sandbox,
                        sandbox::HostSandbox(config.isolation() == v1::ISOLATION_WEAK));
  return Rule([options, sandbox](const v1::RewardItem& item, const Expired&) {
    return Code(item, options, sandbox);
  });
}

absl::StatusOr<Rule> MakeAnyRule(const v1::RewardConfig& config) {
  switch (config.rule_case()) {
    case v1::RewardConfig::kExactMatch:
      return MakeExactMatch(config.exact_match());
    case v1::RewardConfig::kRegex:
      return MakeRegex(config.regex());
    case v1::RewardConfig::kNumeric:
      return MakeNumeric(config.numeric());
    case v1::RewardConfig::kBoxedMath:
      return Rule([](const v1::RewardItem& item, const Expired&) {
        return BoxedMath(item.completion().text(), item.answer());
      });
    case v1::RewardConfig::kFormat:
      return MakeFormat(config.format());
    case v1::RewardConfig::kLength:
      return MakeLength(config.length());
    case v1::RewardConfig::kMath:
      return MakeMath(config.math());
    case v1::RewardConfig::kRepetition:
      return MakeRepetition(config.repetition());
    case v1::RewardConfig::kJson:
      return MakeJson(config.json());
    case v1::RewardConfig::kScript:
      return MakeScript(config.script());
    case v1::RewardConfig::kCode:
      return MakeCode(config);
    case v1::RewardConfig::kEnvironment:
      return Rule([](const v1::RewardItem& item, const Expired&) { return Given(item); });
    case v1::RewardConfig::kRemote:
    case v1::RewardConfig::kModel:
      return absl::UnimplementedError("a scorer of another process is no rule of this one");
    case v1::RewardConfig::RULE_NOT_SET:
      return absl::InvalidArgumentError("no rule is set");
  }
  return absl::InternalError("unknown rule");
}

}  // namespace

std::string RuleName(const v1::RewardConfig& config) {
  if (!config.name().empty()) return config.name();
  const google::protobuf::OneofDescriptor* rule =
      v1::RewardConfig::descriptor()->FindOneofByName("rule");
  const google::protobuf::FieldDescriptor* field =
      v1::RewardConfig::GetReflection()->GetOneofFieldDescriptor(config, rule);
  return field == nullptr ? "unset" : field->name();
}

absl::StatusOr<Rule> MakeRule(const v1::RewardConfig& config) {
  REIN_ASSIGN_OR_RETURN(Rule rule, MakeAnyRule(config));
  return Rule([rule = std::move(rule)](const v1::RewardItem& item,
                                       const Expired& expired) -> absl::StatusOr<Verdict> {
    if (size_t bytes = item.completion().text().size(); bytes > kMaxCompletionBytes) {
      return absl::InvalidArgumentError(absl::StrCat("completion of ", bytes, " bytes, at most ",
                                                     kMaxCompletionBytes, " are scored"));
    }
    return rule(item, expired);
  });
}

}  // namespace rein::reward
