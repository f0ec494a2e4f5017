#include "services/controller/prompt_length.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::services {

absl::StatusOr<ItemLength> LengthOf(PromptSource& source, uint64_t index, const v1::JobConfig& job) {
  const v1::DataConfig& data = job.data();
  const uint64_t context = source.context_tokens();
  ItemLength length;
  if (!data.has_max_prompt_tokens() && context == 0) return length;
  uint64_t prompt = 0, text = 0;
  bool learns = true;
  const bool texts = config::AnswersOf(job).has_value() || job.has_score();
  if (texts) {
    REIN_ASSIGN_OR_RETURN(std::vector<LearnedText> learned, source.ReadTexts(index));
    for (const LearnedText& one : learned) {
      prompt = std::max<uint64_t>(prompt, one.prompt_tokens);
      text = std::max<uint64_t>(text, one.token_ids.size());
      length.is_cut = length.is_cut || one.cut_tokens > 0;
      // Nothing predicts the first token.
      const auto mask = one.loss_mask.begin();
      learns = learns && one.token_ids.size() > 1 && std::find(mask + 1, one.loss_mask.end(), 1) != one.loss_mask.end();
    }
  } else {
    REIN_ASSIGN_OR_RETURN(Prompt read, source.Read(index));
    prompt = read.token_ids.size();
    length.is_cut = read.cut_tokens > 0;
    text = prompt + 1;  // a completion has a token at least
  }
  const v1::DatasetConfig* dataset = config::DataOf(job);
  const std::string line = absl::StrCat("prompt ", index, " of ",
                                        dataset == nullptr ? "the data" : dataset->file(), " has ");
  if (data.has_max_prompt_tokens() && prompt > data.max_prompt_tokens()) {
    length.fault = absl::StrCat(line, prompt, " tokens, at most ", data.max_prompt_tokens(), " are allowed");
  } else if (context > 0 && text > context) {
    length.fault = texts ? absl::StrCat(line, text, " tokens with its answer, the model takes ", context)
                         : absl::StrCat(line, prompt, " tokens, the model takes ", context, " with the completion");
  } else if (length.is_cut && config::AnswersOf(job).has_value() && !learns && !job.sft().train_on_prompt()) {
    length.fault = absl::StrCat(line, "nothing left to learn: data.truncate cut it to ", text, " tokens");
  }
  return length;
}

absl::Status LeavesOut(const v1::JobConfig& job, const std::string& fault) {
  if (job.data().drop_long_prompts() || job.data().has_truncate()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(fault, " (data.drop_long_prompts: true leaves such prompts out, data.truncate cuts them)"));
}

}  // namespace rein::services
