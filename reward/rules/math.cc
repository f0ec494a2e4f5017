#include "reward/rules/math.h"

#include <optional>

#include "absl/strings/ascii.h"

#include "reward/math/extract_answer.h"
#include "reward/math/parser.h"

namespace rein::reward {
namespace {

std::optional<std::string> FinalAnswer(absl::string_view completion, const MathOptions& options) {
  const v1::AnswerPlace place = options.place;
  if (place == v1::ANSWER_PLACE_WHOLE) return std::string(completion);
  if (place != v1::ANSWER_PLACE_MARKER) {
    std::optional<std::string> boxed = math::LastBoxed(completion);
    if (boxed.has_value() || place == v1::ANSWER_PLACE_BOXED) return boxed;
  }
  std::optional<std::string> marked = math::AfterMarker(completion, options.markers);
  if (!marked.has_value()) return std::nullopt;
  std::optional<std::string> boxed = math::LastBoxed(*marked);
  return boxed.has_value() ? boxed : marked;
}

std::string RightAnswer(absl::string_view answer) {
  if (std::optional<std::string> boxed = math::LastBoxed(answer)) return *boxed;
  if (std::optional<std::string> marked = math::AfterMarker(answer, {"####"})) return *marked;
  return std::string(answer);
}

}  // namespace

absl::StatusOr<double> MathAnswer(absl::string_view completion, absl::string_view answer,
                                  const MathOptions& options) {
  const std::string right = RightAnswer(answer);
  if (absl::StripAsciiWhitespace(right).empty()) {
    return absl::InvalidArgumentError("the answer is empty");
  }
  std::optional<std::string> given = FinalAnswer(completion, options);
  if (!given.has_value()) return 0.0;
  return math::SameAnswer(math::ParseAnswer(right), math::ParseAnswer(*given), options.same) ? 1.0
                                                                                             : 0.0;
}

}  // namespace rein::reward
