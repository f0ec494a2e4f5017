#include "services/cli/doctor_command.h"

#include <filesystem>
#include <algorithm>
#include <fstream>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include <openssl/pem.h>
#include <re2/re2.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/config/name.h"
#include "common/version/build_version.h"
#include "services/cli/controller_client.h"
#include "services/cli/context.h"
#include "services/cli/exit_code.h"
#include "services/cli/report_text.h"
#include "services/cli/run_program.h"
#include "services/cli/text_table.h"
#include "services/cli/version_skew.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kMaxSkew = absl::Seconds(2);
constexpr absl::Duration kSlow = absl::Milliseconds(250);
constexpr absl::Duration kRenewBefore = absl::Hours(24 * 7);
constexpr uint64_t kFewFiles = 4096;
constexpr unsigned kLogLines = 5000;

// "0.1" of "0.1.0".
std::string Minor(const std::string& release) {
  std::vector<std::string> parts = absl::StrSplit(release, '.');
  return parts.size() < 2 ? release : absl::StrCat(parts[0], ".", parts[1]);
}

Finding Versions(const Observed& seen) {
  const std::string &ours = seen.own.release(), &theirs = seen.controller->build().release();
  if (theirs == ours) return {Finding::kGood, "version", absl::StrCat("rein and controller are ", theirs), ""};
  if (std::optional<VersionSkew> skew = SkewOf(ours, theirs)) return {Finding::kFault, "version", skew->both, skew->next};
  return {Finding::kGood, "version", absl::StrCat("rein ", ours, ", controller ", theirs, ": within one minor version, which works"), ""};
}

void ActorFindings(const Observed& seen, std::vector<Finding>& findings) {
  std::map<std::string, std::map<std::string, int>> groups;  // how many are ready of each role
  if (seen.actors.empty()) groups[config::kDefaultGroup];
  for (const v1::Actor& actor : seen.actors) {
    std::map<std::string, int>& ready = groups[actor.group()];
    if (actor.state() == "READY") ++ready[actor.role()];
    if (actor.state() != "READY") {
      findings.push_back({Finding::kFault, actor.name(), absl::StrCat(actor.state(), ", last heard ", Age(absl::Seconds(actor.silent_seconds())), " ago"),
                          absl::StrCat("rein logs ", actor.name(), "; it registers again once it lives")});
    }
    if (Minor(actor.build().release()) != Minor(seen.controller->build().release()) ||
        actor.build().git_hash() != seen.controller->build().git_hash()) {
      findings.push_back({Finding::kWarning, actor.name(), absl::StrCat("runs build ", actor.build().release(), " ", actor.build().git_hash()),
                          "restart it with the controller's build: log-probs are equal to the bit within one build only"});
    }
    if (actor.device().rfind("gpu", 0) == 0 && actor.build().cuda().empty()) {
      findings.push_back({Finding::kFault, actor.name(), "is to use a GPU, but its build has no CUDA", "start the CUDA flavour"});
    }
  }
  for (const auto& [group, ready] : groups) {
    const std::string of = groups.size() > 1 ? absl::StrCat(" in group ", group) : "";
    for (const char* role : {"trainer", "rollout", "reward"}) {
      if (ready.count(role) > 0) continue;
      findings.push_back({Finding::kWarning, role, absl::StrCat("none is ready", of),
                          absl::StrCat("jobs", of, " wait for one: rein up, or look at the pods named ", role)});
    }
    std::string counts;
    for (const auto& [role, count] : ready) absl::StrAppend(&counts, counts.empty() ? "" : ", ", count, " ", role);
    if (!counts.empty()) findings.push_back({Finding::kGood, "services", counts + of, ""});
  }
}

std::optional<absl::Time> ValidUntil(const std::string& path) {
  FILE* file = fopen(path.c_str(), "r");
  if (file == nullptr) return std::nullopt;
  X509* certificate = PEM_read_X509(file, nullptr, nullptr, nullptr);
  fclose(file);
  if (certificate == nullptr) return std::nullopt;
  tm time{};
  const int good = ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time);
  X509_free(certificate);
  if (good != 1) return std::nullopt;
  return absl::FromTM(time, absl::UTCTimeZone());
}

Observed Look(const absl::StatusOr<Connection>& connection) {
  Observed seen{.own = version::ThisBuild()};
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  seen.open_files_limit = limit.rlim_cur;
  if (auto run = RunProgram({"nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"}, "", true); run.ok()) {
    seen.gpu_driver = run->exit_code == 0;
    seen.gpus = run->output;
  }
  seen.connected = connection.status();
  if (!connection.ok()) return seen;
  seen.server = connection->server;
  if (!connection->tls.empty()) seen.certificate_until = ValidUntil(connection->tls + "/tls.crt");
  absl::StatusOr<std::string> token = UseConnection(*connection);
  seen.connected = token.status();
  if (!token.ok()) return seen;
  ControllerClient client(connection->server, *token, TrustedAuthority(*connection));
  client.GetServer(absl::Seconds(5)).IgnoreError();  // connects; the next is timed
  const absl::Time before = absl::Now();
  absl::StatusOr<v1::GetServerReply> reply = client.GetServer(absl::Seconds(5));
  seen.round_trip = absl::Now() - before;
  seen.connected = reply.status();
  if (!reply.ok()) return seen;
  if (reply->time() > 0) {
    seen.skew = absl::UnixEpoch() + absl::Seconds(reply->time()) - (before + seen.round_trip / 2);
  }
  seen.controller = *std::move(reply);
  if (auto actors = client.ListActors(); actors.ok()) seen.actors.assign(actors->actors().begin(), actors->actors().end());
  return seen;
}

absl::Status Write(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << WithoutSecrets(text);
  out.close();
  return out ? absl::OkStatus() : absl::InternalError(absl::StrCat("cannot write ", path.string()));
}

template <typename Reply>
std::string JsonOr(const absl::StatusOr<Reply>& reply) {
  return reply.ok() ? ToJson(*reply) : absl::StrCat("error: ", std::string(reply.status().message()), "\n");
}

std::string LogOf(ControllerClient& client, const std::string& name) {
  std::string text;
  v1::LogsRequest request;
  request.set_name(name);
  request.set_tail(kLogLines);
  absl::Status status = client.Logs(request, absl::Seconds(30), [&](const v1::LogLine& line) {
    absl::StrAppend(&text, line.actor(), " ", line.text(), "\n");
    return true;
  });
  if (!status.ok()) absl::StrAppend(&text, "error: ", std::string(status.message()), "\n");
  return text;
}

absl::Status Fill(const fs::path& folder, const Connection& connection, const std::string& token, const std::string& job) {
  ControllerClient client(connection.server, token, TrustedAuthority(connection));
  absl::Status status = Write(folder / "server.json", JsonOr(client.GetServer()));
  absl::StatusOr<v1::ListActorsReply> actors = client.ListActors();
  status.Update(Write(folder / "actors.json", JsonOr(actors)));
  absl::StatusOr<v1::ListJobsReply> jobs = client.ListJobs();
  status.Update(Write(folder / "jobs.json", JsonOr(jobs)));
  if (actors.ok()) {
    for (const v1::Actor& actor : actors->actors()) status.Update(Write(folder / ("log-" + actor.name() + ".txt"), LogOf(client, actor.name())));
  }
  status.Update(Write(folder / "log-controller.txt", LogOf(client, "controller")));
  if (job.empty()) return status;
  status.Update(Write(folder / "job.json", JsonOr(client.GetJob(job))));
  status.Update(Write(folder / "ledger.json", JsonOr(client.GetLedger(job))));
  v1::ListUpdatesRequest request;
  request.set_name(job);
  if (auto updates = client.ListUpdates(request); updates.ok()) {
    status.Update(Write(folder / "metrics.csv", MetricsCsv(*updates, *MetricKeys(*updates, {}))));
  }
  std::string events;
  v1::WatchRequest watch;
  watch.set_name(job);
  watch.set_no_follow(true);
  client.Watch(watch, absl::Seconds(30), [&](const v1::JobEvent& event) {
    if (!event.has_update()) absl::StrAppend(&events, ToJson(event));
    return true;
  }).IgnoreError();
  status.Update(Write(folder / "events.json", events));
  return status;
}

}  // namespace

std::vector<Finding> Diagnose(const Observed& seen, absl::Time now) {
  std::vector<Finding> findings;
  auto add = [&](Finding::Kind kind, const std::string& what, const std::string& detail, const std::string& advice = "") {
    findings.push_back({kind, what, detail, advice});
  };
  if (!seen.connected.ok()) {
    const std::string reason(seen.connected.message());
    add(Finding::kFault, "server", reason.substr(0, reason.find('\n')),
        absl::IsUnauthenticated(seen.connected) ? "ask for a token (rein token add), or renew yours"
                                                : "is it up (rein up)? is the address right (rein context list)? is the port reachable?");
  } else if (seen.controller.has_value()) {
    const bool slow = seen.round_trip > kSlow;
    add(slow ? Finding::kWarning : Finding::kGood, "server", absl::StrCat(seen.server, " answers in ", absl::ToInt64Milliseconds(seen.round_trip), " ms"),
        slow ? "a slow network, or a busy controller: rein top" : "");
    findings.push_back(Versions(seen));
    const bool skewed = seen.skew > kMaxSkew || seen.skew < -kMaxSkew;
    add(skewed ? Finding::kFault : Finding::kGood, "clock", absl::StrCat("the server's is ", absl::FormatDuration(absl::Trunc(seen.skew, absl::Milliseconds(1))), " from this one's"),
        skewed ? "set both by NTP: leases and certificates go by the clock" : "");
    const double free = static_cast<double>(seen.controller->disk_free_bytes()), size = static_cast<double>(seen.controller->disk_bytes());
    const bool full = size > 0 && free / size < 0.1;
    if (size > 0) add(full ? Finding::kFault : Finding::kGood, "disk", absl::StrCat(Size(free), " of ", Size(size), " free for the state"), full ? "rein gc --dry-run says what could go" : "");
    ActorFindings(seen, findings);
  }
  if (seen.certificate_until.has_value()) {
    const absl::Duration left = *seen.certificate_until - now;
    add(left <= absl::ZeroDuration() ? Finding::kFault : left < kRenewBefore ? Finding::kWarning : Finding::kGood, "certificate",
        left <= absl::ZeroDuration() ? "has expired" : absl::StrCat("is good for ", Age(left)),
        left < kRenewBefore ? "rein certs init renews it" : "");
  }
  const bool wants_gpu = std::any_of(seen.actors.begin(), seen.actors.end(), [](const auto& actor) { return actor.device().rfind("gpu", 0) == 0; });
  if (seen.gpu_driver) {
    add(Finding::kGood, "gpu", std::string(absl::StripSuffix(seen.gpus.substr(0, seen.gpus.find('\n')), "\n")));
  } else {
    add(Finding::kGood, "gpu", wants_gpu ? "none on this machine; services use theirs" : "none on this machine");
  }
  const bool few = seen.open_files_limit < kFewFiles;
  add(few ? Finding::kWarning : Finding::kGood, "open files", absl::StrCat("at most ", seen.open_files_limit), few ? absl::StrCat("ulimit -n ", 65536) : "");
  return findings;
}

std::string FindingsText(const std::vector<Finding>& findings) {
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings) {
    rows.push_back({finding.kind == Finding::kGood ? "ok" : finding.kind == Finding::kWarning ? "warn" : "FAULT", finding.what, finding.detail});
    if (!finding.advice.empty()) rows.push_back({"", "", "→ " + finding.advice});
  }
  return Table(rows);
}

int RunDoctor(const absl::StatusOr<Connection>& connection) {
  const std::vector<Finding> findings = Diagnose(Look(connection), absl::Now());
  Print(FindingsText(findings));
  const bool fault = std::any_of(findings.begin(), findings.end(), [](const Finding& one) { return one.kind == Finding::kFault; });
  return fault ? kExitFailed : kExitOk;
}

std::string WithoutSecrets(const std::string& text) {
  static const RE2& token = *new RE2(R"(rein_[0-9a-f]{64})");
  static const RE2& bearer = *new RE2(R"((?i)(bearer\s+)[^\s"',;]+)");
  static const RE2& key = *new RE2(R"((?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----)");
  static const RE2& setting = *new RE2(R"((?i)\b([\w-]*(?:token|secret|password|passwd|api[_-]?key|credential)(?:"|')?\s*[=:]\s*(?:"|')?)[^\s"',;}]+)");
  static const RE2& url = *new RE2(R"((\w+://[^\s/:@]+:)[^\s/@]+@)");
  std::string clean = text;
  RE2::GlobalReplace(&clean, key, "[removed]");
  RE2::GlobalReplace(&clean, token, "[removed]");
  RE2::GlobalReplace(&clean, bearer, R"(\1[removed])");
  RE2::GlobalReplace(&clean, setting, R"(\1[removed])");
  RE2::GlobalReplace(&clean, url, R"(\1[removed]@)");
  return clean;
}

int RunDebugBundle(const absl::StatusOr<Connection>& connection, const BundleFlags& flags) {
  const std::string stem = absl::FormatTime("rein-debug-%Y%m%d-%H%M%S", absl::Now(), absl::UTCTimeZone());
  const std::string file = flags.file.empty() ? stem + ".tar.gz" : flags.file;
  std::error_code error;
  const fs::path parent = fs::temp_directory_path(error) / absl::StrCat(stem, "-", getpid());
  const fs::path folder = parent / stem;
  fs::create_directories(folder, error);
  if (error) return PrintError(absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", folder.string())));
  absl::Status status = Write(folder / "doctor.txt", FindingsText(Diagnose(Look(connection), absl::Now())));
  status.Update(Write(folder / "version.txt", version::Describe("rein", version::ThisBuild()) + "\n"));
  if (connection.ok()) {
    absl::StatusOr<std::string> token = UseConnection(*connection);
    if (token.ok()) status.Update(Fill(folder, *connection, *token, flags.job));
  }
  if (status.ok()) {
    auto run = RunProgram({"tar", "-czf", fs::absolute(file).string(), "-C", parent.string(), stem}, "", true);
    status = run.ok() ? (run->exit_code == 0 ? absl::OkStatus() : absl::InternalError("tar failed")) : run.status();
  }
  fs::remove_all(parent, error);
  if (!status.ok()) return PrintError(status);
  Print(file + "\n");
  Hint("tokens, keys and passwords were taken out; prompts and rollouts are not in it: look before you send it\n");
  return kExitOk;
}

}  // namespace rein::cli
