#include "services/controller/prompt_source.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>

#include "common/checkpoint/model_source.h"
#include "common/config/corpus_split.h"
#include "common/data/jsonl_dataset.h"
#include "common/data/prompt_encoder.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "common/text/model_text.h"
#include "common/text/stream_decoder.h"
#include "services/controller/cut_prompts.h"
#include "services/controller/evaluation.h"
#include "services/controller/prompt_length.h"

namespace rein::services {
namespace {

namespace fs = std::filesystem;

// Lines that are looked at when a job is submitted; the others are before it trains.
constexpr uint64_t kCheckedLines = 20'000;

using Answers = config::TextJob::Answers;

// What a line tells beside its first answer.
struct Marks {
  std::optional<Answers> answers;                // what every line must have
  std::unique_ptr<data::JsonlDataset> rejected;  // the same file with the other answers of pairs
  std::string column;                            // of the label, or of the margin of a pair; empty: none
  std::string steps, separator;                  // column of the steps, and what stands behind each
};

std::vector<text::ChatMessage> ToChat(const std::vector<v1::Message>& messages) {
  std::vector<text::ChatMessage> chat;
  for (const v1::Message& message : messages) chat.push_back({message.role(), message.content()});
  return chat;
}

// As it is read without a chat template.
std::string Joined(const std::vector<v1::Message>& messages) {
  std::string text;
  for (const v1::Message& message : messages) text += message.content();
  return text;
}

class JsonlPrompts final : public PromptSource {
 public:
  JsonlPrompts(std::string file, std::unique_ptr<text::ModelText> text,
               std::unique_ptr<data::JsonlDataset> rows, data::EncoderOptions options,
               uint64_t context_tokens, Marks marks)
      : file_(std::move(file)),
        context_tokens_(context_tokens),
        text_(std::move(text)),
        rows_(std::move(rows)),
        chat_template_(options.chat_template),
        encoder_(*text_, std::move(options)),
        marks_(std::move(marks)) {}

  uint64_t size() const override { return rows_->size(); }
  uint64_t context_tokens() const override { return context_tokens_; }

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

  absl::StatusOr<std::vector<uint32_t>> EncodeMessages(const std::vector<v1::Message>& messages,
                                                       const std::vector<std::string>& tools) override {
    if (chat_template_) return text_->EncodePrompt(ToChat(messages), tools);
    if (!tools.empty()) return absl::InvalidArgumentError("tools want a chat template, and chat_template is false");
    return text_->Encode(Joined(messages), /*add_special_tokens=*/true);
  }

  absl::StatusOr<std::vector<uint32_t>> EncodeObservation(const std::vector<v1::Message>& messages,
                                                          const std::vector<v1::Message>& next, uint32_t last,
                                                          const std::vector<std::string>& tools) override {
    if (chat_template_) return text_->EncodeContinuation(ToChat(messages), ToChat(next), last, tools);
    return text_->Encode(Joined(next), /*add_special_tokens=*/false);
  }

  absl::StatusOr<bool> ShowsTools() override {
    if (!chat_template_) return false;
    return text_->ShowsTools();
  }

  absl::StatusOr<std::vector<uint32_t>> TextEnds(const std::vector<uint32_t>& token_ids) override {
    text::StreamDecoder decoder(*text_->tokenizer());
    std::vector<uint32_t> ends;
    size_t bytes = 0;
    for (uint32_t id : token_ids) {
      REIN_ASSIGN_OR_RETURN(std::string piece, decoder.Append(id));
      bytes += piece.size();
      ends.push_back(static_cast<uint32_t>(bytes));
    }
    return ends;
  }

  absl::StatusOr<std::vector<LearnedText>> ReadTexts(uint64_t index) override {
    std::vector<LearnedText> texts;
    if (marks_.answers == Answers::kSteps) {
      absl::StatusOr<LearnedText> steps = ReadSteps(index);
      if (!steps.ok()) return Named(index, steps.status());
      texts.push_back(*std::move(steps));
      return texts;
    }
    for (const auto* rows : {rows_.get(), marks_.rejected.get()}) {
      if (rows == nullptr) continue;
      REIN_ASSIGN_OR_RETURN(data::PromptRow row, rows->Row(index));
      if (!row.has_answer && !marks_.answers.has_value()) {
        // A text by itself, every token of which follows from those before it.
        absl::StatusOr<std::vector<uint32_t>> ids = encoder_.EncodePrompt(row);
        if (!ids.ok()) return Named(index, ids.status());
        LearnedText& text = texts.emplace_back();
        text.loss_mask.assign(ids->size(), 1);
        text.token_ids = *std::move(ids);
        continue;
      }
      absl::StatusOr<data::AnsweredPrompt> answered = encoder_.EncodeAnswer(row);
      if (!answered.ok()) return Named(index, answered.status());
      LearnedText& text = texts.emplace_back();
      text.token_ids = std::move(answered->token_ids);
      text.prompt_tokens = answered->prompt_tokens;
      text.loss_mask = std::move(answered->loss_mask);
      text.target_rewards = std::move(answered->weights);
      if (texts.size() > 1 || marks_.column.empty()) continue;
      REIN_ASSIGN_OR_RETURN(text.reward, Mark(index, row));
    }
    return texts;
  }

 private:
  static nlohmann::json ColumnsOf(const data::PromptRow& row) {
    return nlohmann::json::parse(row.columns_json, nullptr, false);
  }

  // The label, score or margin of a line.
  absl::StatusOr<double> Mark(uint64_t index, const data::PromptRow& row) const {
    const nlohmann::json value = ColumnsOf(row).value(marks_.column, nlohmann::json());
    const bool is_label = marks_.answers == Answers::kMarked;
    if (is_label && value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
    if (is_label && value.is_number() && (value == 0 || value == 1)) return value.get<double>();
    if (!is_label && value.is_number()) return value.get<double>();
    return Named(index, absl::InvalidArgumentError(absl::StrCat(
                            "column ", marks_.column, " is ", value.dump(), ", want ",
                            is_label ? "true or false" : "a number")));
  }

  // A line of steps, each with its label.
  absl::StatusOr<LearnedText> ReadSteps(uint64_t index) const {
    REIN_ASSIGN_OR_RETURN(data::PromptRow row, rows_->Row(index));
    const nlohmann::json columns = ColumnsOf(row);
    const auto steps = columns.value(marks_.steps, nlohmann::json()), labels = columns.value(marks_.column, nlohmann::json());
    const bool texts = steps.is_array() && std::all_of(steps.begin(), steps.end(), [](auto& s) { return s.is_string(); });
    if (!texts || steps.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("column ", marks_.steps, " is ", steps.is_null() ? "absent" : "no list of texts",
                                                     ", want the steps of the answer"));
    }
    LearnedText text;
    for (const nlohmann::json& label : labels) {
      const bool number = label.is_number() && label.get<double>() >= 0 && label.get<double>() <= 1;
      if (!label.is_boolean() && !number) {
        return absl::InvalidArgumentError(absl::StrCat("column ", marks_.column, " has ", label.dump(),
                                                       ", want true, false or a number from 0 to 1"));
      }
      text.target_rewards.push_back(label.is_boolean() ? (label.get<bool>() ? 1.0 : 0.0) : label.get<double>());
    }
    if (!labels.is_array() || text.target_rewards.size() != steps.size()) {
      return absl::InvalidArgumentError(absl::StrCat("column ", marks_.column, " has ", text.target_rewards.size(),
                                                     " labels for ", steps.size(), " steps"));
    }
    REIN_ASSIGN_OR_RETURN(data::AnsweredPrompt answered,
                          encoder_.EncodeSteps(row, steps.get<std::vector<std::string>>(), marks_.separator));
    text.token_ids = std::move(answered.token_ids);
    text.prompt_tokens = answered.prompt_tokens;
    text.loss_mask = std::move(answered.loss_mask);
    return text;
  }

  absl::Status Named(uint64_t index, const absl::Status& status) const {
    return absl::Status(status.code(), absl::StrCat(file_, ", prompt ", index, ": ",
                                                    std::string(status.message())));
  }

  const std::string file_;
  const uint64_t context_tokens_;
  std::unique_ptr<text::ModelText> text_;
  std::unique_ptr<data::JsonlDataset> rows_;
  const bool chat_template_;
  data::PromptEncoder encoder_;
  const Marks marks_;
};

// Lines [begin, end): the first that is too long, or that all are when they should be left out. How many are cut.
absl::StatusOr<uint64_t> CheckLengths(PromptSource& train, const v1::JobConfig& job, uint64_t begin,
                                      uint64_t end, const std::function<bool()>& go_on) {
  uint64_t kept = 0, cut = 0;
  std::string first;
  const uint64_t lines = std::min(train.size(), end);
  for (uint64_t i = begin; i < lines && go_on(); ++i) {
    REIN_ASSIGN_OR_RETURN(ItemLength item, LengthOf(train, i, job));
    if (first.empty()) first = item.fault;
    if (!item.fault.empty()) REIN_RETURN_IF_ERROR(LeavesOut(job, item.fault));
    kept += item.fault.empty() ? 1 : 0;
    cut += item.is_cut ? 1 : 0;
  }
  if (kept > 0 || begin > 0 || lines < train.size()) return cut;
  return absl::InvalidArgumentError(absl::StrCat("every prompt is too long: ", first));
}

absl::StatusOr<checkpoint::ModelSource> SourceOf(const v1::ModelConfig& model) {
  return checkpoint::FindModel(model.has_path() ? model.path() : model.config());
}

// Whether episodes can be played with these prompts: the chat template goes on after a turn, and shows tools.
absl::Status CheckEpisodes(PromptSource& prompts, const v1::JobConfig& job) {
  if (!job.has_environment()) return absl::OkStatus();
  const bool tools = job.environment().has_tools();
  if (tools) {
    REIN_ASSIGN_OR_RETURN(bool shown, prompts.ShowsTools());
    if (!shown) {
      REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, SourceOf(job.model()));
      return absl::InvalidArgumentError(absl::StrCat(
          "environment.tools: the chat template of ", source.text,
          " does not show tools to the model: a template with `tools` is wanted, or an environment that tells of its "
          "tools in the prompt"));
    }
  }
  REIN_ASSIGN_OR_RETURN(Prompt first, prompts.Read(0));
  std::vector<v1::Message> next(1);
  next[0].set_role(tools ? "tool" : "user");
  next[0].set_content("?");
  absl::Status status = prompts.EncodeObservation(first.messages, next, /*last=*/0, {}).status();
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("environment: ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<ModelLimits> ReadLimits(const v1::ModelConfig& model) {
  std::error_code error;
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, SourceOf(model));
  const fs::path path = source.weights;
  const fs::path file = fs::is_directory(path, error) ? path / "config.json" : path;
  REIN_ASSIGN_OR_RETURN(nlohmann::json config, json::ReadJsonFile(file.string()));
  auto count = [&](const char* key) -> uint64_t {
    auto found = config.find(key);
    return found != config.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
  };
  if (!config.is_object()) return ModelLimits{};
  ModelLimits limits{.vocabulary = count("vocab_size"),
                     .context_tokens = count("max_position_embeddings")};
  if (!model.has_max_length()) return limits;
  if (limits.context_tokens == 0) limits.context_tokens = model.max_length();
  limits.context_tokens = std::min<uint64_t>(limits.context_tokens, model.max_length());
  return limits;
}

absl::StatusOr<std::unique_ptr<PromptSource>> OpenPrompts(const v1::DatasetConfig& dataset,
                                                          const v1::ModelConfig& model, const PromptOptions& wanted) {
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, SourceOf(model));
  const std::string& folder = source.text;
  std::error_code error;
  const bool whole = fs::is_directory(source.weights, error);
  if (whole && !fs::exists(source.weights + "/config.json", error)) {
    return absl::InvalidArgumentError(absl::StrCat("model: there is no config.json in ", source.weights));
  }
  REIN_ASSIGN_OR_RETURN(auto text, text::ModelText::Load(folder));
  if (!text->has_tokenizer()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model: there is no tokenizer.json in ", folder));
  }
  REIN_ASSIGN_OR_RETURN(ModelLimits limits, ReadLimits(model));
  if (limits.vocabulary > 0) {
    absl::Status fits = text::CheckVocabulary(*text, static_cast<uint32_t>(limits.vocabulary));
    if (!fits.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(folder, ": ", std::string(fits.message())));
    }
  }
  auto open = [&](const std::string& column) {
    return data::JsonlDataset::Open({.path = dataset.file(),
                                     .prompt_column = dataset.prompt(),
                                     .answer_column = column,
                                     .context_column = dataset.context(),
                                     .answer_required = wanted.answers && wanted.answers != Answers::kSteps,
                                     .limit = dataset.limit()});
  };
  const bool pairs = wanted.answers == Answers::kPair;
  REIN_ASSIGN_OR_RETURN(auto rows, open(pairs ? dataset.chosen() : dataset.answer()));
  Marks marks{.answers = wanted.answers, .steps = dataset.steps(), .separator = wanted.separator};
  if (pairs) {
    REIN_ASSIGN_OR_RETURN(marks.rejected, open(dataset.rejected()));
    marks.column = dataset.margin();
  } else if (wanted.answers && wanted.answers != Answers::kOne) {
    marks.column = dataset.label();
  }
  data::EncoderOptions options{.chat_template = dataset.chat_template(),
                               .all_turns = wanted.all_turns,
                               .refuse_empty = wanted.imitates,
                               .system = dataset.system()};
  auto prompts = std::make_unique<JsonlPrompts>(dataset.file(), std::move(text), std::move(rows), std::move(options),
                                                limits.context_tokens, std::move(marks));
  if (wanted.truncate == v1::TRUNCATION_UNSPECIFIED) return prompts;
  LengthLimits alone{.prompt = wanted.prompt_tokens};
  if (const uint64_t context = limits.context_tokens; context > 0) {
    const uint64_t room = context - std::min(wanted.completion_tokens, context / 2);
    alone.prompt = alone.prompt == 0 ? room : std::min(alone.prompt, room);
  }
  return CutPrompts(std::move(prompts), alone, {.prompt = wanted.prompt_tokens, .text = limits.context_tokens},
                    wanted.truncate);
}

PromptOptions TrainPrompts(const v1::JobConfig& job) {
  const v1::GrpoConfig* rl = config::PolicyGradientOf(job);
  return {.answers = config::AnswersOf(job),
          .all_turns = job.has_sft() && job.sft().turns() == v1::LEARNED_TURNS_ALL,
          .imitates = job.has_sft(),
          .separator = job.reward_model().separator(),
          .truncate = job.data().truncate(),
          .prompt_tokens = job.data().max_prompt_tokens(),
          .completion_tokens = rl != nullptr ? rl->max_completion_tokens() : job.generate().max_completion_tokens()};
}

PromptOptions HeldOutPrompts(const v1::JobConfig& job) {
  PromptOptions options = TrainPrompts(job);
  for (const v1::EvalSampling& setting : EvalSettings(job)) {
    options.completion_tokens = std::max<uint64_t>(options.completion_tokens, setting.max_completion_tokens());
  }
  const bool loss = config::LearnsAnswers(job) && (job.rewards().empty() || job.eval().patience() > 0);
  if (!loss && !config::MeasuresHeldOut(job)) options.answers = std::nullopt;
  return options;
}

absl::Status CheckPrompts(const v1::JobConfig& job) {
  const v1::DataConfig& data = job.data();
  if (job.has_pretrain()) {
    REIN_ASSIGN_OR_RETURN(auto corpus, OpenCorpus(job, /*held_out=*/false));
    REIN_RETURN_IF_ERROR(corpus->ReadTexts(0).status());
    return config::HoldsOut(job) ? OpenCorpus(job, /*held_out=*/true).status() : absl::OkStatus();
  }
  std::vector<const v1::DatasetConfig*> held_out;
  if (data.has_eval()) held_out.push_back(&data.eval());
  for (const v1::DatasetConfig& dataset : job.eval().datasets()) held_out.push_back(&dataset);
  for (const v1::DatasetConfig* dataset : held_out) {
    REIN_ASSIGN_OR_RETURN(auto prompts, OpenPrompts(*dataset, job.model(), HeldOutPrompts(job)));
    REIN_RETURN_IF_ERROR(config::MeasuresHeldOut(job) ? prompts->ReadTexts(0).status() : prompts->Read(0).status());
    REIN_RETURN_IF_ERROR(CheckEpisodes(*prompts, job));
  }
  const v1::DatasetConfig* dataset = config::DataOf(job);
  if (dataset == nullptr) return absl::OkStatus();
  REIN_ASSIGN_OR_RETURN(auto train, OpenPrompts(*dataset, job.model(), TrainPrompts(job)));
  const bool texts = config::AnswersOf(job).has_value() || job.has_score();
  REIN_RETURN_IF_ERROR(texts ? train->ReadTexts(0).status() : train->Read(0).status());
  if (!texts) REIN_RETURN_IF_ERROR(CheckEpisodes(*train, job));
  return CheckLengths(*train, job, 0, kCheckedLines, [] { return true; }).status();
}

absl::StatusOr<std::string> CheckOtherPrompts(const v1::JobConfig& job, PromptSource& train,
                                              const std::function<bool()>& go_on) {
  if (job.has_pretrain()) return std::string();  // every sequence has the same length
  const bool cuts = job.data().has_truncate();
  REIN_ASSIGN_OR_RETURN(uint64_t cut, CheckLengths(train, job, cuts ? 0 : kCheckedLines, train.size(), go_on));
  if (cut == 0) return std::string();
  return absl::StrCat(cut, " of ", train.size(), " lines are too long and are cut (data.truncate: ",
                      job.data().truncate() == v1::TRUNCATION_LEFT ? "left" : "right", ")");
}

}  // namespace rein::services
