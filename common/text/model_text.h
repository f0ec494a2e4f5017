// ModelText is all that stands between text and the token ids of one model: its tokenizer, its chat
// template and the tokens that end a completion, as read from its Hugging Face folder.
//
//   REIN_ASSIGN_OR_RETURN(auto text, ModelText::Load("models/smollm2-135m-instruct"));
//   REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> prompt, text->EncodePrompt({{"user", "Hi"}}));
//   ... text->stop_token_ids() ...
//
// A folder without tokenizer.json gives a ModelText that knows the stop tokens only: every call
// that needs the tokenizer is then FAILED_PRECONDITION. Immutable and thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"

namespace rein::text {

// One message of a conversation; the role is system, user, assistant or tool.
struct ChatMessage {
  std::string role;
  std::string content;
  // What else the template is shown of it (tool_calls, name, ...): a JSON object; "" is none.
  std::string fields;
  // How much a turn of the assistant counts when it is learned; 0: it is only read.
  double weight = 1;

  bool operator==(const ChatMessage&) const = default;
};

class ModelText {
 public:
  // Longest text that is tokenised at once.
  static constexpr size_t kMaxTextBytes = 16 << 20;

  // Reads what is there of tokenizer.json, tokenizer_config.json, special_tokens_map.json,
  // chat_template.jinja, generation_config.json and config.json. INVALID_ARGUMENT names the file.
  static absl::StatusOr<std::unique_ptr<ModelText>> Load(const std::string& folder);

  // The ids of a conversation, up to where the assistant's answer begins. `tools`: schemas that the template is given,
  // each a JSON object.
  absl::StatusOr<std::vector<uint32_t>> EncodePrompt(
      const std::vector<ChatMessage>& messages, const std::vector<std::string>& tools = {}) const;
  // The text that the chat template makes of a conversation.
  absl::StatusOr<std::string> RenderChat(const std::vector<ChatMessage>& messages,
                                         bool add_generation_prompt,
                                         const std::vector<std::string>& tools = {}) const;
  // What the template adds after a turn of the assistant that answers `messages`, when `next` follows and the assistant
  // writes again: the end of the turn, `next`, and the beginning of the next turn. INVALID_ARGUMENT for a template that
  // changes what stood before the turn, or does not show it.
  absl::StatusOr<std::string> RenderContinuation(const std::vector<ChatMessage>& messages,
                                                 const std::vector<ChatMessage>& next,
                                                 const std::vector<std::string>& tools = {}) const;
  // The ids of that, to follow a turn whose last token is `last`: an end of turn that the assistant wrote itself is not
  // repeated.
  absl::StatusOr<std::vector<uint32_t>> EncodeContinuation(const std::vector<ChatMessage>& messages,
                                                           const std::vector<ChatMessage>& next,
                                                           uint32_t last,
                                                           const std::vector<std::string>& tools = {}) const;
  // Whether the chat template shows tools to the model. FAILED_PRECONDITION without a template.
  absl::StatusOr<bool> ShowsTools() const;
  // `add_special_tokens`: as the tokenizer puts them around plain text; off for rendered chats.
  absl::StatusOr<std::vector<uint32_t>> Encode(std::string_view text,
                                               bool add_special_tokens) const;
  // Text of the ids, special tokens skipped; an id that the tokenizer lacks reads as nothing.
  absl::StatusOr<std::string> Decode(const std::vector<uint32_t>& ids) const;

  bool has_tokenizer() const { return tokenizer_ != nullptr; }
  bool has_chat_template() const { return chat_template_ != nullptr; }
  // Null when the folder has none.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  // Tokens that end a completion: those of generation_config.json (else config.json) and the
  // tokenizer's eos_token; ascending, without repeats.
  const std::vector<uint32_t>& stop_token_ids() const { return stop_token_ids_; }
  // What SFT appends to plain text: the tokenizer's eos_token, else the first stop token.
  std::optional<uint32_t> eos_token_id() const { return eos_token_id_; }
  // One more than the largest id of the tokenizer; 0 without one.
  uint32_t vocabulary_size() const;

 private:
  explicit ModelText(std::string folder) : folder_(std::move(folder)) {}

  absl::Status LoadTokenizer();
  absl::Status LoadChatTemplate();
  absl::Status LoadStopTokens();
  absl::Status RequireTokenizer() const;

  std::string folder_;
  std::string tokenizer_config_;  // JSON text of the special tokens, as templates see them
  std::string eos_token_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  std::vector<uint32_t> stop_token_ids_;
  std::optional<uint32_t> eos_token_id_;
};

// FAILED_PRECONDITION when the tokenizer can make an id that the model has no row for.
absl::Status CheckVocabulary(const ModelText& text, uint32_t model_vocabulary_size);

}  // namespace rein::text
