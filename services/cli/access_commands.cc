#include "services/cli/access_commands.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include <sys/stat.h>

#include "common/access/audit_log.h"
#include "common/access/user_tokens.h"
#include "common/status/status_macros.h"
#include "services/cli/certificates.h"
#include "services/cli/exit_code.h"
#include "services/cli/output.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

constexpr absl::Duration kDay = absl::Hours(24);
constexpr const char* kRoles[] = {"controller", "trainer", "rollout", "reference", "reward"};

absl::StatusOr<Subject> ParseUser(const std::string& text) {
  std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() < 2 || parts.size() > 3 || parts[0].empty() || parts[0].find('/') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("--user wants NAME:ROLE or NAME:ROLE:TENANT, got '", text, "'"));
  }
  REIN_ASSIGN_OR_RETURN(access::UserRole role, access::ParseUserRole(parts[1]));
  const std::string& tenant = parts.size() == 3 ? parts[2] : parts[0];
  return Subject{.folder = "user/" + parts[0], .uri = access::UserUri(tenant, parts[0], role)};
}

absl::Status MakeAll(const CertificateFlags& flags) {
  std::vector<Subject> subjects;
  for (const char* role : kRoles) {
    Subject subject{.folder = role, .uri = access::ServiceUri(role), .hosts = flags.hosts};
    if (const std::string& ns = flags.kubernetes; !ns.empty()) {
      // The Service, its pods, and the pods of a JobSet named rein.
      for (const std::string& host : {absl::StrCat(role, ".", ns, ".svc"), absl::StrCat("*.", role, ".", ns, ".svc"),
                                      absl::StrCat("*.rein.", ns, ".svc")}) {
        subject.hosts.push_back(host);
      }
    }
    subjects.push_back(std::move(subject));
  }
  std::vector<std::string> users = flags.users;
  if (std::none_of(users.begin(), users.end(), [](const auto& user) { return user.rfind("admin:", 0) == 0; })) {
    users.push_back("admin:admin");  // what rein itself comes as on this machine
  }
  for (const std::string& user : users) {
    REIN_ASSIGN_OR_RETURN(Subject subject, ParseUser(user));
    subjects.push_back(std::move(subject));
  }
  const absl::Time now = absl::Now();
  REIN_RETURN_IF_ERROR(MakeAuthority(flags.folder, 10 * flags.days * kDay, now));
  for (const Subject& subject : subjects) {
    REIN_RETURN_IF_ERROR(MakeCertificate(flags.folder, subject, flags.days * kDay, now));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<access::UserToken>> ReadTokens(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  absl::StatusOr<std::vector<access::UserToken>> tokens = access::ParseUserTokens(text.str());
  if (tokens.ok()) return tokens;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::string(tokens.status().message())));
}

absl::Status WriteTokens(const std::string& path, const std::vector<access::UserToken>& tokens) {
  const std::string temporary = path + ".new";
  const mode_t before = umask(0077);
  std::ofstream(temporary, std::ios::binary) << access::FormatUserTokens(tokens);
  umask(before);
  if (std::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

int Finish(const absl::Status& status, const std::string& text) {
  if (!status.ok()) return PrintError(status);
  Print(text);
  return kExitOk;
}

}  // namespace

int RunCertsInit(const CertificateFlags& flags) {
  absl::Status made = MakeAll(flags);
  if (!made.ok()) return PrintError(made);
  Print(absl::StrCat("certificates for ", flags.days, " days in ", flags.folder, "\n"));
  Hint(absl::StrCat("  rein up --tls ", flags.folder, " --listen 0.0.0.0:7000 --admin 0.0.0.0:7080     services open to others\n"
                    "  rein certs secrets --dir ", flags.folder, " | kubectl apply -n rein -f -          Secrets of the manifests\n"
                    "  run this again to renew: services read new files by themselves\n"
                    "  ", flags.folder, "/ca.key signs for everybody: keep it off the machines\n"));
  return kExitOk;
}

int RunCertsSecrets(const std::string& folder) {
  std::string yaml;
  absl::Status read = PrintSecrets(folder, yaml);
  return Finish(read, yaml);
}

int RunTokenAdd(const TokenFlags& flags) {
  absl::StatusOr<access::UserRole> role = access::ParseUserRole(flags.role);
  if (!role.ok()) return PrintError(role.status());
  absl::StatusOr<std::vector<access::UserToken>> tokens = ReadTokens(flags.file);
  if (!tokens.ok()) return PrintError(tokens.status());
  const std::string token = access::NewToken();
  tokens->push_back({.user = flags.user,
                     .tenant = flags.tenant.empty() ? flags.user : flags.tenant,
                     .role = *role,
                     .sha256 = access::DigestOf(token),
                     .expires = absl::Now() + flags.days * kDay});
  Hint("only its digest is kept: this is the one time that it is shown\n");
  return Finish(WriteTokens(flags.file, *tokens), token + "\n");
}

int RunTokenList(const TokenFlags& flags) {
  absl::StatusOr<std::vector<access::UserToken>> tokens = ReadTokens(flags.file);
  if (!tokens.ok()) return PrintError(tokens.status());
  std::vector<std::vector<std::string>> rows = {{"USER", "TENANT", "ROLE", "EXPIRES"}};
  for (const access::UserToken& token : *tokens) {
    rows.push_back({token.user, token.tenant, access::NameOf(token.role),
                    token.expires == absl::InfiniteFuture()
                        ? "never"
                        : absl::FormatTime("%Y-%m-%d", token.expires, absl::UTCTimeZone()) +
                              (token.expires <= absl::Now() ? " (over)" : "")});
  }
  Print(Table(rows));
  return kExitOk;
}

int RunTokenRevoke(const TokenFlags& flags) {
  absl::StatusOr<std::vector<access::UserToken>> tokens = ReadTokens(flags.file);
  if (!tokens.ok()) return PrintError(tokens.status());
  const size_t gone = std::erase_if(*tokens, [&](const auto& token) { return token.user == flags.user; });
  if (gone == 0) return PrintError(absl::NotFoundError(absl::StrCat("no token of ", flags.user, " in ", flags.file)));
  return Finish(WriteTokens(flags.file, *tokens), absl::StrCat(flags.user, "  ", gone, gone == 1 ? " token" : " tokens", " revoked\n"));
}

int RunContextList() {
  absl::StatusOr<Contexts> contexts = ReadContexts();
  if (!contexts.ok()) return PrintError(contexts.status());
  std::vector<std::vector<std::string>> rows = {{"", "NAME", "SERVER", "SECURED BY"}};
  rows.push_back({contexts->current.empty() ? "*" : "", "local", "of rein up", ""});
  for (const auto& [name, connection] : contexts->known) {
    rows.push_back({name == contexts->current ? "*" : "", name, connection.server,
                    !connection.tls.empty() ? "certificate" : connection.ca.empty() ? "" : "token"});
  }
  Print(Table(rows));
  return kExitOk;
}

int RunContextUse(const std::string& name) {
  absl::StatusOr<Contexts> contexts = ReadContexts();
  if (!contexts.ok()) return PrintError(contexts.status());
  if (name != "local" && contexts->known.count(name) == 0) {
    return PrintError(absl::NotFoundError(absl::StrCat("no context ", name, "; rein context set ", name, " makes it")));
  }
  contexts->current = name == "local" ? "" : name;
  return Finish(WriteContexts(*contexts), absl::StrCat(name, " is in use\n"));
}

int RunContextSet(const std::string& name, const Connection& connection) {
  absl::StatusOr<Contexts> contexts = ReadContexts();
  if (!contexts.ok()) return PrintError(contexts.status());
  if (name == "local") return PrintError(absl::InvalidArgumentError("local is the one of rein up"));
  Connection& known = contexts->known[name];
  for (auto member : {&Connection::server, &Connection::tls, &Connection::ca, &Connection::token_file}) {
    if ((connection.*member).empty()) continue;
    const bool path = member != &Connection::server;
    known.*member = path ? std::filesystem::absolute(connection.*member).string() : connection.*member;
  }
  if (known.server.empty()) return PrintError(absl::InvalidArgumentError("a new context wants --server HOST:PORT"));
  return Finish(WriteContexts(*contexts), absl::StrCat(name, " is remembered\n"));
}

int RunContextDelete(const std::string& name) {
  absl::StatusOr<Contexts> contexts = ReadContexts();
  if (!contexts.ok()) return PrintError(contexts.status());
  if (contexts->known.erase(name) == 0) return PrintError(absl::NotFoundError(absl::StrCat("no context ", name)));
  if (contexts->current == name) contexts->current.clear();
  return Finish(WriteContexts(*contexts), absl::StrCat(name, " is forgotten\n"));
}

int RunAuditVerify(const std::string& file) {
  absl::StatusOr<access::AuditSummary> summary = access::VerifyAuditLog(file);
  if (!summary.ok()) return PrintError(summary.status());
  Print(absl::StrCat(file, "  ", summary->lines, " lines hold together\nhead  ", summary->head, "\n"));
  return kExitOk;
}

}  // namespace rein::cli
