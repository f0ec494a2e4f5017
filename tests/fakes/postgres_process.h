// PostgresProcess is a real PostgreSQL server for tests (postgres_server.py); it ends with the object.
//
//   PostgresProcess* server = PostgresProcess::OfThisTest();   // one for all tests of a program
//   if (server == nullptr) GTEST_SKIP() << PostgresProcess::why_not();

#pragma once

#include <cstdio>
#include <string>

#include "services/controller/postgres_address.h"

namespace rein::fakes {

class PostgresProcess {
 public:
  // Null where no server is installed; why_not() says so.
  static PostgresProcess* OfThisTest();
  static const std::string& why_not();
  ~PostgresProcess();

  // Of a database that nobody used before, by a trusted socket.
  services::PostgresAddress NewDatabase();
  const std::string& tcp_url() const { return tcp_url_; }
  const std::string& password_file() const { return password_file_; }

  // Of the database that NewDatabase() made last; "a|b;c|d" are two rows.
  std::string Sql(const std::string& statement);
  void Kill() { Ask("kill"); }  // as a crash would
  void Start() { Ask("start"); }

 private:
  PostgresProcess() = default;
  bool Run(std::string& why_not);
  std::string Ask(const std::string& line);
  std::string ReadLine();

  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
  int pid_ = -1;
  int databases_ = 0;
  std::string url_, tcp_url_, password_file_;
};

}  // namespace rein::fakes
