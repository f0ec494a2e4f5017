#include "services/cli/context.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string HomeFolder() {
  std::string home = Environment("REIN_HOME");
  if (!home.empty()) return fs::absolute(home).string();
  return Environment("HOME") + "/.local/share/rein";
}

std::string ContextFile() { return HomeFolder() + "/context.json"; }

absl::StatusOr<Context> ReadContext() {
  std::ifstream in(ContextFile());
  if (!in) return absl::NotFoundError(absl::StrCat("nothing is up (no ", ContextFile(), ")"));
  nlohmann::json json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(ContextFile(), " is damaged: remove it"));
  }
  return Context{.controller = json.value("controller", ""),
                 .admin = json.value("admin", ""),
                 .state = json.value("state", ""),
                 .tls = json.value("tls", ""),
                 .supervisor = json.value("supervisor", 0)};
}

absl::Status WriteContext(const Context& context) {
  std::error_code error;
  fs::create_directories(HomeFolder(), error);
  const std::string temporary = ContextFile() + ".new";
  {
    std::ofstream out(temporary);
    out << nlohmann::ordered_json{{"controller", context.controller},
                                  {"admin", context.admin},
                                  {"state", context.state},
                                  {"tls", context.tls},
                                  {"supervisor", context.supervisor}}
               .dump(2)
        << "\n";
  }
  if (std::rename(temporary.c_str(), ContextFile().c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", ContextFile(), " (REIN_HOME names another folder for it)"));
}

void RemoveContext() {
  std::error_code error;
  fs::remove(ContextFile(), error);
}

}  // namespace rein::cli
