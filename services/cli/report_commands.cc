#include "services/cli/report_commands.h"

#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/status/status_macros.h"
#include "services/cli/chrome_trace.h"
#include "services/cli/exit_code.h"
#include "services/cli/report_text.h"
#include "services/cli/mismatch_text.h"

namespace rein::cli {
namespace {

constexpr absl::Duration kTopPause = absl::Seconds(2);
constexpr unsigned kDiffedRollouts = 65536;
constexpr size_t kDiffedPrompts = 16;

absl::StatusOr<ComparedJob> Read(ControllerClient& client, const std::string& name) {
  ComparedJob read;
  REIN_ASSIGN_OR_RETURN(read.job, client.GetJob(name));
  v1::ListUpdatesRequest request;
  request.set_name(read.job.name());
  REIN_ASSIGN_OR_RETURN(read.updates, client.ListUpdates(request));
  return read;
}

absl::StatusOr<v1::ListRolloutsReply> AllRollouts(ControllerClient& client, const std::string& job, uint64_t update) {
  v1::ListRolloutsRequest request;
  request.set_name(job);
  request.set_update(update);
  request.set_limit(kDiffedRollouts);
  return client.ListRollouts(request);
}

}  // namespace

int RunMetrics(ControllerClient& client, const MetricsFlags& flags, Format format) {
  absl::StatusOr<std::string> name = JobOrNewest(client, flags.name);
  if (!name.ok()) return PrintError(name.status());
  v1::ListUpdatesRequest request;
  request.set_name(*name);
  request.set_limit(flags.last);
  absl::StatusOr<v1::ListUpdatesReply> updates = client.ListUpdates(request);
  if (!updates.ok()) return PrintError(updates.status());
  absl::StatusOr<std::vector<std::string>> keys = MetricKeys(*updates, flags.keys);
  if (!keys.ok()) return PrintError(keys.status());
  if (flags.csv) {
    Print(MetricsCsv(*updates, *keys));
  } else if (format == Format::kJson) {
    Print(MetricsJsonLines(*updates, *keys));
  } else if (format == Format::kYaml) {
    Print(ToYamlText(*updates));
  } else if (format == Format::kName) {
    for (const std::string& key : *keys) Print(key + "\n");
  } else {
    Print(MetricsTable(*updates, flags.keys.empty() ? CommonKeys(*updates) : *keys, TerminalWidth()));
  }
  return kExitOk;
}

int RunCompare(ControllerClient& client, const std::string& a, const std::string& b, unsigned window) {
  absl::StatusOr<ComparedJob> first = Read(client, a);
  if (!first.ok()) return PrintError(first.status());
  absl::StatusOr<ComparedJob> second = Read(client, b);
  if (!second.ok()) return PrintError(second.status());
  Print(CompareText(*first, *second, window));
  return kExitOk;
}

int RunTop(ControllerClient& client, bool once, Format format) {
  const bool live = IsLiveTerminal() && !once && format == Format::kTable;
  do {
    absl::StatusOr<v1::ListActorsReply> actors = client.ListActors();
    if (!actors.ok()) return PrintError(actors.status());
    absl::StatusOr<v1::ListJobsReply> jobs = client.ListJobs();
    if (!jobs.ok()) return PrintError(jobs.status());
    if (format == Format::kJson || format == Format::kYaml) {
      Print(format == Format::kJson ? ToJson(*actors) : ToYamlText(*actors));
      return kExitOk;
    }
    Print(absl::StrCat(live ? "\x1b[H\x1b[2J" : "", TopText(*actors, *jobs, absl::Now(), TableWidth())));
    if (live) absl::SleepFor(kTopPause);
  } while (live);
  return kExitOk;
}

int RunTrace(ControllerClient& client, const TraceFlags& flags) {
  absl::StatusOr<std::string> name = JobOrNewest(client, flags.name);
  if (!name.ok()) return PrintError(name.status());
  v1::ListUpdatesRequest request;
  request.set_name(*name);
  request.set_limit(flags.last);
  request.set_spans(true);
  absl::StatusOr<v1::ListUpdatesReply> updates = client.ListUpdates(request);
  if (!updates.ok()) return PrintError(updates.status());
  if (updates->updates().empty()) {
    return PrintError(absl::NotFoundError(absl::StrCat("job ", *name, " has made no update yet")));
  }
  const std::string path = flags.file.empty() ? absl::StrCat(*name, "-trace.json") : flags.file;
  std::ofstream file(path);
  file << ChromeTrace(*updates);
  file.close();
  if (!file) return PrintError(absl::PermissionDeniedError(absl::StrCat("cannot write ", path)));
  Print(absl::StrCat("wrote ", path, ": ", updates->updates_size(),
                     " updates; open it in https://ui.perfetto.dev or chrome://tracing\n"));
  return kExitOk;
}

int RunDebugMismatch(ControllerClient& client, const RolloutsFlags& flags, Format format) {
  absl::StatusOr<std::string> name = JobOrNewest(client, flags.name);
  if (!name.ok()) return PrintError(name.status());
  v1::TraceRolloutRequest request;
  request.set_name(*name);
  request.set_update(flags.update);
  if (flags.prompt) request.set_prompt(*flags.prompt);
  if (flags.sibling) request.set_sibling(*flags.sibling);
  absl::StatusOr<v1::TraceRolloutReply> reply = client.TraceRollout(request);
  if (!reply.ok()) return PrintError(reply.status());
  Print(format == Format::kJson ? ToJson(*reply) : format == Format::kYaml ? ToYamlText(*reply) : MismatchText(*reply));
  return kExitOk;
}

int RunRolloutsDiff(ControllerClient& client, const RolloutsFlags& flags, const std::string& other) {
  absl::StatusOr<std::string> name = JobOrNewest(client, flags.name);
  if (!name.ok()) return PrintError(name.status());
  uint64_t update = 0;
  const bool same_job = absl::SimpleAtoi(other, &update);
  absl::StatusOr<v1::ListRolloutsReply> first = AllRollouts(client, *name, flags.update);
  if (!first.ok()) return PrintError(first.status());
  absl::StatusOr<v1::ListRolloutsReply> second =
      AllRollouts(client, same_job ? *name : other, same_job ? update : flags.update);
  if (!second.ok()) return PrintError(second.status());
  auto title = [&](const std::string& job, const v1::ListRolloutsReply& reply) {
    return same_job ? absl::StrCat("update ", reply.update()) : absl::StrCat(job, " update ", reply.update());
  };
  Print(RolloutDiffText(*first, title(*name, *first), *second, title(other, *second),
                        flags.limit > 0 ? flags.limit : kDiffedPrompts));
  return kExitOk;
}

}  // namespace rein::cli
