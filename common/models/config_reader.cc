#include "common/models/config_reader.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace rein::models {
namespace {

using nlohmann::json;

constexpr int64_t kMaxCount = int64_t{1} << 24;

// Keys of every model that say nothing about the maths, or that only training by `transformers` and its
// generation loop read. Dropout is never applied here.
bool WithoutEffect(const std::string& key) {
  static const auto& keys = *new std::set<std::string>{
      "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_flash_attn_2_enabled",
      "_from_model_config", "_name_or_path", "attn_implementation", "is_llama_config", "max_sequence_length",
      "transformers.js_config", "use_flash_attention_2",
      "architectures", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
      "chunk_size_feed_forward", "classifier_activation", "decoder_start_token_id", "diversity_penalty",
      "do_sample", "dtype", "early_stopping", "embd_pdrop", "encoder_no_repeat_ngram_size", "eos_token_id",
      "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
      "gradient_checkpointing", "id2label", "init_std", "initializer_factor", "initializer_range", "is_decoder",
      "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id", "length_penalty", "max_length",
      "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
      "num_return_sequences", "output_attentions", "output_hidden_states",
      "output_scores", "pad_token_id", "pretraining_tp", "problem_type", "quantization_config",
      "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
      "router_aux_loss_coef", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
      "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
      "transformers_version", "typical_p", "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
      "vocab_size", "is_causal"};
  return keys.count(key) > 0 || absl::StrContains(key, "dropout") || absl::EndsWith(key, "_pdrop");
}

}  // namespace

const json* ConfigReader::Find(const Names& names) {
  const json* found = nullptr;
  for (const char* name : names) {
    auto it = config_.find(name);
    if (it == config_.end()) continue;
    read_.insert(name);
    if (found == nullptr && !it->is_null()) found = &*it;
  }
  return found;
}

std::string ConfigReader::Place(absl::string_view name) const {
  return within_.empty() ? std::string(name) : absl::StrCat(within_, ".", name);
}

void ConfigReader::Error(absl::string_view name, absl::string_view what) {
  problems_.push_back(absl::StrCat(Place(name), " ", what));
}

int64_t ConfigReader::Count(const Names& names, int64_t fallback) {
  const json* value = Find(names);
  if (value == nullptr) {
    if (fallback <= 0) Error(names[0], "is missing");
    return fallback <= 0 ? 1 : fallback;
  }
  const int64_t count = value->is_number_integer() ? value->get<int64_t>() : 0;
  if (!value->is_number_integer()) Error(names[0], absl::StrCat("is ", value->dump(), ", want a count"));
  if (value->is_number_integer() && (count < 1 || count > kMaxCount)) {
    Error(names[0], absl::StrCat("is ", count, ", want 1 to ", kMaxCount));
  }
  return count < 1 || count > kMaxCount ? 1 : count;
}

double ConfigReader::Positive(const Names& names, double fallback) {
  const json* value = Find(names);
  if (value == nullptr) return fallback;
  if (value->is_number() && value->get<double>() > 0) return value->get<double>();
  Error(names[0], absl::StrCat("is ", value->dump(), ", want a number above 0"));
  return 1;
}

double ConfigReader::Number(const char* name, double fallback) {
  const json* value = Find({name});
  if (value == nullptr) return fallback;
  if (value->is_number()) return value->get<double>();
  Error(name, absl::StrCat("is ", value->dump(), ", want a number"));
  return fallback;
}

bool ConfigReader::Flag(const char* name, bool fallback) {
  const json* value = Find({name});
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Error(name, absl::StrCat("is ", value->dump(), ", want true or false"));
  return fallback;
}

std::string ConfigReader::Text(const char* name, const std::string& fallback) {
  const json* value = Find({name});
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  Error(name, absl::StrCat("is ", value->dump(), ", want a text"));
  return fallback;
}

std::vector<double> ConfigReader::Numbers(const char* name) {
  std::vector<double> numbers;
  const json* value = Find({name});
  if (value == nullptr) return numbers;
  bool fits = value->is_array();
  for (const json& item : fits ? *value : json::array()) {
    fits = fits && item.is_number();
    if (fits) numbers.push_back(item.get<double>());
  }
  if (!fits) Error(name, absl::StrCat("is ", value->dump(), ", want a list of numbers"));
  return numbers;
}

std::vector<std::string> ConfigReader::Texts(const char* name) {
  std::vector<std::string> texts;
  const json* value = Find({name});
  if (value == nullptr) return texts;
  bool fits = value->is_array();
  for (const json& item : fits ? *value : json::array()) {
    fits = fits && item.is_string();
    if (fits) texts.push_back(item.get<std::string>());
  }
  if (!fits) Error(name, absl::StrCat("is ", value->dump(), ", want a list of texts"));
  return texts;
}

void ConfigReader::Ignore(std::initializer_list<const char*> names) {
  read_.insert(names.begin(), names.end());
}

void ConfigReader::Only(const char* name, const json& wanted) {
  const json* value = Find({name});
  if (value == nullptr || *value == wanted) return;
  Error(name, absl::StrCat("is ", value->dump(), ", which is not supported; want ", wanted.dump()));
}

void ConfigReader::ReportUnread() {
  for (const auto& [key, value] : config_.items()) {
    if (read_.insert(key).second && !value.is_null() && !WithoutEffect(key)) {
      Error(key, absl::StrCat("is ", value.dump().substr(0, 60),
                              ", a key that this family does not know and that may change what is "
                              "computed; delete it if it does not"));
    }
  }
}

void ConfigReader::Merge(ConfigReader& inner) {
  inner.ReportUnread();
  problems_.insert(problems_.end(), inner.problems_.begin(), inner.problems_.end());
}

absl::Status ConfigReader::status() {
  ReportUnread();
  if (problems_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", absl::StrJoin(problems_, "; ")));
}

}  // namespace rein::models
