// The commands about who may come in: certificates, tokens, remembered servers, the audit log. Each prints
// its result and returns the exit code.

#pragma once

#include <string>
#include <vector>

#include "services/cli/connection.h"

namespace rein::cli {

struct CertificateFlags {
  std::string folder = "certs";
  std::vector<std::string> hosts;
  std::string kubernetes;          // namespace; empty: none
  std::vector<std::string> users;  // NAME:ROLE[:TENANT]
  int days = 90;
};

int RunCertsInit(const CertificateFlags& flags);
int RunCertsSecrets(const std::string& folder);

struct TokenFlags {
  std::string file, user, tenant;
  std::string role = "submitter";
  int days = 90;
};

int RunTokenAdd(const TokenFlags& flags);
int RunTokenList(const TokenFlags& flags);
int RunTokenRevoke(const TokenFlags& flags);

int RunContextList();
int RunContextUse(const std::string& name);
int RunContextSet(const std::string& name, const Connection& connection);
int RunContextDelete(const std::string& name);

int RunAuditVerify(const std::string& file);

}  // namespace rein::cli
