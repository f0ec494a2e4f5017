#include "services/cli/keep_commands.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

#include "common/status/status_macros.h"
#include "services/cli/describe_text.h"
#include "services/cli/exit_code.h"
#include "services/cli/models_command.h"
#include "services/cli/report_text.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

// Of a training checkpoint, and no part of a model.
constexpr const char* kTrainingFiles[] = {"optimizer.safetensors", "critic.safetensors", "trainer.json",
                                          "controller_state.bin", "manifest.json"};

int Declined() {
  Hint("error: nothing was deleted; --yes deletes without asking\n");
  return kExitUsage;
}

absl::StatusOr<fs::path> SourceOf(const v1::Job& job, unsigned checkpoint) {
  std::error_code error;
  const fs::path result = fs::path(job.output()) / "model";
  if (checkpoint == 0 && fs::is_directory(result, error)) return result;
  std::string known;
  for (const v1::Checkpoint& one : job.checkpoints()) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", one.number());
    if (one.number() != checkpoint) continue;
    if (fs::is_directory(one.path(), error)) return fs::path(one.path());
    return absl::NotFoundError(absl::StrCat(one.path(), " is not on this machine: export where it is"));
  }
  if (checkpoint == 0 && !job.checkpoints().empty()) {
    return SourceOf(job, job.checkpoints().rbegin()->number());
  }
  return absl::NotFoundError(absl::StrCat("job ", job.name(), checkpoint == 0 ? " has left no weights yet" : absl::StrCat(" has no checkpoint ", checkpoint),
                                          known.empty() ? "" : absl::StrCat("; it has ", known)));
}

absl::Status CopyModel(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (fs::exists(to, error)) return absl::AlreadyExistsError(absl::StrCat(to.string(), " is there already"));
  const fs::path temporary = to.string() + ".part";
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  for (const auto& entry : fs::directory_iterator(from, error)) {
    const std::string name = entry.path().filename().string();
    if (std::find(std::begin(kTrainingFiles), std::end(kTrainingFiles), name) != std::end(kTrainingFiles)) continue;
    fs::copy_file(entry.path(), temporary / name, error);
    if (error) break;
  }
  if (!error) fs::rename(temporary, to, error);
  if (!error) return absl::OkStatus();
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot write ", to.string()));
}

}  // namespace

absl::StatusOr<absl::Duration> ParseAge(const std::string& text) {
  double count = 0;
  const std::map<char, absl::Duration> units = {{'s', absl::Seconds(1)}, {'m', absl::Minutes(1)},
                                                {'h', absl::Hours(1)}, {'d', absl::Hours(24)}};
  auto unit = text.empty() ? units.end() : units.find(text.back());
  if (unit != units.end() && absl::SimpleAtod(text.substr(0, text.size() - 1), &count) && count >= 0) {
    return count * unit->second;
  }
  return absl::InvalidArgumentError(absl::StrCat("wants an age such as 12h or 30d, got '", text, "'"));
}

int RunCheckpointList(ControllerClient& client, const std::string& name, Format format) {
  absl::StatusOr<v1::Job> job = client.GetJob(name);
  if (!job.ok()) return PrintError(job.status());
  if (format == Format::kJson || format == Format::kYaml) {
    v1::Job only;
    *only.mutable_checkpoints() = job->checkpoints();
    Print(format == Format::kJson ? ToJson(only) : ToYamlText(only));
    return kExitOk;
  }
  for (const v1::Checkpoint& one : job->checkpoints()) {
    if (format == Format::kName) Print(absl::StrCat(one.number(), "\n"));
  }
  if (format == Format::kTable) {
    Print(job->checkpoints().empty() ? absl::StrCat("job ", job->name(), " has no checkpoint\n")
                                     : CheckpointsTable(*job, absl::Now(), TableWidth()));
  }
  return kExitOk;
}

int RunCheckpointDelete(ControllerClient& client, const std::string& job, unsigned number, bool yes) {
  if (!Confirmed(absl::StrCat("delete checkpoint ", number, " of ", job, "?"), yes)) return Declined();
  absl::StatusOr<v1::Job> left = client.DeleteCheckpoint(job, number);
  if (!left.ok()) return PrintError(left.status());
  Print(absl::StrCat(left->name(), "  checkpoint ", number, " deleted, ", left->checkpoints_size(), " left\n"));
  return kExitOk;
}

int RunExport(ControllerClient& client, const ExportFlags& flags) {
  absl::StatusOr<v1::Job> job = client.GetJob(flags.job);
  if (!job.ok()) return PrintError(job.status());
  absl::StatusOr<fs::path> from = SourceOf(*job, flags.checkpoint);
  if (!from.ok()) return PrintError(from.status());
  std::error_code error;
  const bool adapter = fs::exists(*from / "adapter_config.json", error), merged = adapter && flags.format == "merged";
  absl::Status copied = merged ? MergeAdapter(from->string(), flags.to) : CopyModel(*from, flags.to);
  if (!copied.ok()) return PrintError(copied);
  Print(absl::StrCat(flags.to, "\n"));
  const char* loader = adapter && !merged ? "PeftModel.from_pretrained, over the base that adapter_config.json names"
                                          : "AutoModelForCausalLM.from_pretrained";
  Hint(absl::StrCat("of ", from->string(), "; loads with ", loader, "\n"));
  return kExitOk;
}

int RunDelete(ControllerClient& client, const std::vector<std::string>& jobs, bool yes) {
  if (!Confirmed(absl::StrCat("delete ", absl::StrJoin(jobs, ", "), " with rollouts, checkpoints and results?"), yes)) return Declined();
  for (const std::string& name : jobs) {
    absl::StatusOr<v1::DeleteJobReply> deleted = client.Delete(name);
    if (!deleted.ok()) return PrintError(deleted.status());
    Print(absl::StrCat(name, "  deleted, ", Size(static_cast<double>(deleted->freed_bytes())), " freed\n"));
  }
  return kExitOk;
}

int RunCollect(ControllerClient& client, const CollectFlags& flags) {
  absl::StatusOr<absl::Duration> age = ParseAge(flags.older_than);
  if (!age.ok()) return PrintError(age.status());
  absl::StatusOr<v1::ListJobsReply> jobs = client.ListJobs();
  if (!jobs.ok()) return PrintError(jobs.status());
  absl::StatusOr<v1::ApplyRetentionReply> due = client.ApplyRetention(/*dry_run=*/true);
  if (absl::IsUnimplemented(due.status())) due = v1::ApplyRetentionReply();  // a controller that knows no retention
  if (!due.ok()) return PrintError(due.status());
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  auto ago = [&](double when) { return absl::StrCat(Age(absl::Seconds(now - when)), " ago"); };
  double total = 0;
  std::vector<std::vector<std::string>> rows = {{"NAME", "WHAT", "BECAUSE", "DISK"}};
  auto add = [&](const std::string& name, const std::string& what, const std::string& why, uint64_t bytes) {
    total += static_cast<double>(bytes);
    rows.push_back({name, what, why, Size(static_cast<double>(bytes))});
  };
  std::set<std::string> going;  // with all that they left
  for (const v1::Expired& one : due->expired()) {
    add(one.job(), one.what(), absl::StrCat("retention.", one.what(), "_days, due ", ago(one.due_at())), one.bytes());
    if (one.what() == "job") going.insert(one.job());
  }
  std::vector<std::string> old;
  for (const v1::Job& job : jobs->jobs()) {
    const std::string state = absl::AsciiStrToLower(NameOf(job.state()));
    const bool ended = job.state() >= v1::JOB_STATE_SUCCEEDED && job.ended_at() > 0 &&
                       job.ended_at() <= now - absl::ToDoubleSeconds(*age);
    if (!ended || going.count(job.name()) > 0) continue;
    if (std::find(flags.states.begin(), flags.states.end(), state) == flags.states.end()) continue;
    absl::StatusOr<v1::Job> whole = client.GetJob(job.name());
    if (!whole.ok()) continue;  // deleted meanwhile
    old.push_back(job.name());
    add(job.name(), "job", absl::StrCat(state, " ", ago(job.ended_at())), whole->disk_bytes());
  }
  if (rows.size() == 1) {
    Print(absl::StrCat("no job ended ", absl::StrJoin(flags.states, " or "), " more than ", flags.older_than,
                       " ago, and no retention is due\n"));
    return kExitOk;
  }
  Print(absl::StrCat(Table(rows), rows.size() - 1, rows.size() == 2 ? " thing, " : " things, ", Size(total), "\n"));
  if (flags.dry_run) return kExitOk;
  if (!Confirmed("delete them?", flags.yes)) return Declined();
  int code = kExitOk;
  if (due->expired_size() > 0) {
    due = client.ApplyRetention(/*dry_run=*/false);
    if (!due.ok()) return PrintError(due.status());
    for (const v1::Expired& one : due->expired()) {
      if (!one.error().empty()) code = PrintError(absl::InternalError(absl::StrCat(one.job(), " ", one.what(), ": ", one.error())));
    }
  }
  for (const std::string& name : old) {
    absl::StatusOr<v1::DeleteJobReply> deleted = client.Delete(name);
    if (!deleted.ok()) code = PrintError(deleted.status());
  }
  return code;
}

}  // namespace rein::cli
