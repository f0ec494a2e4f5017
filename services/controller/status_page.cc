#include "services/controller/status_page.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace rein::services {
namespace {

constexpr char kHead[] = R"(<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="5"><title>Rein</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
th{font-weight:600;color:#666}td.n{font-variant-numeric:tabular-nums}pre{margin:0;white-space:pre-wrap}
</style></head><body><h1>Rein</h1>)";

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string Cell(const std::string& text) {
  return absl::StrCat("<td class=n>", Escaped(text), "</td>");
}

std::string Figure(const v1::Job& job, const std::string& name) {
  for (const v1::Metric& metric : job.metrics()) {
    if (metric.name() == name) return absl::StrFormat("%.4g", metric.value());
  }
  return "–";
}

}  // namespace

std::string StatusPage(const std::vector<v1::Job>& jobs, const std::vector<v1::Actor>& actors,
                       const v1::BuildVersion& build) {
  std::string page = kHead;
  absl::StrAppend(&page,
                  "<h2>Jobs</h2><table><tr><th>Name<th>Kind<th>State<th>Update<th>Reward"
                  "<th>Loss<th>Message</tr>");
  for (const v1::Job& job : jobs) {
    absl::StrAppend(&page, "<tr>", Cell(job.name()), Cell(job.kind()),
                    Cell(v1::JobState_Name(job.state()).substr(10)),
                    Cell(absl::StrCat(job.update(), "/", job.max_updates())),
                    Cell(Figure(job, "reward")), Cell(Figure(job, "loss")), "<td><pre>",
                    Escaped(job.message()), "</pre></td></tr>");
  }
  absl::StrAppend(&page,
                  "</table><h2>Actors</h2><table><tr><th>Role<th>Name<th>State<th>Epoch"
                  "<th>Policy<th>Device<th>Load</tr>");
  for (const v1::Actor& actor : actors) {
    absl::StrAppend(&page, "<tr>", Cell(actor.role()), Cell(actor.name()), Cell(actor.state()),
                    Cell(absl::StrCat(actor.epoch())), Cell(absl::StrCat(actor.version().number())),
                    Cell(actor.device()), Cell(actor.load()), "</tr>");
  }
  absl::StrAppend(&page, "</table><p>rein ", Escaped(build.release()), " ",
                  Escaped(build.git_hash()),
                  " · <a href=\"/metrics\">metrics</a></p></body></html>");
  return page;
}

}  // namespace rein::services
