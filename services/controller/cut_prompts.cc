#include "services/controller/cut_prompts.h"

#include <algorithm>
#include <utility>

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

// Leaves [begin, end) of a text out.
void Erase(LearnedText& text, uint64_t begin, uint64_t end) {
  auto without = [&](auto& values, uint64_t from, uint64_t to) {
    values.erase(values.begin() + static_cast<std::ptrdiff_t>(from), values.begin() + static_cast<std::ptrdiff_t>(to));
  };
  const auto mask = text.loss_mask.begin();
  const auto first = mask + static_cast<std::ptrdiff_t>(begin), last = mask + static_cast<std::ptrdiff_t>(end);
  if (!text.target_rewards.empty()) {
    const auto before = static_cast<uint64_t>(std::count(mask, first, 1));
    without(text.target_rewards, before, before + static_cast<uint64_t>(std::count(first, last, 1)));
  }
  without(text.token_ids, begin, end);
  without(text.loss_mask, begin, end);
  const uint64_t prompt = text.prompt_tokens;
  text.prompt_tokens = static_cast<uint32_t>(prompt - (std::min(prompt, end) - std::min(prompt, begin)));
  text.cut_tokens += static_cast<uint32_t>(end - begin);
}

// Cuts tokens [0, size) of a text to `limit`.
void CutTo(LearnedText& text, uint64_t size, uint64_t limit, v1::Truncation side) {
  if (limit == 0 || size <= limit) return;
  if (side == v1::TRUNCATION_LEFT) return Erase(text, 0, size - limit);
  Erase(text, limit, size);
}

class Cut final : public PromptSource {
 public:
  Cut(std::unique_ptr<PromptSource> source, const LengthLimits& prompts, const LengthLimits& texts, v1::Truncation side)
      : source_(std::move(source)), prompts_(prompts), texts_(texts), side_(side) {}

  uint64_t size() const override { return source_->size(); }
  uint64_t context_tokens() const override { return source_->context_tokens(); }

  absl::StatusOr<Prompt> Read(uint64_t index) override {
    REIN_ASSIGN_OR_RETURN(Prompt prompt, source_->Read(index));
    LearnedText ids;
    ids.loss_mask.resize(prompt.token_ids.size());
    ids.token_ids = std::move(prompt.token_ids);
    ids = CutText(std::move(ids), {.text = prompts_.prompt}, side_);
    prompt.token_ids = std::move(ids.token_ids);
    prompt.cut_tokens = ids.cut_tokens;
    return prompt;
  }

  absl::StatusOr<std::vector<LearnedText>> ReadTexts(uint64_t index) override {
    REIN_ASSIGN_OR_RETURN(std::vector<LearnedText> texts, source_->ReadTexts(index));
    for (LearnedText& text : texts) text = CutText(std::move(text), texts_, side_);
    return texts;
  }

  absl::StatusOr<std::vector<uint32_t>> EncodeMessages(const std::vector<v1::Message>& messages,
                                                       const std::vector<std::string>& tools) override {
    return source_->EncodeMessages(messages, tools);
  }
  absl::StatusOr<std::vector<uint32_t>> EncodeObservation(const std::vector<v1::Message>& messages,
                                                          const std::vector<v1::Message>& next, uint32_t last,
                                                          const std::vector<std::string>& tools) override {
    return source_->EncodeObservation(messages, next, last, tools);
  }
  absl::StatusOr<bool> ShowsTools() override { return source_->ShowsTools(); }
  absl::StatusOr<std::vector<uint32_t>> TextEnds(const std::vector<uint32_t>& token_ids) override {
    return source_->TextEnds(token_ids);
  }

 private:
  const std::unique_ptr<PromptSource> source_;
  const LengthLimits prompts_, texts_;
  const v1::Truncation side_;
};

}  // namespace

LearnedText CutText(LearnedText text, const LengthLimits& limits, v1::Truncation side) {
  CutTo(text, text.prompt_tokens, limits.prompt, side);
  CutTo(text, text.token_ids.size(), limits.text, side);
  return text;
}

std::unique_ptr<PromptSource> CutPrompts(std::unique_ptr<PromptSource> source, const LengthLimits& prompts,
                                         const LengthLimits& texts, v1::Truncation side) {
  return std::make_unique<Cut>(std::move(source), prompts, texts, side);
}

}  // namespace rein::services
