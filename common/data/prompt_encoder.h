// PromptEncoder turns a line of a dataset into the token ids that a model is fed or trained on.
//
//   PromptEncoder encoder(*model_text, {.chat_template = true});
//   REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> prompt, encoder.EncodePrompt(row));
//   REIN_ASSIGN_OR_RETURN(AnsweredPrompt target, encoder.EncodeAnswer(row));  // for SFT
//
// The prompt's ids are the same in both, so that SFT teaches the very context that generation has.
// The ModelText must outlive the encoder. Immutable and thread-safe.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/data/jsonl_dataset.h"
#include "common/text/model_text.h"

namespace rein::data {

struct EncoderOptions {
  // True: messages go through the model's chat template. False: the prompt must be plain text and
  // is tokenised as it is.
  bool chat_template = true;
  // True: every turn of the assistant is a target, false: only the answer.
  bool all_turns = false;
  // An empty turn of the assistant that would be a target is INVALID_ARGUMENT: it teaches to say nothing.
  bool refuse_empty = false;
  // Put in front of prompts that have no system message; empty: nothing is.
  std::string system;
};

// A prompt with its answer.
struct AnsweredPrompt {
  // Prompt first, then the answer and its stop token.
  std::vector<uint32_t> token_ids;
  // How many of them come before the answer.
  uint32_t prompt_tokens = 0;
  // 1 where the token is a target, else 0; as many as token_ids.
  std::vector<uint8_t> loss_mask;
  // What each target counts, as its turn does; empty: all 1.
  std::vector<double> weights;
};

class PromptEncoder {
 public:
  PromptEncoder(const text::ModelText& text, EncoderOptions options)
      : text_(&text), options_(std::move(options)) {}

  // The conversation as the model sees it: the row's messages, the system message before them.
  std::vector<text::ChatMessage> Messages(const PromptRow& row) const;

  // INVALID_ARGUMENT when the row is a list of messages but no template is used, or has no token.
  absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const PromptRow& row) const;

  // With a chat template: the answer as assistant message, up to and with the token that ends its
  // turn. Without: the answer's ids and the model's eos token. INVALID_ARGUMENT when the row has no
  // answer, the template does not show its tools or calls, or does not repeat what came before in front of a turn. With all_turns the turns are
  // tokenised one after the other, as they came about.
  absl::StatusOr<AnsweredPrompt> EncodeAnswer(const PromptRow& row) const;

  // The prompt, then each step with `separator` behind it, tokenised by itself; the last token of each step is its
  // target, where a process reward model is read. INVALID_ARGUMENT without steps.
  absl::StatusOr<AnsweredPrompt> EncodeSteps(const PromptRow& row, const std::vector<std::string>& steps,
                                             const std::string& separator) const;

 private:
  absl::Status CheckTurn(const text::ChatMessage& turn, const std::string& which) const;
  absl::StatusOr<std::string> Render(const PromptRow& row, const std::vector<text::ChatMessage>& messages, bool prompt) const;
  absl::StatusOr<AnsweredPrompt> EncodeTurns(const PromptRow& row) const;
  absl::StatusOr<std::vector<uint32_t>> ChatAnswer(const PromptRow& row) const;
  size_t TokensOfTurn(const std::vector<uint32_t>& turn) const;
  void EndWithStopToken(std::vector<uint32_t>& answer) const;

  const text::ModelText* text_;
  EncoderOptions options_;
};

}  // namespace rein::data
