#include "services/controller/postgres_address.h"

#include <fstream>
#include <map>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <libpq-fe.h>

#include "common/tls/tls_folder.h"

namespace rein::services {
namespace {

// What the URL sets, by libpq's keywords.
absl::StatusOr<std::map<std::string, std::string>> Parse(const std::string& url) {
  char* error = nullptr;
  std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(PQconninfoParse(url.c_str(), &error),
                                                                       &PQconninfoFree);
  if (options == nullptr) {
    PQfreemem(error);  // it may repeat a password
    return absl::InvalidArgumentError(
        "--store: wants postgres://USER@HOST[:PORT]/DATABASE[?PARAMETER=VALUE&...], this is not one");
  }
  std::map<std::string, std::string> set;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) set[option->keyword] = option->val;
  }
  return set;
}

// Another machine can be reached by it: neither a socket's folder nor a loopback address.
bool IsRemote(const std::string& host) {
  return !host.empty() && host[0] != '/' && host[0] != '@' && !tls::IsLoopback(absl::StrCat(host, ":0"));
}

}  // namespace

bool IsPostgresUrl(const std::string& url) {
  return absl::StartsWith(url, "postgres://") || absl::StartsWith(url, "postgresql://");
}

absl::StatusOr<PostgresAddress> ReadPostgresAddress(const std::string& url, const std::string& password_file) {
  absl::StatusOr<std::map<std::string, std::string>> set = Parse(url);
  if (!set.ok()) return set.status();
  for (const char* secret : {"password", "sslpassword"}) {
    if (set->count(secret) == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--store: the URL holds a ", secret, ", which every user of this machine can read: put it into a "
                     "file and give --store-password-file FILE, or PGPASSFILE in the environment"));
  }
  PostgresAddress address{.url = url, .password_file = password_file};
  bool remote = false;
  for (absl::string_view host : absl::StrSplit((*set)["host"], ',')) remote = remote || IsRemote(std::string(host));
  const std::string mode = (*set)["sslmode"];
  if (remote && mode.empty()) {
    absl::StrAppend(&address.url, absl::StrContains(url, '?') ? "&" : "?", "sslmode=verify-full");
  } else if (remote && (mode == "disable" || mode == "allow" || mode == "prefer")) {
    return absl::InvalidArgumentError(absl::StrCat("--store: ", (*set)["host"], " is another machine, and sslmode=",
                                                   mode, " may talk to it in the clear: wants verify-full, verify-ca "
                                                   "or require"));
  }
  if (!password_file.empty()) {
    std::ifstream in(password_file);
    std::string password;
    if (!std::getline(in, password) || password.empty()) {
      return absl::NotFoundError(absl::StrCat("--store-password-file: no password in ", password_file));
    }
  }
  auto part = [&](const char* key, const char* missing) {
    return set->count(key) > 0 ? (*set)[key] : std::string(missing);
  };
  address.shown = absl::StrCat(part("user", "(this user)"), "@", part("host", "(local socket)"), ":", part("port", "5432"),
                               "/", part("dbname", part("user", "").c_str()));
  return address;
}

}  // namespace rein::services
