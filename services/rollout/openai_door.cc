#include "services/rollout/openai_door.h"

#include <condition_variable>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/status/status_macros.h"
#include "services/rollout/openai_error.h"

namespace rein::services {
namespace {

using nlohmann::ordered_json;

// No epoch of a job's data: draws and groups of this door meet none of training.
constexpr uint64_t kDoorEpoch = std::numeric_limits<uint64_t>::max();
constexpr std::chrono::milliseconds kLook{200};

std::string Dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

uint64_t RandomSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

// One request: what the engine tells of it, and how far the answer is.
class OpenAiDoor::Run {
 public:
  struct Event {
    size_t choice = 0;
    uint32_t token = 0;
    float logprob = 0;
    std::optional<rollout::FinishedSibling> end;  // of the choice
  };

  Run(std::shared_ptr<RolloutSession> session, OpenAiRequest request, std::string id)
      : session_(std::move(session)), request_(std::move(request)), id_(std::move(id)), created_(absl::ToUnixSeconds(absl::Now())) {
    for (size_t i = 0; i < request_.prompts.size() * request_.n; ++i) {
      choices_.emplace_back(ChoiceText(session_->text(), request_.sampling.stop_strings));
      if (request_.tools.has_value()) {
        choices_.back().reader.emplace(request_.tools->format, [this](const rollout::ToolCall& call) { return request_.tools->Accepts(call); });
      }
    }
  }

  // The callbacks hold the run, so that a client that goes away frees nothing that the engine uses.
  static absl::Status Start(const std::shared_ptr<Run>& run) {
    for (size_t p = 0; p < run->request_.prompts.size(); ++p) {
      rollout::GenerateSpec spec{.group = {kDoorEpoch, p, 0}, .prompt = run->request_.prompts[p], .sampling = run->request_.sampling};
      for (uint32_t s = 0; s < run->request_.n; ++s) spec.siblings.push_back(s);
      const size_t first = p * run->request_.n;
      auto id = run->session_->engine().Submit(
          std::move(spec),
          {.on_token = [run, first](uint32_t s, uint32_t token, float logprob) { run->Push({.choice = first + s, .token = token, .logprob = logprob}); },
           .on_sibling = [run, first](rollout::FinishedSibling done) {
             const size_t choice = first + done.sibling;
             run->Push({.choice = choice, .end = std::move(done)});
           },
           .on_end = [run](absl::Status status) { run->End(status); }});
      if (!id.ok()) {
        run->Abort();
        return id.status();
      }
      run->ids_.push_back(*id);
    }
    return absl::OkStatus();
  }

  const OpenAiRequest& request() const { return request_; }

  // What came since the last call; waits for it. False: all prompts have ended and all was taken.
  absl::StatusOr<bool> Take(std::deque<Event>& events, const std::atomic<bool>& stopping) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (events_.empty() && ended_ < request_.prompts.size() && status_.ok() && !stopping) changed_.wait_for(lock, kLook);
    REIN_RETURN_IF_ERROR(status_);
    if (stopping && events_.empty()) return absl::UnavailableError("the server stops");
    events.swap(events_);
    return !events.empty();
  }

  void Abort() {
    for (uint64_t id : ids_) session_->engine().AbortRequest(id);
  }

  // What a token adds to its choice: text, and calls of tools as OpenAI has them.
  struct Piece {
    std::string content;
    ordered_json calls = ordered_json::array();
    bool empty() const { return content.empty() && calls.empty(); }
  };

  absl::StatusOr<Piece> Add(const Event& event) {
    Choice& choice = choices_[event.choice];
    Piece piece;
    if (event.end.has_value()) {
      REIN_ASSIGN_OR_RETURN(piece.content, choice.text.Finish());
      choice.done = *event.end;
      completion_tokens_ += event.end->tokens.size();
    } else {
      REIN_ASSIGN_OR_RETURN(piece.content, choice.text.Append(event.token));
    }
    if (choice.reader.has_value()) ReadCalls(event.end.has_value(), choice, piece);
    choice.said += piece.content;
    return piece;
  }

  ordered_json Head(const char* chat_object, const char* text_object) const {
    return {{"id", id_}, {"object", request_.chat ? chat_object : text_object}, {"created", created_}, {"model", session_->job()}};
  }

  ordered_json Usage() const {
    size_t prompt_tokens = 0;
    for (const auto& prompt : request_.prompts) prompt_tokens += prompt.size();
    return {{"prompt_tokens", prompt_tokens}, {"completion_tokens", completion_tokens_}, {"total_tokens", prompt_tokens + completion_tokens_}};
  }

  // One piece of a stream.
  ordered_json Chunk(const Event& event, const Piece& piece, bool first) const {
    ordered_json choice = {{"index", event.choice}};
    if (request_.chat) {
      choice["delta"] = ordered_json::object();
      if (first) choice["delta"]["role"] = "assistant";
      if (first || !piece.content.empty()) choice["delta"]["content"] = piece.content;
      if (!piece.calls.empty()) choice["delta"]["tool_calls"] = piece.calls;
    } else {
      choice["text"] = piece.content;
    }
    choice["logprobs"] = nullptr;
    if (request_.logprobs && !event.end.has_value()) choice["logprobs"] = Logprobs({event.token}, {event.logprob});
    choice["finish_reason"] = nullptr;
    if (event.end.has_value()) AddEnd(choices_[event.choice], choice);
    ordered_json chunk = Head("chat.completion.chunk", "text_completion");
    chunk["choices"] = ordered_json::array({choice});
    return chunk;
  }

  ordered_json Whole() const {
    ordered_json answer = Head("chat.completion", "text_completion");
    answer["choices"] = ordered_json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      const Choice& from = choices_[i];
      ordered_json choice = {{"index", i}};
      if (request_.chat) {
        choice["message"] = {{"role", "assistant"}, {"content", from.said}, {"refusal", nullptr}};
        if (!from.calls.empty()) {
          choice["message"]["tool_calls"] = from.calls;
          for (ordered_json& call : choice["message"]["tool_calls"]) call.erase("index");  // of streams alone
          if (from.said.empty()) choice["message"]["content"] = nullptr;
        }
      } else {
        choice["text"] = from.said;
      }
      choice["logprobs"] = nullptr;
      if (request_.logprobs) choice["logprobs"] = Logprobs(from.done.tokens, from.done.logprobs);
      AddEnd(from, choice);
      if (request_.return_token_ids) choice["prompt_token_ids"] = request_.prompts[i / request_.n];
      answer["choices"].push_back(choice);
    }
    answer["usage"] = Usage();
    return answer;
  }

 private:
  struct Choice {
    explicit Choice(ChoiceText text) : text(std::move(text)) {}
    ChoiceText text;
    std::optional<rollout::ToolCallReader> reader;  // with tools
    std::string said;
    ordered_json calls = ordered_json::array();
    rollout::FinishedSibling done;
  };

  // Parts the calls from what `piece` says.
  void ReadCalls(bool last, Choice& choice, Piece& piece) {
    rollout::ToolCallReader::Part part = choice.reader->Append(piece.content);
    if (last) {
      rollout::ToolCallReader::Part rest = choice.reader->Finish();
      part.content += rest.content;
      for (rollout::ToolCall& call : rest.calls) part.calls.push_back(std::move(call));
    }
    const bool one = !request_.tools->parallel;
    piece.content = one && !choice.calls.empty() ? "" : std::move(part.content);  // what follows the one call is nobody's
    for (const rollout::ToolCall& call : part.calls) {
      if (one && !choice.calls.empty()) break;
      piece.calls.push_back({{"index", choice.calls.size()},
                             {"id", absl::StrCat("call_", absl::Hex(RandomSeed(), absl::kZeroPad16))},
                             {"type", "function"},
                             {"function", {{"name", call.name}, {"arguments", Dump(call.arguments)}}}});
      choice.calls.push_back(piece.calls.back());
    }
  }

  void Push(Event event) {
    std::lock_guard<std::mutex> lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_one();
  }

  void End(const absl::Status& status) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++ended_;
    if (status_.ok()) status_ = status;
    changed_.notify_one();
  }

  std::string TextOf(uint32_t token) const { return session_->text().Decode({token}).value_or(""); }

  ordered_json Logprobs(const std::vector<uint32_t>& tokens, const std::vector<float>& logprobs) const {
    ordered_json content = ordered_json::array(), texts = ordered_json::array(), values = ordered_json::array();
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::string text = TextOf(tokens[i]);
      content.push_back({{"token", text}, {"logprob", logprobs[i]}, {"bytes", std::vector<uint8_t>(text.begin(), text.end())},
                         {"top_logprobs", ordered_json::array()}});
      texts.push_back(text);
      values.push_back(logprobs[i]);
    }
    if (request_.chat) return {{"content", content}, {"refusal", nullptr}};
    return {{"tokens", texts}, {"token_logprobs", values}, {"top_logprobs", nullptr}, {"text_offset", nullptr}};
  }

  void AddEnd(const Choice& from, ordered_json& choice) const {
    const rollout::FinishedSibling& done = from.done;
    const bool stopped = from.text.stopped() || done.reason != rollout::FinishReason::kLength;  // with ignore_eos the engine looks for no stop string
    choice["finish_reason"] = !stopped ? "length" : from.calls.empty() ? "stop" : "tool_calls";
    if (!done.versions.empty()) {
      const rollout::PolicyVersion& version = done.versions.back().version;
      choice["policy_version"] = {{"lineage", version.lineage}, {"number", version.number}};
    }
    if (request_.return_token_ids) choice["token_ids"] = done.tokens;
  }

  const std::shared_ptr<RolloutSession> session_;
  const OpenAiRequest request_;
  const std::string id_;
  const int64_t created_;
  std::vector<uint64_t> ids_;
  std::vector<Choice> choices_;
  size_t completion_tokens_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Event> events_;
  size_t ended_ = 0;  // prompts
  absl::Status status_;
};

absl::StatusOr<std::shared_ptr<OpenAiDoor::Run>> OpenAiDoor::Begin(bool chat, const std::string& body) {
  std::shared_ptr<RolloutSession> session = session_();
  if (session == nullptr) return absl::UnavailableError("no model is loaded: it comes with the first job that runs");
  if (!session->text().has_tokenizer()) {
    return absl::InvalidArgumentError(absl::StrCat("model: that of ", session->job(), " has no tokenizer"));
  }
  REIN_ASSIGN_OR_RETURN(OpenAiRequest request, ParseOpenAiRequest(body, chat, session->text(), RandomSeed()));
  if (!request.model.empty() && request.model != "rein" && request.model != session->job()) {
    return absl::NotFoundError(absl::StrCat("model ", request.model, " is not loaded; ", session->job(), " is, and rein names it too"));
  }
  const std::string id = absl::StrCat(chat ? "chatcmpl-" : "cmpl-", absl::Hex(RandomSeed(), absl::kZeroPad16), next_++);
  auto run = std::make_shared<Run>(std::move(session), std::move(request), id);
  REIN_RETURN_IF_ERROR(Run::Start(run));
  return run;
}

void OpenAiDoor::Complete(bool chat, const http::Request& request, http::Response& response) {
  absl::StatusOr<std::shared_ptr<Run>> begun = Begin(chat, request.body);
  auto fail = [&response](const absl::Status& status) {
    response.SetError(status);
    response.body = OpenAiError(status);
  };
  if (!begun.ok()) return fail(begun.status());
  std::shared_ptr<Run> run = *begun;
  if (!run->request().stream) {
    std::deque<Run::Event> events;
    for (absl::StatusOr<bool> more = true; *more; events.clear()) {
      more = run->Take(events, stopping_);
      if (!more.ok()) return fail(more.status());
      for (const Run::Event& event : events) {
        if (absl::Status added = run->Add(event).status(); !added.ok()) return fail(added);
      }
    }
    response.type = http::kJson;
    response.body = Dump(run->Whole());
    return;
  }
  response.type = http::kEvents;
  response.stream = [this, run](const http::Response::Send& send) {
    std::map<size_t, bool> begun_choices;
    std::deque<Run::Event> events;
    absl::Status status;
    for (absl::StatusOr<bool> more = true; status.ok() && *more; events.clear()) {
      more = run->Take(events, stopping_);
      status = more.status();
      for (const Run::Event& event : events) {
        absl::StatusOr<Run::Piece> piece = run->Add(event);
        status = piece.status();
        if (!status.ok()) break;
        const bool first = !begun_choices[event.choice];
        const bool says = first || !piece->empty() || event.end.has_value() || run->request().logprobs;
        begun_choices[event.choice] = true;
        if (says && !send(absl::StrCat("data: ", Dump(run->Chunk(event, *piece, first)), "\n\n"))) return run->Abort();
      }
    }
    if (!status.ok()) send(absl::StrCat("data: ", OpenAiError(status), "\n\n"));
    if (status.ok() && run->request().include_usage) {
      ordered_json usage = run->Head("chat.completion.chunk", "text_completion");
      usage["choices"] = ordered_json::array();
      usage["usage"] = run->Usage();
      send(absl::StrCat("data: ", Dump(usage), "\n\n"));
    }
    send("data: [DONE]\n\n");
  };
}

void OpenAiDoor::ListModels(const std::string& name, http::Response& response) {
  std::shared_ptr<RolloutSession> session = session_();
  ordered_json models = ordered_json::array();
  if (session != nullptr) {
    ordered_json model = {{"id", session->job()}, {"object", "model"}, {"created", 0}, {"owned_by", "rein"}};
    const v1::ActorStatusReply status = session->Status();
    if (status.has_version()) model["policy_version"] = {{"lineage", status.version().lineage()}, {"number", status.version().number()}};
    models.push_back(model);
  }
  response.type = http::kJson;
  if (name.empty()) {
    response.body = Dump({{"object", "list"}, {"data", models}});
  } else if (session != nullptr && (name == session->job() || name == "rein")) {
    response.body = Dump(models[0]);
  } else {
    absl::Status missing = absl::NotFoundError(absl::StrCat("model ", name, " is not loaded"));
    response.SetError(missing);
    response.body = OpenAiError(missing);
  }
}

std::vector<http::Route> OpenAiDoor::Routes() {
  using access::UserRole;
  return {{"POST", "/v1/chat/completions", UserRole::kSubmitter,
           [this](const http::Request& request, http::Response& response) { Complete(true, request, response); }},
          {"POST", "/v1/completions", UserRole::kSubmitter,
           [this](const http::Request& request, http::Response& response) { Complete(false, request, response); }},
          {"GET", "/v1/models", UserRole::kViewer,
           [this](const http::Request&, http::Response& response) { ListModels("", response); }},
          {"GET", "/v1/models/(.+)", UserRole::kViewer,
           [this](const http::Request& request, http::Response& response) { ListModels(request.captures[0], response); }},
          {"GET", "/health", UserRole::kNone, [this](const http::Request&, http::Response& response) {
             response.type = http::kText;
             response.status = session_() == nullptr ? 503 : 200;
             response.body = session_() == nullptr ? "no model\n" : "ok\n";
           }}};
}

}  // namespace rein::services
