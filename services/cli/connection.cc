#include "services/cli/connection.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <sys/resource.h>
#include <yaml-cpp/yaml.h>

#include "common/config/nearest_name.h"
#include "common/rpc/address_list.h"
#include "common/rpc/credentials.h"
#include "common/status/status_macros.h"
#include "services/cli/context.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

struct Field {
  const char* key;
  const char* environment;
  std::string Connection::*member;
};

constexpr Field kFields[] = {{"server", "REIN_SERVER", &Connection::server},
                             {"tls", "REIN_TLS", &Connection::tls},
                             {"ca", "REIN_CA", &Connection::ca},
                             {"token_file", "REIN_TOKEN_FILE", &Connection::token_file}};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The first of the servers that is another machine; empty: there is none.
std::string Remote(const std::string& servers) {
  const rpc::AddressList list(servers);
  for (const std::string& server : list.all()) {
    if (!tls::IsLoopback(server)) return server;
  }
  return "";
}

absl::StatusOr<Contexts> Parse(const std::string& path, const YAML::Node& file) {
  Contexts contexts;
  if (file.IsNull()) return contexts;
  if (!file.IsMap()) return absl::InvalidArgumentError(absl::StrCat(path, ": wants keys current and contexts"));
  if (file["current"]) contexts.current = file["current"].as<std::string>();
  for (const auto& entry : file["contexts"]) {
    const std::string name = entry.first.as<std::string>();
    Connection& connection = contexts.known[name];
    for (const auto& setting : entry.second) {
      const std::string key = setting.first.as<std::string>();
      const Field* found = nullptr;
      for (const Field& field : kFields) found = key == field.key ? &field : found;
      if (found == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            path, ": contexts.", name, ".", key, ": no such key; there are server, tls, ca and token_file"));
      }
      connection.*found->member = setting.second.as<std::string>();
    }
  }
  return contexts;
}

}  // namespace

std::string ContextsFile() {
  std::string folder = Environment("XDG_CONFIG_HOME");
  if (folder.empty()) folder = Environment("HOME") + "/.config";
  return folder + "/rein/config.yaml";
}

absl::StatusOr<Contexts> ReadContexts() {
  const std::string path = ContextsFile();
  std::error_code error;
  if (!fs::exists(path, error)) return Contexts();
  try {
    return Parse(path, YAML::LoadFile(path));
  } catch (const YAML::Exception& wrong) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", wrong.what()));
  }
}

absl::Status WriteContexts(const Contexts& contexts) {
  YAML::Node file;
  if (!contexts.current.empty()) file["current"] = contexts.current;
  file["contexts"] = YAML::Node(YAML::NodeType::Map);
  for (const auto& [name, connection] : contexts.known) {
    YAML::Node entry(YAML::NodeType::Map);
    for (const Field& field : kFields) {
      if (!(connection.*field.member).empty()) entry[field.key] = connection.*field.member;
    }
    file["contexts"][name] = entry;
  }
  const std::string path = ContextsFile();
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  YAML::Emitter text;
  text << file;
  std::ofstream(path + ".new") << text.c_str() << "\n";
  if (std::rename((path + ".new").c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

absl::StatusOr<Connection> FindConnection(const Connection& flags, const std::string& name) {
  Connection found = flags;
  for (const Field& field : kFields) {
    if ((found.*field.member).empty()) found.*field.member = Environment(field.environment);
  }
  REIN_ASSIGN_OR_RETURN(Contexts contexts, ReadContexts());
  std::string wanted = name.empty() ? Environment("REIN_CONTEXT") : name;
  if (wanted.empty()) wanted = contexts.current;
  // An address given by hand belongs to no context, and must not be sent a context's token.
  if (!wanted.empty() && (found.server.empty() || !name.empty())) {
    auto context = contexts.known.find(wanted);
    if (context == contexts.known.end()) {
      std::vector<std::string> names;
      for (const auto& [known, unused] : contexts.known) names.push_back(known);
      const std::string nearest = config::NearestName(wanted, names);
      return absl::NotFoundError(absl::StrCat(
          "no context ", wanted, " in ", ContextsFile(),
          !nearest.empty() ? absl::StrCat("; did you mean ", nearest, "?")
                           : names.empty() ? "" : absl::StrCat("; there are ", absl::StrJoin(names, ", "))));
    }
    for (const Field& field : kFields) {
      if ((found.*field.member).empty()) found.*field.member = context->second.*field.member;
    }
  }
  if (!found.server.empty()) return found;
  absl::StatusOr<Context> local = ReadContext();
  if (local.ok()) {
    found.server = local->controller;
    if (found.tls.empty() && found.ca.empty() && !local->tls.empty()) found.tls = local->tls + "/user/admin";
    return found;
  }
  return absl::UnavailableError(absl::StrCat("no server: ", std::string(local.status().message()),
                                             "\n  rein up                  starts one on this machine"
                                             "\n  rein --server HOST:PORT  names one elsewhere"
                                             "\n  rein context set NAME    remembers one"));
}

std::string TrustedAuthority(const Connection& connection) {
  return connection.tls.empty() ? connection.ca : connection.tls + "/ca.crt";
}

absl::StatusOr<std::string> UseConnection(const Connection& connection) {
  if (!connection.tls.empty()) {
    REIN_ASSIGN_OR_RETURN(tls::TlsFolder files, tls::OpenTlsFolder(connection.tls));
    rpc::Credentials::UseForProcess(rpc::Credentials::Tls(files, nullptr, rpc::ClientCertificates::kRequired));
  } else if (!connection.ca.empty()) {
    if (!std::ifstream(connection.ca)) {
      return absl::NotFoundError(absl::StrCat("cannot read the authority ", connection.ca));
    }
    rpc::Credentials::UseForProcess(rpc::Credentials::TrustOnly(connection.ca));
  } else if (std::string remote = Remote(connection.server); !remote.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("server ", remote, " is another machine: give --ca FILE (with --token-file) or --tls FOLDER"));
  }
  if (!connection.tls.empty() || !connection.token_file.empty()) {  // a crash must not write them to a disk
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
  }
  if (connection.token_file.empty()) return "";
  if (connection.tls.empty() && connection.ca.empty()) {
    return absl::InvalidArgumentError("a token is sent over TLS alone: give --ca FILE too");
  }
  std::ifstream in(connection.token_file);
  std::string token;
  if (!std::getline(in, token) || token.empty()) {
    return absl::NotFoundError(absl::StrCat("no token in ", connection.token_file));
  }
  return token;
}

}  // namespace rein::cli
