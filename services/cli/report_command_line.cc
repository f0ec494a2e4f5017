// The commands that show and compare, with their flags.

#include <CLI/CLI.hpp>

#include "services/cli/command_flags.h"

namespace rein::cli {

void AddReportCommands(CLI::App& app, Flags& flags) {
  CLI::App* metrics = ControllerCommand(app, flags, "metrics", "Figures of each update", [&flags](ControllerClient& client) {
    return RunMetrics(client, flags.metrics, flags.format);
  });
  metrics->add_option("job", flags.metrics.name, "Default: the newest");
  metrics->add_option("--keys", flags.metrics.keys, "Which, with commas; -o name lists all")->delimiter(',');
  metrics->add_flag("--csv", flags.metrics.csv, "As CSV, all figures unless --keys");
  metrics->add_option("--last", flags.metrics.last, "Only the last so many updates");
  AddFormat(metrics, flags);
  CLI::App* trace = ControllerCommand(app, flags, "trace", "Who did what when, for Perfetto or chrome://tracing", [&flags](ControllerClient& client) {
    return RunTrace(client, flags.trace);
  });
  trace->add_option("job", flags.trace.name, "Default: the newest");
  trace->add_option("--last", flags.trace.last, "Only the last so many updates");
  trace->add_option("--to", flags.trace.file, "The file; default: JOB-trace.json");
  CLI::App* compare = ControllerCommand(app, flags, "compare", "Two jobs side by side", [&flags](ControllerClient& client) {
    return RunCompare(client, flags.name, flags.other, flags.window);
  });
  compare->add_option("job", flags.name, "The first")->required();
  compare->add_option("other_job", flags.other, "The second")->required();
  compare->add_option("--window", flags.window, "Figures are means over the last so many updates")->check(CLI::Range(1, 1000000))->capture_default_str();
  CLI::App* top = ControllerCommand(app, flags, "top", "Services and jobs, live", [&flags](ControllerClient& client) {
    return RunTop(client, flags.once, flags.format);
  });
  top->add_flag("--once", flags.once, "Once, not again and again");
  AddFormat(top, flags);
  CLI::App* doctor = Command(app, flags, "doctor", "What is wrong, and what to do", [&flags] {
    return RunDoctor(FindConnection(flags.connection, flags.context));
  });
  AddConnection(doctor, flags);
  CLI::App* debug = app.add_subcommand("debug", "For a report of a fault");
  debug->require_subcommand(1);
  CLI::App* mismatch = ControllerCommand(*debug, flags, "mismatch", "Where trainer and generator begin to compute something else", [&flags](ControllerClient& client) {
    return RunDebugMismatch(client, flags.rollouts, flags.format);
  });
  mismatch->add_option("job", flags.rollouts.name, "Default: the newest");
  mismatch->add_option("--update", flags.rollouts.update, "Of a rollout of this update; default: the newest");
  mismatch->add_option("--prompt", flags.rollouts.prompt, "Of this prompt (its number in the data); default: the first");
  mismatch->add_option("--sibling", flags.rollouts.sibling, "Which of its completions; default: the first");
  AddFormat(mismatch, flags);
  CLI::App* bundle = Command(*debug, flags, "bundle", "Pack logs, states and figures; secrets are taken out", [&flags] {
    return RunDebugBundle(FindConnection(flags.connection, flags.context), flags.bundle);
  });
  AddConnection(bundle, flags);
  bundle->add_option("job", flags.bundle.job, "The job that it is about");
  bundle->add_option("--to", flags.bundle.file, "The .tar.gz; default: rein-debug-TIME.tar.gz");
}

}  // namespace rein::cli
