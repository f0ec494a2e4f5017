#include "services/rollout/openai_request.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "services/rollout/openai_fields.h"

namespace rein::services {
namespace {

using json = nlohmann::ordered_json;

// Present, and not what stands for "not asked for".
bool IsAsked(const json& body, const char* key) {
  auto found = body.find(key);
  if (found == body.end() || found->is_null()) return false;
  if (found->is_boolean()) return found->get<bool>();
  if (found->is_number()) return found->get<double>() != 0;
  return !found->empty();
}

absl::Status ReadCount(const json& body, const char* key, uint32_t most, std::optional<uint32_t>& value) {
  auto found = body.find(key);
  if (found == body.end() || found->is_null()) return absl::OkStatus();
  if (!found->is_number_unsigned() || found->get<uint64_t>() > most) {
    return WrongField(key, absl::StrCat("a whole number up to ", most), *found);
  }
  value = static_cast<uint32_t>(found->get<uint64_t>());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ReadStops(const json& body) {
  std::vector<std::string> stops;
  auto found = body.find("stop");
  if (found == body.end() || found->is_null()) return stops;
  for (const json& stop : found->is_array() ? *found : json::array({*found})) {
    if (!stop.is_string() || stop.get<std::string>().empty()) return WrongField("stop", "a text, or a list of texts", *found);
    stops.push_back(stop);
  }
  return stops;
}

absl::Status ReadSampling(const json& body, bool chat, uint64_t random_seed, v1::SamplingParams& params) {
  const double most = std::numeric_limits<double>::max();
  std::optional<double> temperature, top_p, min_p, repetition, presence, frequency;
  for (auto [key, value] : {std::pair{"temperature", &temperature}, {"top_p", &top_p}, {"min_p", &min_p},
                            {"repetition_penalty", &repetition}, {"presence_penalty", &presence},
                            {"frequency_penalty", &frequency}}) {
    double number = most;
    REIN_RETURN_IF_ERROR(ReadField(body, key, "a number", &json::is_number, number));
    if (number != most) *value = number;
  }
  params.set_temperature(temperature.value_or(1));
  params.set_top_p(top_p.value_or(1));
  params.set_min_p(min_p.value_or(0));
  params.set_repetition_penalty(repetition.value_or(1));
  params.set_presence_penalty(presence.value_or(0));
  params.set_frequency_penalty(frequency.value_or(0));
  const uint32_t any = std::numeric_limits<uint32_t>::max();
  std::optional<uint32_t> top_k, min_tokens, max_tokens;
  REIN_RETURN_IF_ERROR(ReadCount(body, "top_k", any, top_k));
  REIN_RETURN_IF_ERROR(ReadCount(body, "min_tokens", any, min_tokens));
  REIN_RETURN_IF_ERROR(ReadCount(body, "max_tokens", any, max_tokens));
  REIN_RETURN_IF_ERROR(ReadCount(body, "max_completion_tokens", any, max_tokens));
  params.set_top_k(top_k.value_or(0));
  params.set_min_tokens(min_tokens.value_or(0));
  params.set_max_tokens(max_tokens.value_or(chat ? 512 : 16));
  bool ignore_eos = false;
  REIN_RETURN_IF_ERROR(ReadField(body, "ignore_eos", "true or false", &json::is_boolean, ignore_eos));
  params.set_ignore_eos(ignore_eos);
  params.set_seed(random_seed);
  if (auto seed = body.find("seed"); seed != body.end() && !seed->is_null()) {
    if (!seed->is_number_integer()) return WrongField("seed", "a whole number", *seed);
    params.set_seed(static_cast<uint64_t>(seed->get<int64_t>()));
  }
  REIN_ASSIGN_OR_RETURN(std::vector<std::string> stops, ReadStops(body));
  for (const std::string& stop : stops) params.add_stop_strings(stop);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> ChatPrompt(const json& body, const std::optional<OpenAiTools>& tools,
                                                 const text::ModelText& text) {
  REIN_ASSIGN_OR_RETURN(std::vector<text::ChatMessage> chat, ReadMessages(body));
  absl::StatusOr<std::string> rendered =
      text.RenderChat(chat, /*add_generation_prompt=*/true, tools.has_value() ? tools->schemas : std::vector<std::string>());
  if (absl::IsInvalidArgument(rendered.status())) {
    return absl::InvalidArgumentError(absl::StrCat("messages: ", std::string(rendered.status().message())));
  }
  REIN_RETURN_IF_ERROR(rendered.status());
  REIN_RETURN_IF_ERROR(CheckCallsAreShown(chat, *rendered));
  return text.Encode(*rendered, /*add_special_tokens=*/false);
}

absl::StatusOr<std::vector<uint32_t>> TokenPrompt(const json& ids) {
  std::vector<uint32_t> prompt;
  for (const json& id : ids) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
      return WrongField("prompt", "token ids", id);
    }
    prompt.push_back(id);
  }
  return prompt;
}

absl::StatusOr<std::vector<std::vector<uint32_t>>> TextPrompts(const json& body, const text::ModelText& text) {
  auto prompt = body.find("prompt");
  if (prompt == body.end()) return absl::InvalidArgumentError("prompt: wants a text, token ids, or a list of either");
  std::vector<std::vector<uint32_t>> prompts;
  const bool ids = prompt->is_array() && !prompt->empty() && prompt->front().is_number();
  for (const json& one : prompt->is_array() && !ids ? *prompt : json::array({*prompt})) {
    if (one.is_string()) {
      REIN_ASSIGN_OR_RETURN(prompts.emplace_back(), text.Encode(one.get<std::string>(), /*add_special_tokens=*/true));
    } else if (one.is_array()) {
      REIN_ASSIGN_OR_RETURN(prompts.emplace_back(), TokenPrompt(one));
    } else {
      return WrongField("prompt", "a text, token ids, or a list of either", one);
    }
  }
  if (prompts.empty()) return WrongField("prompt", "at least one", *prompt);
  return prompts;
}

absl::Status RefuseUnknown(const json& body, bool chat) {
  for (const char* key : {"logit_bias", "functions", "function_call", "response_format",
                          "top_logprobs", "echo", "suffix", "audio", "modalities"}) {
    if (!IsAsked(body, key)) continue;
    if (std::string(key) == "response_format" && Says(body[key], "type", "text")) continue;
    return absl::InvalidArgumentError(absl::StrCat(key, ": is not known to this server"));
  }
  if (IsAsked(body, "best_of") && body["best_of"] != body.value("n", json(1))) {
    return absl::InvalidArgumentError("best_of: is not known to this server; n gives all choices");
  }
  for (const char* key : {"tools", "tool_choice"}) {
    if (!chat && IsAsked(body, key)) return absl::InvalidArgumentError(absl::StrCat(key, ": belongs to /v1/chat/completions"));
  }
  if (!chat && IsAsked(body, "logprobs") && body["logprobs"].is_number() && body["logprobs"].get<double>() > 1) {
    return absl::InvalidArgumentError("logprobs: at most 1, that of the token that was drawn");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(const std::string& text_body, bool chat, const text::ModelText& text,
                                                 uint64_t random_seed) {
  if (absl::Status parsed = rein::json::ParseJson(text_body).status(); !parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("body: wants a JSON object: ", std::string(parsed.message())));
  }
  const json body = json::parse(text_body);  // in the order of the request, which templates show
  if (!body.is_object()) return absl::InvalidArgumentError("body: wants a JSON object");
  REIN_RETURN_IF_ERROR(RefuseUnknown(body, chat));
  OpenAiRequest request{.chat = chat};
  REIN_RETURN_IF_ERROR(ReadField(body, "model", "a text", &json::is_string, request.model));
  REIN_RETURN_IF_ERROR(ReadField(body, "stream", "true or false", &json::is_boolean, request.stream));
  REIN_RETURN_IF_ERROR(ReadField(body, "return_token_ids", "true or false", &json::is_boolean, request.return_token_ids));
  request.logprobs = body.contains("logprobs") && !body["logprobs"].is_null() &&
                     (body["logprobs"].is_number() || IsAsked(body, "logprobs"));
  if (auto options = body.find("stream_options"); options != body.end() && options->is_object()) {
    REIN_RETURN_IF_ERROR(ReadField(*options, "include_usage", "true or false", &json::is_boolean, request.include_usage));
  }
  std::optional<uint32_t> n;
  REIN_RETURN_IF_ERROR(ReadCount(body, "n", kMaxChoices, n));
  request.n = n.value_or(1);
  if (request.n == 0) return absl::InvalidArgumentError("n: wants at least 1");
  v1::SamplingParams params;
  REIN_RETURN_IF_ERROR(ReadSampling(body, chat, random_seed, params));
  REIN_ASSIGN_OR_RETURN(request.sampling, rollout::MakeSettings(params));
  if (chat) {
    REIN_ASSIGN_OR_RETURN(request.tools, ReadTools(body, text));
    REIN_ASSIGN_OR_RETURN(request.prompts.emplace_back(), ChatPrompt(body, request.tools, text));
  } else {
    REIN_ASSIGN_OR_RETURN(request.prompts, TextPrompts(body, text));
  }
  if (request.prompts.size() * request.n > kMaxChoices) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", request.prompts.size(), " prompts times n = ", request.n,
                                                   " is more than ", kMaxChoices, " choices"));
  }
  return request;
}

absl::StatusOr<std::string> ChoiceText::Append(uint32_t token) {
  REIN_ASSIGN_OR_RETURN(std::string piece, decoder_.Append(token));
  held_ += piece;
  return Release(false);
}

absl::StatusOr<std::string> ChoiceText::Finish() {
  REIN_ASSIGN_OR_RETURN(std::string rest, decoder_.Flush());
  held_ += rest;
  return Release(true);
}

std::string ChoiceText::Release(bool everything) {
  if (stopped_) return "";
  size_t end = held_.size();
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  if (end < held_.size()) {
    stopped_ = true;
    return held_.substr(0, end);
  }
  if (!everything) {
    // What may be the beginning of a stop string waits for what follows.
    size_t beginning = 0;
    for (const std::string& stop : stops_) {
      for (size_t length = std::min(stop.size() - 1, held_.size()); length > beginning; --length) {
        if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) beginning = length;
      }
    }
    end -= beginning;
  }
  std::string released = held_.substr(0, end);
  held_.erase(0, end);
  return released;
}

}  // namespace rein::services
