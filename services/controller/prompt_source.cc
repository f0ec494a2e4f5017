#include "services/controller/prompt_source.h"

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>

#include "common/data/jsonl_dataset.h"
#include "common/data/prompt_encoder.h"
#include "common/status/status_macros.h"
#include "common/text/model_text.h"

namespace rein::services {
namespace {

class JsonlPrompts final : public PromptSource {
 public:
  JsonlPrompts(std::string file, std::unique_ptr<text::ModelText> text,
               std::unique_ptr<data::JsonlDataset> rows, data::EncoderOptions options)
      : file_(std::move(file)),
        text_(std::move(text)),
        rows_(std::move(rows)),
        encoder_(*text_, std::move(options)) {}

  uint64_t size() const override { return rows_->size(); }

  absl::StatusOr<Prompt> Read(uint64_t index) override {
    REIN_ASSIGN_OR_RETURN(data::PromptRow row, rows_->Row(index));
    absl::StatusOr<std::vector<uint32_t>> ids = encoder_.EncodePrompt(row);
    if (!ids.ok()) return Named(index, ids.status());
    Prompt prompt{.token_ids = *std::move(ids), .answer = row.answer};
    for (const text::ChatMessage& message : encoder_.Messages(row)) {
      v1::Message& copy = prompt.messages.emplace_back();
      copy.set_role(message.role);
      copy.set_content(message.content);
    }
    auto parsed = google::protobuf::util::JsonStringToMessage(row.columns_json, &prompt.columns);
    if (!parsed.ok()) {
      return Named(index, absl::InvalidArgumentError(std::string(parsed.message())));
    }
    return prompt;
  }

  absl::StatusOr<LearnedText> ReadText(uint64_t index) override {
    REIN_ASSIGN_OR_RETURN(data::PromptRow row, rows_->Row(index));
    absl::StatusOr<data::AnsweredPrompt> answered = encoder_.EncodeAnswer(row);
    if (!answered.ok()) return Named(index, answered.status());
    return LearnedText{.token_ids = std::move(answered->token_ids),
                       .prompt_tokens = answered->prompt_tokens};
  }

 private:
  absl::Status Named(uint64_t index, const absl::Status& status) const {
    return absl::Status(status.code(), absl::StrCat(file_, ", prompt ", index, ": ",
                                                    std::string(status.message())));
  }

  const std::string file_;
  std::unique_ptr<text::ModelText> text_;
  std::unique_ptr<data::JsonlDataset> rows_;
  data::PromptEncoder encoder_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PromptSource>> OpenPrompts(const v1::DatasetConfig& dataset,
                                                          const std::string& model_folder,
                                                          bool answers) {
  REIN_ASSIGN_OR_RETURN(auto text, text::ModelText::Load(model_folder));
  REIN_ASSIGN_OR_RETURN(auto rows, data::JsonlDataset::Open({.path = dataset.file(),
                                                             .prompt_column = dataset.prompt(),
                                                             .answer_column = dataset.answer(),
                                                             .answer_required = answers,
                                                             .limit = dataset.limit()}));
  data::EncoderOptions options{.chat_template = dataset.chat_template(),
                               .system = dataset.system()};
  return std::make_unique<JsonlPrompts>(dataset.file(), std::move(text), std::move(rows),
                                        std::move(options));
}

}  // namespace rein::services
