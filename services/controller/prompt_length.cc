#include "services/controller/prompt_length.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::services {

absl::StatusOr<std::string> TooLong(PromptSource& source, uint64_t index,
                                    const v1::JobConfig& job) {
  const v1::DataConfig& data = job.data();
  const uint64_t context = source.context_tokens();
  if (!data.has_max_prompt_tokens() && context == 0) return std::string();
  uint64_t prompt = 0, text = 0;
  const bool texts = config::AnswersOf(job).has_value() || job.has_score();
  if (texts) {
    REIN_ASSIGN_OR_RETURN(std::vector<LearnedText> learned, source.ReadTexts(index));
    for (const LearnedText& one : learned) {
      prompt = std::max<uint64_t>(prompt, one.prompt_tokens);
      text = std::max<uint64_t>(text, one.token_ids.size());
    }
  } else {
    REIN_ASSIGN_OR_RETURN(Prompt read, source.Read(index));
    prompt = read.token_ids.size();
    text = prompt + 1;  // a completion has a token at least
  }
  const v1::DatasetConfig* dataset = config::DataOf(job);
  const std::string line = absl::StrCat("prompt ", index, " of ",
                                        dataset == nullptr ? "the data" : dataset->file(), " has ");
  if (data.has_max_prompt_tokens() && prompt > data.max_prompt_tokens()) {
    return absl::StrCat(line, prompt, " tokens, at most ", data.max_prompt_tokens(),
                        " are allowed");
  }
  if (context == 0 || text <= context) return std::string();
  return texts
             ? absl::StrCat(line, text, " tokens with its answer, the model takes ", context)
             : absl::StrCat(line, prompt, " tokens, the model takes ", context,
                            " with the completion");
}

}  // namespace rein::services
