#include "services/cli/command_flags.h"

#include <cstdlib>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include <CLI/CLI.hpp>

#include "common/version/build_version.h"
#include "services/cli/version_skew.h"

namespace rein::cli {
namespace {

constexpr absl::Duration kAskVersion = absl::Seconds(2);

// An older controller does what it knows; a person should know why the rest fails.
void WarnOfSkew(ControllerClient& client) {
  absl::StatusOr<v1::GetServerReply> server = client.GetServer(kAskVersion);
  if (!server.ok()) return;  // the command itself says why
  const std::optional<VersionSkew> skew = SkewOf(version::ThisBuild().release(), server->build().release());
  if (skew.has_value()) Hint(absl::StrCat("warning: ", skew->both, ": ", skew->next, "\n"));
}

std::function<int()> WithController(Flags& flags, std::function<int(ControllerClient&)> call) {
  return [&flags, call = std::move(call)] {
    setenv("GRPC_VERBOSITY", "NONE", 0);  // what gRPC would say beside the error
    absl::StatusOr<Connection> connection = FindConnection(flags.connection, flags.context);
    if (!connection.ok()) return PrintError(connection.status());
    absl::StatusOr<std::string> token = UseConnection(*connection);
    if (!token.ok()) return PrintError(token.status());
    ControllerClient client(connection->server, *token, TrustedAuthority(*connection));
    WarnOfSkew(client);
    return call(client);
  };
}

}  // namespace

CLI::App* Command(CLI::App& app, Flags& flags, const std::string& name, const std::string& help,
                  std::function<int()> run) {
  CLI::App* command = app.add_subcommand(name, help);
  command->callback([&flags, run = std::move(run)] { flags.run = run; });
  return command;
}

void AddConnection(CLI::App* command, Flags& flags) {
  command->add_option("--server", flags.connection.server, "host:port of the controller, several with commas; default: of rein up");
  command->add_option("--context", flags.context, "A remembered server (rein context list)");
  command->add_option("--tls", flags.connection.tls, "Folder with your ca.crt, tls.crt and tls.key");
  command->add_option("--ca", flags.connection.ca, "The server's authority, for a user with a token");
  command->add_option("--token-file", flags.connection.token_file, "File with your token");
}

CLI::App* ControllerCommand(CLI::App& app, Flags& flags, const std::string& name,
                            const std::string& help, std::function<int(ControllerClient&)> call) {
  CLI::App* command = Command(app, flags, name, help, WithController(flags, std::move(call)));
  AddConnection(command, flags);
  return command;
}

void AddFormat(CLI::App* command, Flags& flags) {
  const std::map<std::string, Format> formats = {{"table", Format::kTable},
                                                 {"json", Format::kJson},
                                                 {"yaml", Format::kYaml},
                                                 {"name", Format::kName}};
  command->add_option("-o,--output", flags.format, "table, json, yaml or name")
      ->transform(CLI::Transformer(formats))
      ->option_text("FORMAT");
}

}  // namespace rein::cli
