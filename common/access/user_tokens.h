// UserTokens knows users by bearer tokens. The file holds only SHA-256 digests of tokens, which are
// 256 random bits, so that who reads the file learns none:
//
//   {"tokens": [{"user": "ada", "tenant": "maths", "role": "submitter", "sha256": "9f2c...",
//                "expires": "2027-01-01T00:00:00Z"}]}
//
// `rein token add` and `rein token revoke` write it. A change of the file counts within a second.
// Thread-safe.

#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/access/caller.h"
#include "common/sync/clock.h"

namespace rein::access {

struct UserToken {
  std::string user;
  std::string tenant;
  UserRole role = UserRole::kViewer;
  std::string sha256;  // lower-case hexadecimal
  absl::Time expires = absl::InfiniteFuture();
};

// INVALID_ARGUMENT names the entry and what is wrong; an empty file is a list of none.
absl::StatusOr<std::vector<UserToken>> ParseUserTokens(const std::string& text);
std::string FormatUserTokens(const std::vector<UserToken>& tokens);

// "rein_" and 64 hexadecimal digits that nobody can guess.
std::string NewToken();
std::string DigestOf(const std::string& token);

class UserTokens {
 public:
  // `clock` must outlive it. Errors of reading and of ParseUserTokens(). An empty path: no tokens.
  static absl::StatusOr<std::unique_ptr<UserTokens>> Open(std::string path, const sync::Clock& clock);

  // UNAUTHENTICATED for a token that is not known or whose time is over. When the file was changed to
  // something wrong, what was read last counts on.
  absl::StatusOr<Caller> Find(const std::string& token);

 private:
  UserTokens(std::string path, const sync::Clock& clock) : path_(std::move(path)), clock_(clock) {}
  absl::Status Read();

  const std::string path_;
  const sync::Clock& clock_;
  std::mutex mutex_;
  absl::Time checked_ = absl::InfinitePast();
  long long changed_ = 0;  // of the file, in nanoseconds
  std::vector<UserToken> tokens_;
};

}  // namespace rein::access
