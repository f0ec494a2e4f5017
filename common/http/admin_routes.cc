#include "common/http/admin_routes.h"

namespace rein::http {

std::vector<Route> AdminRoutes(const telemetry::Metrics& metrics, const std::atomic<bool>& ready,
                               std::function<void()> measure) {
  return {{"GET", "/metrics", access::UserRole::kViewer,
           [&metrics, measure = std::move(measure)](const Request&, Response& response) {
             if (measure) measure();
             response.type = "text/plain; version=0.0.4; charset=utf-8";
             response.body = metrics.Text();
           }},
          {"GET", "/healthz", access::UserRole::kNone,
           [](const Request&, Response& response) {
             response.type = kText;
             response.body = "ok\n";
           }},
          {"GET", "/readyz", access::UserRole::kNone,
           [&ready](const Request&, Response& response) {
             response.type = kText;
             response.status = ready ? 200 : 503;
             response.body = ready ? "ready\n" : "not ready\n";
           }}};
}

}  // namespace rein::http
