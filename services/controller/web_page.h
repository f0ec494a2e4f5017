// WebPage is what a browser sees of the controller on its admin port: one page (the files of page/, which
// stand in the binary), and the JSON that it reads.
//
//   GET  /                          the page; /app.js, /style.css
//   GET  /api/server                version, who the caller is
//   GET  /api/jobs  /api/actors     as ListJobs, ListActors
//   GET  /api/jobs/NAME             as GetJob
//   GET  /api/jobs/NAME/updates     as ListUpdates: after=N limit=N
//   GET  /api/jobs/NAME/rollouts    as ListRollouts: update sort limit tokens prompt sibling contains min max
//   GET  /api/jobs/NAME/ledger      as GetLedger
//   GET  /api/jobs/NAME/events      server-sent events, as Watch: after=N; new=1: only what comes
//   GET  /api/targets               where metrics are read, as Prometheus's http_sd wants it
//   POST /login                     a token; the answer keeps it in a cookie that scripts cannot read
//
// The same rules hold as for calls by gRPC: a user sees the jobs of their tenant.

#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "common/http/http_server.h"
#include "services/controller/controller_service.h"

namespace rein::services {

class WebPage {
 public:
  // Streams are open as long as a browser looks at a job.
  static constexpr int kThreads = 24;

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
  void StreamEvents(const std::string& name, uint64_t after, const http::Response::Send& send);

  ControllerThread& controller_;
  ControllerServiceImpl& service_;
  const v1::BuildVersion build_;
  std::string admin_address_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace rein::services
