#include "services/controller/token_texts.h"

#include "absl/strings/str_cat.h"

#include "common/checkpoint/model_source.h"
#include "common/status/status_macros.h"
#include "common/text/stream_decoder.h"

namespace rein::services {

absl::StatusOr<std::vector<std::string>> TokenTexts::Read(const v1::ModelConfig& model, const std::vector<uint32_t>& ids) {
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(model.has_path() ? model.path() : model.config()));
  REIN_ASSIGN_OR_RETURN(std::shared_ptr<const text::ModelText> text, TextOf(source.text));
  const text::Tokenizer& tokenizer = *text->tokenizer();
  text::StreamDecoder decoder(tokenizer);
  std::vector<std::string> texts;
  texts.reserve(ids.size());
  for (uint32_t id : ids) {
    REIN_ASSIGN_OR_RETURN(std::string piece, decoder.Append(id));
    if (piece.empty()) {
      REIN_ASSIGN_OR_RETURN(std::string plain, tokenizer.Decode({id}, /*skip_special_tokens=*/true));
      if (plain.empty()) {
        REIN_ASSIGN_OR_RETURN(piece, tokenizer.Decode({id}, /*skip_special_tokens=*/false));
      }
    }
    texts.push_back(std::move(piece));
  }
  REIN_ASSIGN_OR_RETURN(std::string rest, decoder.Flush());
  if (!texts.empty()) texts.back() += rest;
  return texts;
}

absl::StatusOr<std::shared_ptr<const text::ModelText>> TokenTexts::TextOf(const std::string& folder) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [name, text] : kept_) {
    if (name == folder) return text;
  }
  REIN_ASSIGN_OR_RETURN(std::shared_ptr<const text::ModelText> text, text::ModelText::Load(folder));
  if (!text->has_tokenizer()) return absl::NotFoundError(absl::StrCat(folder, " has no tokenizer"));
  kept_.emplace_back(folder, text);
  if (kept_.size() > kKept) kept_.pop_front();
  return text;
}

}  // namespace rein::services
