#include "services/cli/command_line.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/config/nearest_name.h"
#include "common/version/build_version.h"
#include "services/cli/app_text.h"
#include "services/cli/command_flags.h"
#include "services/cli/context.h"
#include "services/cli/exit_code.h"
#include "services/cli/models_command.h"

namespace rein::cli {
namespace {

int WriteManual(const CLI::App& app, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (const auto& [name, page] : ManualPages(app)) {
    std::ofstream out(folder + "/" + name);
    out << page;
    out.close();
    if (!out) return PrintError(absl::InternalError(absl::StrCat("cannot write ", folder, "/", name)));
  }
  Print(folder + "\n");
  return kExitOk;
}

void AddLocalCommands(CLI::App& app, Flags& flags) {
  CLI::App* up = Command(app, flags, "up", "Start the services on this machine", [&flags] {
    flags.local.programs = ProgramFolder();
    if (flags.local.state.empty()) flags.local.state = HomeFolder();
    return flags.check ? RunUpCheck(flags.local) : RunUp(flags.local, flags.foreground);
  });
  up->add_option("--state", flags.local.state,
                 "Folder of jobs, logs and results; default: $REIN_HOME or ~/.local/share/rein");
  up->add_option("--listen", flags.local.listen, "host:port of the controller; port 0: any")
      ->capture_default_str();
  up->add_option("--admin", flags.local.admin, "host:port of the page and of /metrics")
      ->capture_default_str();
  up->add_option("--groups", flags.local.groups,
                 "Groups of services, default, group-2, ...: each runs a job, with a copy of all below and an equal part of the devices")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  up->add_option("--device", flags.local.devices,
                 "cpu or gpu:N; several with commas: the copies of a role are dealt over them")
      ->delimiter(',')
      ->capture_default_str();
  up->add_option("--trainer-device", flags.local.trainer_devices,
                 "Of the trainer; give it once for each of its ranks")
      ->delimiter(',');
  up->add_option("--trainers", flags.local.trainers, "Ranks that train as one (data parallel)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  up->add_option("--rollout-device", flags.local.rollout_devices,
                 "Of a rollout service; give it once for each");
  up->add_option("--reference-device", flags.local.reference_devices,
                 "Of a reference service; give it once for each");
  up->add_option("--rollouts", flags.local.rollouts, "Rollout services")->check(CLI::Range(0, 1024))->capture_default_str();
  up->add_option("--references", flags.local.references, "Reference services")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  up->add_option("--rewards", flags.local.rewards, "Reward services")->check(CLI::Range(0, 1024))->capture_default_str();
  up->add_option("--store", flags.local.store,
                 "Where the controller keeps jobs: postgres://USER@HOST[:PORT]/DATABASE; default: a file in --state");
  up->add_option("--store-password-file", flags.local.store_password_file, "Its first line is the database's password");
  up->add_option("--controllers", flags.local.controllers, "Controllers, of which one leads; several want a PostgreSQL --store")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  up->add_option("--threads", flags.local.threads, "Threads of each service; 0: one per core")->check(CLI::Range(0, 1 << 20));
  up->add_option("--lease-seconds", flags.local.lease_seconds,
                 "A service silent for so long is lost")
      ->capture_default_str();
  up->add_option("--tls", flags.local.tls,
                 "Folder of rein certs init: then --listen and --admin may be open to other machines");
  up->add_option("--tokens", flags.local.tokens, "File of user tokens (rein token add)");
  up->add_flag("--reflection", flags.local.reflection, "Serve gRPC reflection, by which grpcurl finds methods and messages");
  up->add_option("--log-mib", flags.local.log_mib,
                 "A service's log with so many MiB becomes NAME.log.1, ..., NAME.log.4, the oldest of which goes")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  up->add_option("--openai", flags.local.openai,
                 "host:port at which OpenAI's clients talk to the policy; default: nowhere");
  up->add_flag("--check", flags.check, "Check the flags and files of every service, and start none");
  up->add_flag("--foreground", flags.foreground, "Stay until Ctrl-C");
  Command(app, flags, "down", "Stop what rein up started", [] { return RunDown(); });
}

void AddSubmitCommands(CLI::App& app, Flags& flags) {
  auto job_flags = [&flags](CLI::App* command) {
    command->add_option("-f,--file", flags.submit.file, "The job's YAML file; -: standard input")
        ->required();
    command->add_option("overrides", flags.submit.overrides, "key.sub=value, laid over the file");
    command->add_option("--name", flags.submit.name, "Another name for the job");
    AddFormat(command, flags);
  };
  CLI::App* submit = ControllerCommand(
      app, flags, "submit", "Submit a job",
      [&flags](ControllerClient& client) { return RunSubmit(client, flags.submit, flags.format); });
  job_flags(submit);
  submit->add_option("--id", flags.submit.request_id, "Makes a repeat of this command harmless");
  submit->add_flag("--dry-run", flags.submit.validate_only,
                   "Check only, and print the resolved job");
  submit->add_flag("--wait,--follow", flags.submit.wait, "Watch it to its end; the exit code is the job's");
  CLI::App* validate =
      Command(app, flags, "validate", "Check a job without submitting it",
              [&flags] {
                return RunValidate(FindConnection(flags.connection, flags.context), flags.submit, flags.format);
              });
  job_flags(validate);
  AddConnection(validate, flags);
  CLI::App* config = app.add_subcommand("config", "Configs of jobs");
  config->require_subcommand(1);
  job_flags(Command(*config, flags, "print-resolved", "Print a job's config with every default filled in", [&flags] {
    return RunValidate(absl::NotFoundError("not asked for"), flags.submit, flags.format);
  }));
  CLI::App* explain = Command(app, flags, "explain", "What a key of a job means",
                              [&flags] { return RunExplain(flags.key); });
  explain->add_option("key", flags.key, "Such as grpo.clip.high; none: all");
}

void AddLookCommands(CLI::App& app, Flags& flags) {
  CLI::App* get = ControllerCommand(app, flags, "get", "List jobs or actors",
                                    [&flags](ControllerClient& client) {
                                      return RunGet(client, flags.what, flags.name, flags.format);
                                    });
  get->add_option("what", flags.what, "jobs or actors")->required();
  get->add_option("name", flags.name, "Only this one");
  AddFormat(get, flags);
  CLI::App* describe = ControllerCommand(
      app, flags, "describe", "All about a job",
      [&flags](ControllerClient& client) { return RunDescribe(client, flags.name, flags.format); });
  describe->add_option("job", flags.name, "Default: the newest");
  AddFormat(describe, flags);
  CLI::App* watch = ControllerCommand(
      app, flags, "watch", "Follow a job",
      [&flags](ControllerClient& client) { return RunWatch(client, flags.name, flags.format); });
  watch->add_option("job", flags.name, "Default: the one that runs, else the newest");
  AddFormat(watch, flags);
  CLI::App* wait = ControllerCommand(
      app, flags, "wait", "Wait for a job's end; its exit code is the job's",
      [&flags](ControllerClient& client) {
        flags.wait.timeout = flags.timeout_seconds > 0 ? absl::Seconds(flags.timeout_seconds) : absl::Hours(24 * 365);
        return RunWait(client, flags.wait);
      });
  wait->add_option("job", flags.wait.name, "The job")->required();
  wait->add_option("--for", flags.wait.what, "end, state=NAME or update=N; then the exit code is 0, or 1 when it ended without")
      ->capture_default_str();
  wait->add_option("--timeout", flags.timeout_seconds,
                   "Give up after so many seconds (exit code 124)");
  CLI::App* logs = ControllerCommand(app, flags, "logs", "Log lines of a job or an actor",
                                     [&flags](ControllerClient& client) {
                                       return RunLogs(client, flags.logs);
                                     });
  logs->add_option("name", flags.logs.name, "A job or an actor")->required();
  logs->add_flag("-f,--follow", flags.logs.follow, "Go on with new lines");
  logs->add_option("--tail", flags.logs.tail, "Only the last so many");
  logs->add_option("--since", flags.logs.since, "Only what is not older: 90s, 10m, 2h, 1d");
  CLI::App* rollouts = ControllerCommand(app, flags, "rollouts", "Read what the model said",
                                         [&flags](ControllerClient& client) {
                                           if (!flags.diff.empty()) return RunRolloutsDiff(client, flags.rollouts, flags.diff);
                                           return RunRollouts(client, flags.rollouts, flags.format);
                                         });
  rollouts->add_option("job", flags.rollouts.name, "Default: the newest");
  rollouts->add_option("--update", flags.rollouts.update, "Of this update; default: the last");
  rollouts->add_option("--prompt", flags.rollouts.prompt, "Only of this prompt (its number in the data)");
  rollouts->add_option("--sibling", flags.rollouts.sibling, "Only this sibling of each group");
  rollouts->add_option("--contains", flags.rollouts.contains, "Only those that say this");
  rollouts->add_option("--min-reward", flags.rollouts.min_reward, "Only with at least this reward");
  rollouts->add_option("--max-reward", flags.rollouts.max_reward, "Only with at most this reward");
  rollouts->add_option("--finish", flags.rollouts.finish, "Only those that ended so: stop or cut")
      ->check(CLI::IsMember({"stop", "cut"}));
  rollouts->add_option("--diff", flags.diff, "Against another update of the job (a number), or another job");
  rollouts->add_option("--sort", flags.rollouts.sort,
                       "reward, advantage or length; - in front: lowest first");
  rollouts->add_option("--limit", flags.rollouts.limit, "At most so many; default 16");
  rollouts->add_flag("--tokens", flags.rollouts.tokens, "Also token ids and log-probabilities");
  AddFormat(rollouts, flags);
}

void AddJobCommands(CLI::App& app, Flags& flags) {
  CLI::App* cancel = ControllerCommand(
      app, flags, "cancel", "Stop a job for good",
      [&flags](ControllerClient& client) { return RunCancel(client, flags.name); });
  CLI::App* pause = ControllerCommand(
      app, flags, "pause", "Stop a job after its running update; it can be resumed",
      [&flags](ControllerClient& client) { return RunPause(client, flags.name); });
  CLI::App* resume = ControllerCommand(app, flags, "resume", "Let a paused or failed job go on",
                                       [&flags](ControllerClient& client) {
                                         return RunResume(client, flags.name, flags.overrides);
                                       });
  for (CLI::App* command : {cancel, pause, resume}) {
    command->add_option("job", flags.name, "The job")->required();
  }
  resume->add_option("overrides", flags.overrides, "key.sub=value, changed from here on");
  CLI::App* version =
      Command(app, flags, "version", "Versions of this program and of what is up", [&flags] {
        return RunVersion(FindConnection(flags.connection, flags.context), flags.format);
      });
  AddConnection(version, flags);
  AddFormat(version, flags);
}

void AddAccessCommands(CLI::App& app, Flags& flags) {
  CLI::App* certs = app.add_subcommand("certs", "Certificates of a deployment");
  certs->require_subcommand(1);
  CLI::App* init = Command(*certs, flags, "init", "Make an authority and a certificate for each role and user",
                           [&flags] { return RunCertsInit(flags.certificates); });
  CLI::App* secrets = Command(*certs, flags, "secrets", "Print them as Kubernetes Secrets",
                              [&flags] { return RunCertsSecrets(flags.certificates.folder); });
  for (CLI::App* command : {init, secrets}) {
    command->add_option("--dir", flags.certificates.folder, "Folder; default: ./certs")->capture_default_str();
  }
  init->add_option("--host", flags.certificates.hosts,
                   "A name or address that services are reached by; give it once for each");
  init->add_option("--namespace", flags.certificates.kubernetes, "Also the names of the manifests in this namespace");
  init->add_option("--user", flags.certificates.users, "NAME:ROLE or NAME:ROLE:TENANT, with a certificate of their own");
  init->add_option("--days", flags.certificates.days, "How long certificates are good; the authority ten times")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
  CLI::App* token = app.add_subcommand("token", "Users who come by a token");
  token->require_subcommand(1);
  CLI::App* add = Command(*token, flags, "add", "Make a token; it is shown this once", [&flags] { return RunTokenAdd(flags.token); });
  CLI::App* list = Command(*token, flags, "list", "Who has one", [&flags] { return RunTokenList(flags.token); });
  CLI::App* revoke = Command(*token, flags, "revoke", "Take a user's tokens away", [&flags] { return RunTokenRevoke(flags.token); });
  for (CLI::App* command : {add, list, revoke}) {
    command->add_option("--file", flags.token.file, "The file that --tokens names")->required();
    if (command != list) command->add_option("user", flags.token.user, "The user")->required();
  }
  add->add_option("--role", flags.token.role, "viewer, submitter or admin")->capture_default_str();
  add->add_option("--tenant", flags.token.tenant, "Whose jobs the user sees; default: only their own");
  add->add_option("--days", flags.token.days, "Until it expires")->check(CLI::Range(1, 3650))->capture_default_str();
  CLI::App* context = app.add_subcommand("context", "Servers that are remembered");
  context->require_subcommand(1);
  Command(*context, flags, "list", "Which there are; * is in use", [] { return RunContextList(); });
  CLI::App* use = Command(*context, flags, "use", "Use one from now on; local: that of rein up",
                          [&flags] { return RunContextUse(flags.name); });
  CLI::App* set = Command(*context, flags, "set", "Remember one, or change it",
                          [&flags] { return RunContextSet(flags.name, flags.connection); });
  CLI::App* forget = Command(*context, flags, "delete", "Forget one", [&flags] { return RunContextDelete(flags.name); });
  for (CLI::App* command : {use, set, forget}) command->add_option("name", flags.name, "Its name")->required();
  set->add_option("--server", flags.connection.server, "host:port of the controller, several with commas");
  set->add_option("--tls", flags.connection.tls, "Folder with your ca.crt, tls.crt and tls.key");
  set->add_option("--ca", flags.connection.ca, "The server's authority, for a user with a token");
  set->add_option("--token-file", flags.connection.token_file, "File with your token");
  CLI::App* audit = app.add_subcommand("audit", "Who did what");
  audit->require_subcommand(1);
  CLI::App* verify = Command(*audit, flags, "verify", "Whether an audit log holds together",
                             [&flags] { return RunAuditVerify(flags.name); });
  verify->add_option("file", flags.name, "STATE/audit.jsonl of the controller")->required();
}

void AddDeployCommands(CLI::App& app, Flags& flags) {
  CLI::App* deploy = app.add_subcommand("deploy", "Bring the services to a Kubernetes cluster");
  deploy->require_subcommand(1);
  const std::pair<const char*, const char*> verbs[] = {
      {"render", "Print the manifests"},
      {"diff", "Show what apply would change"},
      {"apply", "Check what the cluster lacks, then apply"},
      {"status", "Show pods, volumes and what they wait for"},
      {"delete", "Delete everything but the volumes"}};
  for (const auto& [verb, help] : verbs) {
    CLI::App* command = Command(*deploy, flags, verb, help, [&flags, verb = std::string(verb)] { return RunDeploy(verb, flags.deploy); });
    command->add_option("-k,--overlay", flags.deploy.overlay, "Name of an overlay, or a folder of yours")->required();
    command->add_option("--kubectl", flags.deploy.kubectl, "The program")->capture_default_str();
    if (std::string(verb) == "delete" || std::string(verb) == "apply") {
      command->add_flag("-y,--yes", flags.deploy.yes, "Do not ask");
    }
  }
}

void AddKeepCommands(CLI::App& app, Flags& flags) {
  CLI::App* checkpoint = app.add_subcommand("checkpoint", "Checkpoints of a job");
  checkpoint->require_subcommand(1);
  CLI::App* list = ControllerCommand(*checkpoint, flags, "list", "Which there are", [&flags](ControllerClient& client) {
    return RunCheckpointList(client, flags.name, flags.format);
  });
  AddFormat(list, flags);
  CLI::App* remove = ControllerCommand(*checkpoint, flags, "delete", "Delete one", [&flags](ControllerClient& client) {
    return RunCheckpointDelete(client, flags.name, flags.number, flags.yes);
  });
  CLI::App* take = ControllerCommand(*checkpoint, flags, "export", "Copy one as a Hugging Face folder", [&flags](ControllerClient& client) {
    flags.exports.job = flags.name;
    flags.exports.checkpoint = flags.number;
    return RunExport(client, flags.exports);
  });
  for (CLI::App* command : {list, remove, take}) command->add_option("job", flags.name, "The job")->required();
  for (CLI::App* command : {remove, take}) command->add_option("number", flags.number, "Which")->required();
  CLI::App* result = ControllerCommand(app, flags, "export", "Copy a job's result as a Hugging Face folder", [&flags](ControllerClient& client) {
    return RunExport(client, flags.exports);
  });
  result->add_option("job", flags.exports.job, "The job")->required();
  result->add_option("--checkpoint", flags.exports.checkpoint, "Of this checkpoint; default: the result, else the newest");
  for (CLI::App* command : {take, result}) {
    command->add_option("--to", flags.exports.to, "The folder to make")->required();
    command->add_option("--format", flags.exports.format, "hf: what transformers, peft and vLLM load; merged: an adapter added to its base, as a whole model")->check(CLI::IsMember({"hf", "merged"}))->capture_default_str();
  }
  CLI::App* deletion = ControllerCommand(app, flags, "delete", "Forget jobs that have ended, with all they left", [&flags](ControllerClient& client) {
    return RunDelete(client, flags.names, flags.yes);
  });
  deletion->add_option("jobs", flags.names, "The jobs")->required();
  CLI::App* gc = ControllerCommand(app, flags, "gc", "Delete what the retention of jobs says is due, and old jobs that failed or were cancelled", [&flags](ControllerClient& client) {
    flags.collect.yes = flags.yes;
    return RunCollect(client, flags.collect);
  });
  gc->add_option("--older-than", flags.collect.older_than, "Ended so long ago: 12h, 30d")->capture_default_str();
  gc->add_option("--states", flags.collect.states, "With commas: failed, cancelled, succeeded")
      ->delimiter(',')
      ->check(CLI::IsMember({"failed", "cancelled", "succeeded"}))
      ->capture_default_str();
  gc->add_flag("--dry-run", flags.collect.dry_run, "Say what would go, and how much disk that frees");
  for (CLI::App* command : {remove, deletion, gc}) command->add_flag("-y,--yes", flags.yes, "Do not ask");
}

void AddShellCommands(CLI::App& app, Flags& flags) {
  CLI::App* completion = Command(app, flags, "completion", "Completion for a shell: bash, zsh or fish", [&app, &flags] {
    absl::StatusOr<std::string> script = CompletionScript(app, flags.what);
    if (!script.ok()) return PrintError(script.status());
    Print(*script);
    return kExitOk;
  });
  completion->add_option("shell", flags.what, "bash, zsh or fish")->required();
  CLI::App* man = Command(app, flags, "man", "Write manual pages", [&app, &flags] { return WriteManual(app, flags.what); });
  man->add_option("folder", flags.what, "Where: a folder such as ~/.local/share/man/man1")->required();
}

void AddDataCommands(CLI::App& app, Flags& flags) {
  CLI::App* data = app.add_subcommand("data", "Corpora for pretraining");
  data->require_subcommand(1);
  DataBuildFlags& build = flags.data_build;
  CLI::App* command = Command(*data, flags, "build", "Tokenise text into .idx and .bin files of Megatron's format",
                              [&build] { return RunDataBuild(build); });
  command->add_option("input", build.options.inputs, ".jsonl: a document for each line; other files: one each")->required();
  command->add_option("--model", build.model, "Folder with tokenizer.json")->required();
  command->add_option("--to", build.options.prefix, "Prefix of the files, such as data/corpus")->required();
  command->add_option("--column", build.options.column, "Column of the text in .jsonl")->capture_default_str();
  command->add_flag("--no-eod", build.no_eod, "No end-of-text token after each document");
  command->add_option("--threads", build.options.threads, "0: one per core");
  command->add_option("--shard-bytes", build.options.shard_bytes, "Bytes of text after which a restart goes on")
      ->capture_default_str();
  command->add_option("--max-skipped", build.options.max_skipped, "Wrong lines that may be left out");
  data::FillInTheMiddleOptions& middle = build.options.middle;
  command->add_option("--fim-rate", middle.rate, "Share of documents cut in three and told with the middle last");
  command->add_option("--fim-suffix-first", middle.suffix_first, "Share of these that begin with the suffix")
      ->capture_default_str();
  command->add_option("--fim-tokens", middle.tokens, "Prefix, suffix and middle; default: those that the tokenizer is known by")
      ->delimiter(',');
  command->add_option("--fim-seed", middle.seed, "Of the cuts")->capture_default_str();
  command->add_flag("--keep-shards", build.options.keep_shards, "Do not join the shards to one file");
  CLI::App* inspect = Command(*data, flags, "inspect", "Documents and tokens of an .idx file",
                              [&flags] { return RunDataInspect(flags.what); });
  inspect->add_option("index", flags.what, "The .idx file")->required();
}

// LibTorch reads the folders, which this program does without: the role that has it answers.
void AddModelsCommand(CLI::App& app, Flags& flags) {
  CLI::App* models = app.add_subcommand("models", "What model folders hold: list, inspect, verify, diff, merge, estimate, upcycle, import, export");
  models->prefix_command()->set_help_flag();
  models->callback([models, &flags] { flags.run = [words = models->remaining()] { return RunModels(words); }; });
}

// "did you mean" for a command that does not exist.
void SuggestCommand(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  std::string nearest = config::NearestName(argv[1], names);
  bool known = std::find(names.begin(), names.end(), argv[1]) != names.end();
  if (!known && !nearest.empty()) Hint(absl::StrCat("did you mean rein ", nearest, "?\n"));
}

void AddCommands(CLI::App& app, Flags& flags) {
  AddConnection(&app, flags);
  AddLocalCommands(app, flags);
  AddSubmitCommands(app, flags);
  AddLookCommands(app, flags);
  AddJobCommands(app, flags);
  AddReportCommands(app, flags);
  AddKeepCommands(app, flags);
  AddShellCommands(app, flags);
  AddDataCommands(app, flags);
  AddModelsCommand(app, flags);
  AddAccessCommands(app, flags);
  AddDeployCommands(app, flags);
}

}  // namespace

int RunCommandLine(int argc, char** argv) {
  CLI::App app(
      "Rein post-trains language models: submit a job, watch it, read what the model said.",
      "rein");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Help of every command");
  app.set_version_flag("--version", version::Describe("rein", version::ThisBuild()), "Print this program's version and leave");
  Flags flags;
  AddCommands(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (app.exit(error) == 0) return kExitOk;
    SuggestCommand(app, argc, argv);
    return kExitUsage;
  }
  return flags.run();
}

}  // namespace rein::cli
