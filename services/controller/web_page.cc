#include "services/controller/web_page.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "services/controller/page_files.h"
#include "services/rollout/chat_client.h"
#include "services/rollout/openai_error.h"

namespace rein::services {
namespace {

using http::Request;
using http::Response;
using access::UserRole;

constexpr absl::Duration kEventPause = absl::Milliseconds(500);
constexpr int kPausesBetweenPings = 20;
constexpr size_t kMaxTokenBytes = 4096;
constexpr char kScript[] = "text/javascript; charset=utf-8";

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}";
}

// An object with one field more.
std::string WithField(std::string object, const std::string& name, const std::string& json) {
  object.pop_back();
  return absl::StrCat(object, object.size() > 1 ? "," : "", "\"", name, "\":", json, "}");
}

void Answer(const absl::StatusOr<std::string>& json, Response& response) {
  if (!json.ok()) return response.SetError(json.status());
  response.type = http::kJson;
  response.body = *json;
}

// The number of a parameter; 0 when it is absent. INVALID_ARGUMENT for one that is none.
template <typename Number>
absl::StatusOr<Number> NumberOf(const Request& request, const std::string& name) {
  Number number{};
  const std::string text = request.Query(name);
  if (text.empty() || absl::SimpleAtoi(text, &number)) return number;
  return absl::InvalidArgumentError(absl::StrCat(name, ": wants a number, got '", text, "'"));
}

absl::StatusOr<double> RewardOf(const Request& request, const std::string& name) {
  double reward = 0;
  const std::string text = request.Query(name);
  if (absl::SimpleAtod(text, &reward)) return reward;
  return absl::InvalidArgumentError(absl::StrCat(name, ": wants a number, got '", text, "'"));
}

absl::StatusOr<v1::ListRolloutsRequest> RolloutsOf(const std::string& job, const Request& request) {
  v1::ListRolloutsRequest wanted;
  wanted.set_name(job);
  wanted.set_sort(request.Query("sort"));
  wanted.set_contains(request.Query("contains"));
  wanted.set_tokens(!request.Query("tokens").empty());
  REIN_ASSIGN_OR_RETURN(uint64_t update, NumberOf<uint64_t>(request, "update"));
  REIN_ASSIGN_OR_RETURN(uint32_t limit, NumberOf<uint32_t>(request, "limit"));
  wanted.set_update(update);
  wanted.set_limit(limit);
  if (!request.Query("prompt").empty()) {
    REIN_ASSIGN_OR_RETURN(uint64_t prompt, NumberOf<uint64_t>(request, "prompt"));
    wanted.set_prompt(prompt);
  }
  if (!request.Query("sibling").empty()) {
    REIN_ASSIGN_OR_RETURN(uint32_t sibling, NumberOf<uint32_t>(request, "sibling"));
    wanted.set_sibling(sibling);
  }
  if (!request.Query("min").empty()) {
    REIN_ASSIGN_OR_RETURN(double least, RewardOf(request, "min"));
    wanted.set_min_reward(least);
  }
  if (!request.Query("max").empty()) {
    REIN_ASSIGN_OR_RETURN(double most, RewardOf(request, "max"));
    wanted.set_max_reward(most);
  }
  return wanted;
}

// Keeps a token that a person typed in; the page's own calls carry it then.
void LogIn(const Request& request, Response& response) {
  const std::string& token = request.body;
  if (token.empty() || token.size() > kMaxTokenBytes ||
      token.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") !=
          std::string::npos) {
    return response.SetError(absl::InvalidArgumentError("that is no token"));
  }
  response.type = http::kJson;
  response.body = "{}";
  response.headers.emplace_back(
      "Set-Cookie",
      absl::StrCat("rein_token=", token, "; Path=/; HttpOnly; Secure; SameSite=Strict"));
}

http::Route Static(const std::string& path, const char* type, std::string (*content)()) {
  return {"GET", path, UserRole::kNone, [type, content](const Request&, Response& response) {
            response.type = type;
            response.body = content();
          }};
}

}  // namespace

std::vector<http::Route> WebPage::Routes() {
  return {
      Static("/", http::kHtml, &PageHtml),
      Static("/app.js", kScript, &PageScript),
      Static("/tokens.js", kScript, &PageTokensScript),
      Static("/chat.js", kScript, &PageChatScript),
      Static("/style.css", "text/css; charset=utf-8", &PageStyle),
      {"POST", "/login", UserRole::kNone, &LogIn},
      {"POST", "/v1/chat/completions", UserRole::kSubmitter,
       [this](const Request& request, Response& response) { Chat(request, response); }},
      {"GET", "/api/server", UserRole::kViewer,
       [this](const Request& request, Response& response) {
         response.type = http::kJson;
         response.body = nlohmann::json{{"release", build_.release()},
                                        {"git_hash", build_.git_hash()},
                                        {"user", request.caller.user},
                                        {"secure", !request.caller.local}}
                             .dump();
       }},
      {"GET", "/api/jobs", UserRole::kViewer,
       [this](const Request& request, Response& response) { ListJobs(request, response); }},
      {"GET", "/api/actors", UserRole::kViewer,
       [this](const Request& request, Response& response) { ListActors(request, response); }},
      {"GET", "/api/targets", UserRole::kViewer,
       [this](const Request&, Response& response) { ListTargets(response); }},
      {"GET", "/api/jobs/([^/]+)(?:/(updates|rollouts|ledger|events))?", UserRole::kViewer,
       [this](const Request& request, Response& response) { ShowJob(request, response); }},
  };
}

void WebPage::ListJobs(const Request& request, Response& response) {
  absl::StatusOr<uint64_t> limit = NumberOf<uint64_t>(request, "limit");
  if (!limit.ok()) return response.SetError(limit.status());
  const std::string contains = request.Query("contains");
  uint64_t matching = 0;
  auto wanted = [&](const JobRecord& job) {
    if (!request.caller.sees_all() && job.owner != request.caller.tenant) return false;
    return absl::StrContains(job.name, contains) && (++matching <= *limit || *limit == 0);
  };
  v1::ListJobsReply reply;
  for (v1::Job& job : controller_.Call<std::vector<v1::Job>>([&](Controller& c) { return c.ListJobs(wanted); })) {
    *reply.add_jobs() = std::move(job);
  }
  Answer(WithField(ToJson(reply), "matching", absl::StrCat(matching)), response);
}

void WebPage::ListActors(const Request& request, Response& response) {
  v1::ListActorsReply reply;
  for (v1::Actor& actor : service_.ActorsFor(request.caller)) *reply.add_actors() = std::move(actor);
  Answer(ToJson(reply), response);
}

void WebPage::ListTargets(Response& response) {
  nlohmann::json targets = nlohmann::json::array();
  auto add = [&](const std::string& address, const std::string& role, const std::string& name) {
    if (address.empty()) return;
    targets.push_back(
        {{"targets", {address}}, {"labels", {{"role", role}, {"actor", name}}}});
  };
  add(admin_address_, "controller", "controller");
  for (const v1::Actor& actor :
       controller_.Call<std::vector<v1::Actor>>([](Controller& c) { return c.registry().Actors(); })) {
    if (actor.state() == kActorReady) add(actor.admin_address(), actor.role(), actor.name());
  }
  Answer(targets.dump(), response);
}

void WebPage::ShowJob(const Request& request, Response& response) {
  absl::StatusOr<std::string> name = service_.Visible(request.caller, request.captures[0]);
  if (!name.ok()) return response.SetError(name.status());
  const std::string& view = request.captures[1];
  if (view != "events") return Answer(JobView(*name, view, request), response);
  absl::StatusOr<uint64_t> after = NumberOf<uint64_t>(request, "after");
  if (!after.ok()) return response.SetError(after.status());
  if (!request.Query("new").empty()) {
    auto stored = controller_.Call<absl::StatusOr<Controller::NewEvents>>(
        [&](Controller& c) { return c.EventsAfter(*name, *after); });
    if (!stored.ok()) return response.SetError(stored.status());
    if (!stored->events.empty()) *after = stored->events.back().sequence();
  }
  response.type = http::kEvents;
  response.stream = [this, job = *name, after = *after](const Response::Send& send) {
    StreamEvents(job, after, send);
  };
}

absl::StatusOr<std::string> WebPage::JobView(const std::string& name, const std::string& view,
                                             const Request& request) {
  if (view == "updates") {
    v1::ListUpdatesRequest wanted;
    wanted.set_name(name);
    REIN_ASSIGN_OR_RETURN(uint64_t after, NumberOf<uint64_t>(request, "after"));
    REIN_ASSIGN_OR_RETURN(uint32_t limit, NumberOf<uint32_t>(request, "limit"));
    wanted.set_after(after);
    wanted.set_limit(limit);
    REIN_ASSIGN_OR_RETURN(auto reply, controller_.Call<absl::StatusOr<v1::ListUpdatesReply>>(
                                          [&](Controller& c) { return c.ListUpdates(wanted); }));
    return ToJson(reply);
  }
  if (view == "rollouts") return Rollouts(name, request);
  if (view == "ledger") {
    REIN_ASSIGN_OR_RETURN(auto reply, controller_.Call<absl::StatusOr<v1::LedgerSummary>>(
                                          [&](Controller& c) { return c.GetLedger(name); }));
    return ToJson(reply);
  }
  REIN_ASSIGN_OR_RETURN(auto job, controller_.Call<absl::StatusOr<v1::Job>>(
                                      [&](Controller& c) { return c.GetJob(name); }));
  return ToJson(job);
}

absl::StatusOr<std::string> WebPage::Rollouts(const std::string& name, const Request& request) {
  REIN_ASSIGN_OR_RETURN(v1::ListRolloutsRequest wanted, RolloutsOf(name, request));
  REIN_ASSIGN_OR_RETURN(auto reply, controller_.Call<absl::StatusOr<v1::ListRolloutsReply>>(
                                        [&](Controller& c) { return c.ListRollouts(wanted); }));
  std::string json = ToJson(reply);
  if (!wanted.tokens()) return json;
  REIN_ASSIGN_OR_RETURN(auto job, controller_.Call<absl::StatusOr<v1::Job>>([&](Controller& c) { return c.GetJob(name); }));
  nlohmann::json texts = nlohmann::json::array();
  for (const v1::StoredRollout& stored : reply.rollouts()) {
    const auto& ids = stored.rollout().completion().token_ids();
    auto read = token_texts_.Read(job.config().model(), {ids.begin(), ids.end()});
    if (!read.ok()) return json;  // a model that is gone: the page shows the words without their tokens
    texts.push_back(*std::move(read));
  }
  return WithField(json, "token_texts", texts.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void WebPage::Chat(const Request& request, Response& response) {
  absl::Status status = Relay(request, response);
  if (status.ok()) return;
  response.SetError(status);
  response.body = OpenAiError(status);
}

absl::Status WebPage::Relay(const Request& request, Response& response) {
  // Held until the answer is whole: conversations take threads of this port.
  auto place = std::shared_ptr<void>(nullptr, [this](void*) { --chats_; });
  if (++chats_ > kChats) return absl::ResourceExhaustedError(absl::StrCat("at most ", kChats, " conversations at a time: try again soon"));
  REIN_RETURN_IF_ERROR(json::ParseJson(request.body).status());
  auto body = nlohmann::ordered_json::parse(request.body);
  if (!body.is_object() || !body.contains("model") || !body["model"].is_string()) {
    return absl::InvalidArgumentError("model: wants the name of a job");
  }
  REIN_ASSIGN_OR_RETURN(const std::string job, service_.Visible(request.caller, body["model"].get<std::string>()));
  body["model"] = job;
  absl::Status last = absl::UnavailableError("no rollout service is ready: rein get actors");
  auto generators = controller_.Call<std::vector<v1::Actor>>([&](Controller& c) { return c.ActorsOf(job); });
  std::erase_if(generators, [](const v1::Actor& a) { return a.role() != "rollout" || a.state() != kActorReady; });
  const size_t first = next_generator_++;  // by turns
  for (size_t i = 0; i < generators.size(); ++i) {
    const v1::Actor& actor = generators[(first + i) % generators.size()];
    std::shared_ptr<ChatCall> call = ChatCall::Start(actor.address(), body.dump(), kChatPatience);
    std::optional<v1::ChatPiece> piece = call->Read();
    if (!piece.has_value()) {
      absl::Status ended = call->Finish();
      last = absl::UnavailableError(absl::StrCat(actor.name(), ": ", std::string(ended.message())));
      continue;
    }
    if (piece->status() == 404 || piece->status() == 503) {  // it holds another job's policy, which may be another tenant's
      last = absl::NotFoundError(absl::StrCat("the policy of ", job, " is loaded nowhere: it is while the job runs, and until another begins"));
      continue;
    }
    response.status = static_cast<int>(piece->status());
    response.type = piece->content_type();
    response.body = piece->text();
    if (response.type == http::kEvents) {
      response.stream = [this, call, place](const Response::Send& send) {
        while (std::optional<v1::ChatPiece> next = call->Read()) {
          if (stopping_ || !send(next->text())) return;  // the call is cancelled with its last owner
        }
        absl::Status ended = call->Finish();
        if (!ended.ok()) send(absl::StrCat("data: ", OpenAiError(ended), "\n\n"));
      };
    }
    return absl::OkStatus();
  }
  return last;
}

void WebPage::StreamEvents(const std::string& name, uint64_t after, const Response::Send& send) {
  int pauses = 0;
  while (!stopping_) {
    const uint64_t seen = controller_.events();
    auto found = controller_.Call<absl::StatusOr<Controller::NewEvents>>(
        [&](Controller& c) { return c.EventsAfter(name, after); });
    if (!found.ok()) return;
    for (const v1::JobEvent& event : found->events) {
      if (!send(absl::StrCat("id: ", event.sequence(), "\ndata: ", ToJson(event), "\n\n"))) return;
      after = event.sequence();
    }
    if (HasEnded(found->state)) {
      send("event: end\ndata: {}\n\n");  // nothing more will come: a browser need not ask again
      return;
    }
    controller_.WaitForEvents(seen, kEventPause);
    if (++pauses % kPausesBetweenPings == 0 && !send(": still here\n\n")) return;
  }
}

}  // namespace rein::services
