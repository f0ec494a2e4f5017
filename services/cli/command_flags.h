// What the files that describe commands share: the flags, and how a command is added.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "services/cli/access_commands.h"
#include "services/cli/connection.h"
#include "services/cli/data_commands.h"
#include "services/cli/deploy_command.h"
#include "services/cli/doctor_command.h"
#include "services/cli/job_commands.h"
#include "services/cli/keep_commands.h"
#include "services/cli/local_command.h"
#include "services/cli/output.h"
#include "services/cli/report_commands.h"

namespace CLI {
class App;
}  // namespace CLI

namespace rein::cli {

// What the flags set; one of each is enough, since one command runs.
struct Flags {
  Connection connection;
  std::string context;
  CertificateFlags certificates;
  TokenFlags token;
  DeployFlags deploy;
  DataBuildFlags data_build;
  Format format = Format::kTable;
  std::string name, what, key;
  SubmitFlags submit;
  RolloutsFlags rollouts;
  WaitFlags wait;
  LogsFlags logs;
  TraceFlags trace;
  LocalOptions local;
  std::vector<std::string> overrides;
  bool foreground = false, check = false;
  double timeout_seconds = 0;
  MetricsFlags metrics;
  ExportFlags exports;
  CollectFlags collect;
  BundleFlags bundle;
  std::string other, diff;
  std::vector<std::string> names;
  unsigned window = 10, number = 0;
  bool yes = false, once = false;
  std::function<int()> run;
};

CLI::App* Command(CLI::App& app, Flags& flags, const std::string& name, const std::string& help,
                  std::function<int()> run);
// One that needs the controller.
CLI::App* ControllerCommand(CLI::App& app, Flags& flags, const std::string& name, const std::string& help,
                            std::function<int(ControllerClient&)> call);
// Where the controller is, and who asks; before or after the command.
void AddConnection(CLI::App* command, Flags& flags);
void AddFormat(CLI::App* command, Flags& flags);

// metrics, trace, compare, top, doctor, debug.
void AddReportCommands(CLI::App& app, Flags& flags);

}  // namespace rein::cli
