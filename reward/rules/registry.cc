#include "reward/rules/registry.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "reward/rules/boxed_math.h"
#include "reward/rules/exact_match.h"
#include "reward/rules/length.h"
#include "reward/rules/numeric.h"
#include "reward/rules/pattern.h"
#include "reward/rules/regex_match.h"

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
                                       const Expired& expired) -> absl::StatusOr<double> {
    if (size_t bytes = item.completion().text().size(); bytes > kMaxCompletionBytes) {
      return absl::InvalidArgumentError(absl::StrCat("completion of ", bytes, " bytes, at most ",
                                                     kMaxCompletionBytes, " are scored"));
    }
    return rule(item, expired);
  });
}

}  // namespace rein::reward
