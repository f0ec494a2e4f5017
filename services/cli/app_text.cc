#include "services/cli/app_text.h"

#include <functional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include <CLI/CLI.hpp>

#include "services/cli/exit_code.h"

namespace rein::cli {
namespace {

// One command by the words that lead to it: "" is rein itself, "certs init" a command of a command.
struct Command {
  std::string path;
  const CLI::App* app;
};

void Collect(const CLI::App& app, const std::string& path, std::vector<Command>& commands) {
  commands.push_back({path, &app});
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    Collect(*child, absl::StrCat(path, path.empty() ? "" : " ", child->get_name()), commands);
  }
}

std::vector<Command> AllCommands(const CLI::App& app) {
  std::vector<Command> commands;
  Collect(app, "", commands);
  return commands;
}

std::vector<std::string> FlagsOf(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flags.push_back("-" + name);
  }
  return flags;
}

std::vector<std::string> ChildrenOf(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(child->get_name());
  return names;
}

// What a command's first word without a dash stands for: job names are asked for.
bool TakesJob(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional() && option->get_name(true).find("job") != std::string::npos) return true;
  }
  return false;
}

std::string Bash(const CLI::App& app) {
  std::string cases;
  for (const Command& command : AllCommands(app)) {
    std::vector<std::string> words = ChildrenOf(*command.app);
    for (const std::string& flag : FlagsOf(*command.app)) words.push_back(flag);
    absl::StrAppend(&cases, "    \"", command.path, "\") words=\"", absl::StrJoin(words, " "), "\"; jobs=",
                    TakesJob(*command.app) ? "1" : "", " ;;\n");
  }
  return absl::StrReplaceAll(R"sh(# Completion of rein for bash:  rein completion bash > ~/.local/share/bash-completion/completions/rein
_rein() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} path="" words="" jobs="" word next
  case $previous in
    -f|--file|--token-file|--ca|--tokens|-k|--overlay|--to|--dir|--tls|--state) COMPREPLY=($(compgen -f -- "$current")); return ;;
    -o|--output) COMPREPLY=($(compgen -W "table json yaml name" -- "$current")); return ;;
  esac
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="${path:+$path }$word"
    case $next in
NAMES) path=$next ;;
    esac
  done
  case $path in
CASES  esac
  [ -z "$jobs" ] || [[ $current == -* ]] || words="$words $(rein get jobs -o name 2>/dev/null)"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _rein rein
)sh",
                             {{"CASES", cases}, {"NAMES", [&app] {
                                std::vector<std::string> paths;
                                for (const Command& command : AllCommands(app)) {
                                  if (!command.path.empty()) paths.push_back(absl::StrCat("\"", command.path, "\""));
                                }
                                return absl::StrCat("      ", absl::StrJoin(paths, "|"));
                              }()}});
}

std::string Quoted(const std::string& text) { return absl::StrReplaceAll(text, {{"'", "'\\''"}}); }

std::string Fish(const CLI::App& app) {
  std::string text = "# Completion of rein for fish:  rein completion fish > ~/.config/fish/completions/rein.fish\ncomplete -c rein -f\n";
  for (const Command& command : AllCommands(app)) {
    const std::vector<std::string> children = ChildrenOf(*command.app);
    std::string here = command.path.empty() ? "__fish_use_subcommand"
                                            : absl::StrCat("__fish_seen_subcommand_from ", command.app->get_name());
    if (!children.empty() && !command.path.empty()) {
      absl::StrAppend(&here, "; and not __fish_seen_subcommand_from ", absl::StrJoin(children, " "));
    }
    for (const CLI::App* child : command.app->get_subcommands([](const CLI::App*) { return true; })) {
      absl::StrAppend(&text, "complete -c rein -n '", here, "' -a ", child->get_name(), " -d '", Quoted(child->get_description()), "'\n");
    }
    for (const CLI::Option* option : command.app->get_options()) {
      if (option->get_lnames().empty()) continue;
      absl::StrAppend(&text, "complete -c rein -n '", here, "' -l ", option->get_lnames()[0],
                      option->get_snames().empty() ? "" : " -s " + option->get_snames()[0],
                      option->get_type_size() > 0 ? " -r -F" : "", " -d '", Quoted(option->get_description()), "'\n");
    }
    if (TakesJob(*command.app)) {
      absl::StrAppend(&text, "complete -c rein -n '", here, "' -a '(rein get jobs -o name 2>/dev/null)'\n");
    }
  }
  return text;
}

// zsh runs the script of bash.
std::string Zsh(const CLI::App& app) {
  return absl::StrCat("#compdef rein\n# Completion of rein for zsh:  rein completion zsh > ~/.zsh/completions/_rein\n"
                      "autoload -U +X bashcompinit && bashcompinit\n", Bash(app));
}

std::string Roff(const std::string& text) {
  std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
  if (!escaped.empty() && (escaped[0] == '.' || escaped[0] == '\'')) escaped.insert(0, "\\&");
  return escaped;
}

std::string ManualPage(const Command& command) {
  const std::string name = command.path.empty() ? "rein" : absl::StrCat("rein ", command.path);
  std::string page = absl::StrCat(".TH \"", absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{" ", "-"}})),
                                  "\" 1 \"\" \"Rein\" \"User commands\"\n.SH NAME\n", Roff(absl::StrReplaceAll(name, {{" ", "-"}})), " \\- ",
                                  Roff(command.app->get_description()), "\n.SH SYNOPSIS\n.B ", Roff(name), "\n");
  for (const CLI::Option* option : command.app->get_options()) {
    if (option->get_positional()) absl::StrAppend(&page, "[", Roff(absl::AsciiStrToUpper(option->get_name(true))), "]\n");
  }
  page += "[options]\n";
  const auto children = command.app->get_subcommands([](const CLI::App*) { return true; });
  if (!children.empty()) page += ".SH COMMANDS\n";
  for (const CLI::App* child : children) {
    absl::StrAppend(&page, ".TP\n.B ", Roff(child->get_name()), "\n", Roff(child->get_description()), "\n");
  }
  page += ".SH OPTIONS\n";
  for (const CLI::Option* option : command.app->get_options()) {
    const std::string title = option->get_positional() ? absl::AsciiStrToUpper(option->get_name(true)) : option->get_name(false, true);
    absl::StrAppend(&page, ".TP\n.B ", Roff(title), "\n", Roff(option->get_description()));
    if (!option->get_default_str().empty()) absl::StrAppend(&page, " Default: ", Roff(option->get_default_str()), ".");
    page += "\n";
  }
  if (!command.path.empty()) return absl::StrCat(page, ".SH SEE ALSO\n.BR rein (1)\n");
  absl::StrAppend(&page, ".SH EXIT STATUS\n");
  const std::pair<int, const char*> codes[] = {
      {kExitOk, "done"}, {kExitFailed, "the operation, or the job that was waited for, failed"}, {kExitUsage, "wrong flags"},
      {kExitInvalid, "wrong input: do not try again"}, {kExitNotFound, "not found"}, {kExitConflict, "exists already, or not possible in this state"},
      {kExitForbidden, "who asks is not known, or may not"}, {kExitUnavailable, "no server, or it was too slow"},
      {kExitCancelled, "the job that was waited for was cancelled"}, {kExitTimeout, "wait: the time is over"}, {130, "Ctrl-C"}};
  for (const auto& [code, meaning] : codes) absl::StrAppend(&page, ".TP\n.B ", code, "\n", Roff(meaning), "\n");
  return absl::StrCat(page, ".SH ENVIRONMENT\nREIN_SERVER, REIN_TLS, REIN_CA, REIN_TOKEN_FILE, REIN_CONTEXT: as the flags of these names. "
                            "REIN_HOME: state of rein up.\n");
}

}  // namespace

absl::StatusOr<std::string> CompletionScript(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return Bash(app);
  if (shell == "zsh") return Zsh(app);
  if (shell == "fish") return Fish(app);
  return absl::InvalidArgumentError(absl::StrCat("a shell is bash, zsh or fish, got '", shell, "'"));
}

std::map<std::string, std::string> ManualPages(const CLI::App& app) {
  std::map<std::string, std::string> pages;
  for (const Command& command : AllCommands(app)) {
    const std::string name = command.path.empty() ? "rein" : absl::StrCat("rein-", absl::StrReplaceAll(command.path, {{" ", "-"}}));
    pages[name + ".1"] = ManualPage(command);
  }
  return pages;
}

}  // namespace rein::cli
