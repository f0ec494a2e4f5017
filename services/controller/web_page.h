// WebPage is what a browser sees of the controller on its admin port: one page (the files of page/, which
// stand in the binary), and the JSON that it reads.
//
//   GET  /                          the page; /app.js, /tokens.js, /chat.js, /style.css
//   GET  /api/server                version, who the caller is
//   GET  /api/jobs                  as ListJobs, the newest first: contains=TEXT (in the name) limit=N; matching: how many there are
//   GET  /api/actors                as ListActors
//   GET  /api/jobs/NAME             as GetJob
//   GET  /api/jobs/NAME/updates     as ListUpdates: after=N limit=N
//   GET  /api/jobs/NAME/rollouts    as ListRollouts: update sort limit tokens prompt sibling contains min max; with tokens
//                                   also token_texts: what each token of each completion reads as
//   GET  /api/jobs/NAME/ledger      as GetLedger
//   GET  /api/jobs/NAME/events      server-sent events, as Watch: after=N; new=1: only what comes
//   GET  /api/targets               where metrics are read, as Prometheus's http_sd wants it
//   POST /v1/chat/completions       as at OpenAI's: the job that `model` names answers, by a generator that holds its policy
//   POST /login                     a token; the answer keeps it in a cookie that scripts cannot read
//
// The same rules hold as for calls by gRPC: a user sees the jobs of their tenant.

#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "common/http/http_server.h"
#include "services/controller/controller_service.h"
#include "services/controller/token_texts.h"

namespace rein::services {

class WebPage {
 public:
  // Streams are open as long as a browser looks at a job.
  static constexpr int kThreads = 24;
  // Conversations at a time, and the longest answer.
  static constexpr int kChats = 8;
  static constexpr absl::Duration kChatPatience = absl::Minutes(10);

  // `controller` and `service` must outlive the page.
  WebPage(ControllerThread& controller, ControllerServiceImpl& service, v1::BuildVersion build)
      : controller_(controller), service_(service), build_(std::move(build)) {}

  std::vector<http::Route> Routes();
  // Streams end within half a second.
  void Stop() { stopping_ = true; }
  // Of this port, for /api/targets.
  void SetAdminAddress(const std::string& address) { admin_address_ = address; }

 private:
  void ListJobs(const http::Request& request, http::Response& response);
  void ListActors(const http::Request& request, http::Response& response);
  void ListTargets(http::Response& response);
  // GET /api/jobs/NAME/VIEW.
  void ShowJob(const http::Request& request, http::Response& response);
  absl::StatusOr<std::string> JobView(const std::string& name, const std::string& view,
                                      const http::Request& request);
  void Chat(const http::Request& request, http::Response& response);
  // Passes it on to a generator. An error is one of this side; what the generator refuses is an answer.
  absl::Status Relay(const http::Request& request, http::Response& response);
  // ListRolloutsReply as JSON.
  absl::StatusOr<std::string> Rollouts(const std::string& job, const http::Request& request);
  void StreamEvents(const std::string& name, uint64_t after, const http::Response::Send& send);

  ControllerThread& controller_;
  ControllerServiceImpl& service_;
  const v1::BuildVersion build_;
  std::string admin_address_;
  TokenTexts token_texts_;
  std::atomic<int> chats_ = 0;
  std::atomic<size_t> next_generator_ = 0;
  std::atomic<bool> stopping_ = false;
};

}  // namespace rein::services
