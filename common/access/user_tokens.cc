#include "common/access/user_tokens.h"

#include <cerrno>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <sys/stat.h>

#include "common/status/status_macros.h"

namespace rein::access {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(500);
constexpr size_t kDigestDigits = 64;

std::string TextOf(const nlohmann::json& entry, const char* key) {
  auto found = entry.find(key);
  return found != entry.end() && found->is_string() ? found->get<std::string>() : "";
}

absl::StatusOr<UserToken> ParseEntry(const nlohmann::json& entry) {
  if (!entry.is_object()) return absl::InvalidArgumentError("wants an object");
  UserToken token{.user = TextOf(entry, "user"), .tenant = TextOf(entry, "tenant")};
  if (token.user.empty()) return absl::InvalidArgumentError("has no user");
  if (token.tenant.empty()) token.tenant = token.user;
  REIN_ASSIGN_OR_RETURN(token.role, ParseUserRole(TextOf(entry, "role")));
  token.sha256 = TextOf(entry, "sha256");
  if (token.sha256.size() != kDigestDigits ||
      token.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return absl::InvalidArgumentError("sha256 wants 64 lower-case hexadecimal digits");
  }
  if (!entry.contains("expires")) return token;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, TextOf(entry, "expires"), &token.expires, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("expires: ", error));
  }
  return token;
}

}  // namespace

absl::StatusOr<std::vector<UserToken>> ParseUserTokens(const std::string& text) {
  std::vector<UserToken> tokens;
  if (text.find_first_not_of(" \n\r\t") == std::string::npos) return tokens;
  nlohmann::json file = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!file.is_object() || !file.contains("tokens") || !file["tokens"].is_array()) {
    return absl::InvalidArgumentError("wants {\"tokens\": [...]}");
  }
  for (const nlohmann::json& entry : file["tokens"]) {
    absl::StatusOr<UserToken> token = ParseEntry(entry);
    if (!token.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokens[", tokens.size(), "] ", std::string(token.status().message())));
    }
    tokens.push_back(*std::move(token));
  }
  return tokens;
}

std::string FormatUserTokens(const std::vector<UserToken>& tokens) {
  nlohmann::ordered_json file;
  file["tokens"] = nlohmann::ordered_json::array();
  for (const UserToken& token : tokens) {
    nlohmann::ordered_json entry = {{"user", token.user},
                                    {"tenant", token.tenant},
                                    {"role", NameOf(token.role)},
                                    {"sha256", token.sha256}};
    if (token.expires != absl::InfiniteFuture()) {
      entry["expires"] = absl::FormatTime(absl::RFC3339_sec, token.expires, absl::UTCTimeZone());
    }
    file["tokens"].push_back(entry);
  }
  return file.dump(2) + "\n";
}

std::string NewToken() {
  unsigned char bits[32];
  RAND_bytes(bits, sizeof(bits));
  return absl::StrCat("rein_", absl::BytesToHexString(
                                   absl::string_view(reinterpret_cast<char*>(bits), sizeof(bits))));
}

std::string DigestOf(const std::string& token) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), sizeof(digest)));
}

absl::StatusOr<std::unique_ptr<UserTokens>> UserTokens::Open(std::string path,
                                                             const sync::Clock& clock) {
  auto tokens = std::unique_ptr<UserTokens>(new UserTokens(std::move(path), clock));
  if (!tokens->path_.empty()) REIN_RETURN_IF_ERROR(tokens->Read());
  return tokens;
}

absl::Status UserTokens::Read() {
  struct stat file {};
  if (stat(path_.c_str(), &file) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path_));
  }
  const long long changed = file.st_mtim.tv_sec * 1'000'000'000LL + file.st_mtim.tv_nsec;
  if (changed == changed_) return absl::OkStatus();
  std::ifstream in(path_, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  absl::StatusOr<std::vector<UserToken>> tokens = ParseUserTokens(text.str());
  if (!tokens.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", std::string(tokens.status().message())));
  }
  tokens_ = *std::move(tokens);
  changed_ = changed;
  return absl::OkStatus();
}

absl::StatusOr<Caller> UserTokens::Find(const std::string& token) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!path_.empty() && clock_.Now() - checked_ >= kLookEvery) {
    checked_ = clock_.Now();
    Read().IgnoreError();  // half a file: the next look will find it whole
  }
  const std::string digest = DigestOf(token);
  const UserToken* found = nullptr;
  for (const UserToken& known : tokens_) {
    if (CRYPTO_memcmp(known.sha256.data(), digest.data(), kDigestDigits) == 0) found = &known;
  }
  if (found == nullptr) return absl::UnauthenticatedError("the token is not known");
  if (found->expires <= clock_.Now()) {
    return absl::UnauthenticatedError(
        absl::StrCat("the token of ", found->user, " expired at ",
                     absl::FormatTime(absl::RFC3339_sec, found->expires, absl::UTCTimeZone())));
  }
  Caller caller;
  caller.user = found->user;
  caller.tenant = found->tenant;
  caller.role = found->role;
  return caller;
}

}  // namespace rein::access
