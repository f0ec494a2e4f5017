// PostgresAddress is where a PostgreSQL store is, as a user writes it:
//
//   postgres://rein@db.lab:5432/rein?sslmode=verify-full&sslrootcert=/etc/rein/db-ca.crt
//
// Everything behind it is libpq's: several hosts, a socket's folder as the host, parameters. The password is not
// part of it: it stands in a file (--store-password-file, or PGPASSFILE in the environment).

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace rein::services {

struct PostgresAddress {
  std::string url;  // without a password
  std::string password_file;
  std::string shown;  // user@host:port/name, for people
};

bool IsPostgresUrl(const std::string& url);

// INVALID_ARGUMENT for what libpq does not understand, a URL that holds a password (which is not repeated), and for
// a host that is another machine without sslmode=require or better; the default is verify-full there. NOT_FOUND
// for a password file that cannot be read.
absl::StatusOr<PostgresAddress> ReadPostgresAddress(const std::string& url, const std::string& password_file);

}  // namespace rein::services
