#include "services/cli/job_commands.h"

#include <algorithm>
#include <iostream>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <signal.h>
#include <unistd.h>

#include "common/config/nearest_name.h"
#include "common/version/build_version.h"
#include "services/cli/describe_text.h"
#include "services/cli/exit_code.h"
#include "services/cli/keep_commands.h"
#include "services/cli/text_table.h"
#include "services/cli/watch_view.h"

namespace rein::cli {
namespace {

constexpr absl::Duration kForever = absl::Hours(24 * 365);
constexpr absl::Duration kWaitPause = absl::Milliseconds(500);

bool HasEnded(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

void PrintMessage(const google::protobuf::Message& message, Format format) {
  Print(format == Format::kYaml ? ToYamlText(message) : ToJson(message));
}

int PrintJobLine(const absl::StatusOr<v1::Job>& job) {
  if (!job.ok()) return PrintError(job.status());
  Print(absl::StrCat(job->name(), "  ", NameOf(job->state()), "\n"));
  return kExitOk;
}

// What Ctrl-C says; async-signal-safe.
void SayThatTheJobGoesOn(int) {
  static constexpr char kText[] = "\nthe job goes on; rein cancel NAME stops it\n";
  ssize_t ignored = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  (void)ignored;
  _exit(130);
}

// Draws over the lines that it drew before.
class LiveLines {
 public:
  // Draws at most ten times a second while stored events come in.
  void DrawFor(const v1::JobEvent& event, const WatchView& view) {
    absl::Time now = absl::Now();
    bool live = now - (absl::UnixEpoch() + absl::Seconds(event.time())) < absl::Seconds(2);
    if (!live && now - drawn_at_ < absl::Milliseconds(100)) return;
    drawn_at_ = now;
    Draw(view.Lines(TerminalWidth()));
  }

  void Draw(const std::vector<std::string>& lines) {
    std::string text;
    if (drawn_ > 0) text = absl::StrCat("\x1b[", drawn_, "A\x1b[J");
    for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
    drawn_ = lines.size();
    Print(text);
  }

 private:
  size_t drawn_ = 0;
  absl::Time drawn_at_ = absl::InfinitePast();
};

// What `rein wait --for` waits for.
struct Wanted {
  bool end = false;
  std::optional<v1::JobState> state;
  uint64_t update = 0;

  bool Holds(const v1::Job& job) const { return state.has_value() ? job.state() == *state : job.update() >= update; }
  bool MayHold(const v1::JobEvent& event) const {
    return state.has_value() ? event.has_state() : event.has_update() && event.update().update() >= update;
  }
};

absl::StatusOr<Wanted> ReadWanted(const std::string& text) {
  Wanted wanted;
  const size_t equals = text.find('=');
  const std::string key = text.substr(0, equals), value = equals == std::string::npos ? "" : text.substr(equals + 1);
  v1::JobState state;
  if (text == "end") {
    wanted.end = true;
    return wanted;
  }
  if (key == "state" && v1::JobState_Parse("JOB_STATE_" + absl::AsciiStrToUpper(value), &state)) {
    wanted.state = state;
    return wanted;
  }
  if (key == "update" && absl::SimpleAtoi(value, &wanted.update)) return wanted;
  return absl::InvalidArgumentError(
      absl::StrCat("--for: wants end, state=NAME (queued, starting, running, paused, succeeded, failed, cancelled) or update=N, got '",
                   text, "'"));
}

}  // namespace

absl::StatusOr<std::string> JobOrNewest(ControllerClient& client, const std::string& name) {
  if (!name.empty()) return name;
  absl::StatusOr<v1::ListJobsReply> jobs = client.ListJobs();
  if (!jobs.ok()) return jobs.status();
  if (jobs->jobs().empty()) return absl::NotFoundError("there is no job yet");
  for (const v1::Job& job : jobs->jobs()) {
    if (job.state() == v1::JOB_STATE_RUNNING || job.state() == v1::JOB_STATE_STARTING)
      return job.name();
  }
  return jobs->jobs(0).name();
}

int RunGet(ControllerClient& client, const std::string& what, const std::string& name,
           Format format) {
  if (what == "jobs" || what == "job") {
    v1::ListJobsReply jobs;
    if (name.empty()) {
      absl::StatusOr<v1::ListJobsReply> reply = client.ListJobs();
      if (!reply.ok()) return PrintError(reply.status());
      jobs = *std::move(reply);
    } else {
      absl::StatusOr<v1::Job> job = client.GetJob(name);
      if (!job.ok()) return PrintError(job.status());
      if (format == Format::kJson || format == Format::kYaml) {
        PrintMessage(*job, format);
        return kExitOk;
      }
      *jobs.add_jobs() = *std::move(job);
    }
    if (format == Format::kTable) {
      Print(JobsTable(jobs, absl::Now(), TableWidth()));
    } else if (format == Format::kName) {
      for (const v1::Job& job : jobs.jobs()) Print(job.name() + "\n");
    } else {
      PrintMessage(jobs, format);
    }
    return kExitOk;
  }
  if (what == "actors" || what == "actor") {
    absl::StatusOr<v1::ListActorsReply> actors = client.ListActors();
    if (!actors.ok()) return PrintError(actors.status());
    if (!name.empty()) {
      auto other = [&](const v1::Actor& actor) { return actor.name() != name; };
      auto* all = actors->mutable_actors();
      all->erase(std::remove_if(all->begin(), all->end(), other), all->end());
      if (all->empty()) {
        return PrintError(absl::NotFoundError(absl::StrCat("no actor ", name, " is registered")));
      }
    }
    if (format == Format::kTable) {
      Print(ActorsTable(*actors, TableWidth()));
    } else if (format == Format::kName) {
      for (const v1::Actor& actor : actors->actors()) Print(actor.name() + "\n");
    } else {
      PrintMessage(*actors, format);
    }
    return kExitOk;
  }
  std::string nearest = config::NearestName(what, {"jobs", "actors"});
  Hint(absl::StrCat("error: get wants jobs or actors, got '", what, "'",
                    nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"), "\n"));
  return kExitUsage;
}

int RunDescribe(ControllerClient& client, const std::string& name, Format format) {
  absl::StatusOr<std::string> known = JobOrNewest(client, name);
  if (!known.ok()) return PrintError(known.status());
  absl::StatusOr<v1::Job> job = client.GetJob(*known);
  if (!job.ok()) return PrintError(job.status());
  if (format != Format::kTable) {
    if (format == Format::kName) Print(job->name() + "\n");
    if (format != Format::kName) PrintMessage(*job, format);
    return kExitOk;
  }
  absl::StatusOr<v1::LedgerSummary> ledger = client.GetLedger(job->name());
  if (!ledger.ok()) return PrintError(ledger.status());
  std::vector<v1::JobEvent> events;
  v1::WatchRequest request;
  request.set_name(job->name());
  request.set_no_follow(true);
  absl::Status status = client.Watch(request, absl::Seconds(30), [&](const v1::JobEvent& event) {
    events.push_back(event);
    return true;
  });
  if (!status.ok()) return PrintError(status);
  Print(DescribeJob(*job, *ledger, events, absl::Now()));
  return kExitOk;
}

int RunCancel(ControllerClient& client, const std::string& name) {
  return PrintJobLine(client.Cancel(name));
}

int RunPause(ControllerClient& client, const std::string& name) {
  absl::StatusOr<v1::Job> job = client.Pause(name);
  if (job.ok() && job->state() != v1::JOB_STATE_PAUSED) {
    Print(absl::StrCat(job->name(), "  pauses after the running update\n"));
    return kExitOk;
  }
  return PrintJobLine(job);
}

int RunResume(ControllerClient& client, const std::string& name,
              const std::vector<std::string>& overrides) {
  v1::ResumeJobRequest request;
  request.set_request_id(RandomRequestId());
  request.set_name(name);
  request.mutable_overrides()->Add(overrides.begin(), overrides.end());
  return PrintJobLine(client.Resume(request));
}

int RunWatch(ControllerClient& client, const std::string& name, Format format) {
  absl::StatusOr<std::string> known = JobOrNewest(client, name);
  if (!known.ok()) return PrintError(known.status());
  absl::StatusOr<v1::Job> job = client.GetJob(*known);
  if (!job.ok()) return PrintError(job.status());
  signal(SIGINT, SayThatTheJobGoesOn);
  WatchView view(*job);
  LiveLines live;
  bool terminal = IsLiveTerminal() && format == Format::kTable;
  v1::WatchRequest request;
  request.set_name(job->name());
  // A controller that restarts is waited for.
  for (int attempts = 0; attempts < 30; ++attempts) {
    absl::Status status = client.Watch(request, kForever, [&](const v1::JobEvent& event) {
      request.set_after(event.sequence());
      attempts = 0;
      std::string line = view.Take(event);
      if (format == Format::kJson) {
        Print(ToJson(event));
      } else if (terminal) {
        live.DrawFor(event, view);
      } else if (!line.empty()) {
        Print(line + "\n");
      }
      return true;
    });
    if (status.ok()) break;
    if (!absl::IsUnavailable(status)) return PrintError(status);
    sleep(1);
  }
  if (terminal) live.Draw(view.Lines(TerminalWidth()));
  job = client.GetJob(job->name());
  if (!job.ok()) return PrintError(job.status());
  if (format != Format::kJson) Print(EndText(*job));
  return job->state() == v1::JOB_STATE_PAUSED ? kExitOk : ExitCodeOf(job->state());
}

int RunWait(ControllerClient& client, const WaitFlags& flags) {
  const std::string& name = flags.name;
  absl::StatusOr<Wanted> wanted = ReadWanted(flags.what);
  if (!wanted.ok()) return PrintError(wanted.status());
  v1::WatchRequest request;
  request.set_name(name);
  const absl::Time until = absl::Now() + flags.timeout;
  while (absl::Now() < until) {
    absl::StatusOr<v1::Job> job = client.GetJob(name);
    if (job.ok() && (wanted->end ? HasEnded(job->state()) : wanted->Holds(*job))) {
      Print(wanted->end ? EndText(*job) : absl::StrCat("job ", job->name(), " is at ", flags.what, "\n"));
      return wanted->end ? ExitCodeOf(job->state()) : kExitOk;
    }
    if (job.ok() && HasEnded(job->state())) {
      Hint(absl::StrCat("error: job ", job->name(), " ended without ", flags.what, "\n"));
      return kExitFailed;
    }
    absl::Status status = client.Watch(request, until - absl::Now(), [&](const v1::JobEvent& event) {
      request.set_after(event.sequence());
      return wanted->end || !wanted->MayHold(event);
    });
    // A controller that restarts is waited for, and so is a paused job.
    bool goes_on = status.ok() || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
    if (!goes_on) return PrintError(status);
    if (absl::Now() + kWaitPause < until) absl::SleepFor(kWaitPause);
  }
  Hint(absl::StrCat("error: job ", name, wanted->end ? " has not ended" : absl::StrCat(" is not at ", flags.what),
                    " within the time\n"));
  return kExitTimeout;
}

int RunLogs(ControllerClient& client, const LogsFlags& flags) {
  absl::Time from = absl::InfinitePast();
  if (!flags.since.empty()) {
    absl::StatusOr<absl::Duration> age = ParseAge(flags.since);
    if (!age.ok()) return PrintError(age.status());
    from = absl::Now() - *age;
  }
  v1::LogsRequest request;
  request.set_name(flags.name);
  request.set_follow(flags.follow);
  request.set_tail(flags.tail);
  bool shown = from == absl::InfinitePast();  // a line without a time belongs to the one before it
  absl::Status status = client.Logs(request, kForever, [&](const v1::LogLine& line) {
    absl::Time at;
    std::string error;
    if (absl::ParseTime(absl::RFC3339_full, line.text().substr(0, line.text().find(' ')), &at, &error)) shown = at >= from;
    if (shown) Print(absl::StrCat(line.text(), "\n"));
    return true;
  });
  return status.ok() ? kExitOk : PrintError(status);
}

int RunRollouts(ControllerClient& client, const RolloutsFlags& flags, Format format) {
  absl::StatusOr<std::string> known = JobOrNewest(client, flags.name);
  if (!known.ok()) return PrintError(known.status());
  v1::ListRolloutsRequest request;
  request.set_name(*known);
  request.set_update(flags.update);
  request.set_sort(flags.sort);
  request.set_limit(flags.limit);
  request.set_tokens(flags.tokens);
  if (flags.prompt.has_value()) request.set_prompt(*flags.prompt);
  if (flags.sibling.has_value()) request.set_sibling(*flags.sibling);
  if (flags.min_reward.has_value()) request.set_min_reward(*flags.min_reward);
  if (flags.max_reward.has_value()) request.set_max_reward(*flags.max_reward);
  request.set_contains(flags.contains);
  if (flags.finish == "stop") request.set_finish_reason(v1::FINISH_REASON_STOP);
  if (flags.finish == "cut") request.set_finish_reason(v1::FINISH_REASON_LENGTH);
  absl::StatusOr<v1::ListRolloutsReply> reply = client.ListRollouts(request);
  if (!reply.ok()) return PrintError(reply.status());
  if (format == Format::kJson || format == Format::kYaml) {
    PrintMessage(*reply, format);
  } else if (reply->rollouts().empty()) {
    Hint(absl::StrCat(flags.Filtered() ? "no rollouts match in update " : "no rollouts were consumed by update ",
                      reply->update(), " of ", *known, "\n"));
  } else {
    Print(RolloutsText(*reply, flags.tokens));
    if (reply->matching() > static_cast<uint32_t>(reply->rollouts_size())) {
      Hint(absl::StrCat(reply->rollouts_size(), " of ", reply->matching(), " that match; --limit shows more\n"));
    }
  }
  return kExitOk;
}

int RunVersion(const absl::StatusOr<Connection>& connection, Format format) {
  v1::BuildVersion build = version::ThisBuild();
  if (format == Format::kJson || format == Format::kYaml) {
    PrintMessage(build, format);
  } else {
    Print(version::Describe("rein", build) + "\n");
  }
  if (!connection.ok()) return kExitOk;
  absl::StatusOr<std::string> token = UseConnection(*connection);
  if (!token.ok()) return PrintError(token.status());
  ControllerClient client(connection->server, *token, TrustedAuthority(*connection));
  absl::StatusOr<v1::GetServerReply> reply = client.GetServer(absl::Seconds(2));
  absl::StatusOr<v1::ListActorsReply> actors = client.ListActors();
  if (!reply.ok() || !actors.ok() || format != Format::kTable) return kExitOk;
  Print(version::Describe("rein-controller", reply->build()) + " at " + connection->server + "\n");
  for (const v1::Actor& actor : actors->actors()) {
    Print(version::Describe("rein-" + actor.role(), actor.build()) + " as " + actor.name() + "\n");
  }
  return kExitOk;
}

}  // namespace rein::cli
