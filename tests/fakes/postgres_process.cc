#include "tests/fakes/postgres_process.h"

#include <cstdlib>
#include <iostream>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace rein::fakes {
namespace {

std::string& WhyNot() {
  static std::string why_not;
  return why_not;
}

}  // namespace

PostgresProcess* PostgresProcess::OfThisTest() {
  static const std::unique_ptr<PostgresProcess> server = [] {
    auto started = std::unique_ptr<PostgresProcess>(new PostgresProcess());
    if (started->Run(WhyNot())) return started;
    std::cerr << WhyNot() << std::endl;
    return std::unique_ptr<PostgresProcess>();
  }();
  return server.get();
}

const std::string& PostgresProcess::why_not() { return WhyNot(); }

bool PostgresProcess::Run(std::string& why_not) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
  pid_ = fork();
  if (pid_ == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    execlp("python3", "python3", "tests/fakes/postgres_server.py", nullptr);
    _exit(1);
  }
  close(in[0]);
  close(out[1]);
  to_ = fdopen(in[1], "w");
  from_ = fdopen(out[0], "r");
  const std::string line = ReadLine();
  std::vector<std::string> words = absl::StrSplit(line, ' ');
  if (words.size() != 3) {
    why_not = line.empty() ? "tests/fakes/postgres_server.py does not start" : line;
    return false;
  }
  url_ = words[0];
  tcp_url_ = words[1];
  password_file_ = words[2];
  return true;
}

PostgresProcess::~PostgresProcess() {
  if (to_ != nullptr) fclose(to_);
  if (from_ != nullptr) fclose(from_);
  waitpid(pid_, nullptr, 0);
}

std::string PostgresProcess::ReadLine() {
  std::string line;
  for (int c; (c = fgetc(from_)) != EOF && c != '\n';) line += static_cast<char>(c);
  return line;
}

std::string PostgresProcess::Ask(const std::string& line) {
  fputs((line + "\n").c_str(), to_);
  fflush(to_);
  return ReadLine();
}

services::PostgresAddress PostgresProcess::NewDatabase() {
  const std::string schema = absl::StrCat("test", ++databases_);
  Ask("sql public CREATE SCHEMA " + schema);
  return {.url = absl::StrCat(url_, "&options=-csearch_path%3D", schema), .shown = "rein@socket/" + schema};
}

std::string PostgresProcess::Sql(const std::string& statement) {
  return Ask(absl::StrCat("sql test", databases_, " ", statement));
}

}  // namespace rein::fakes
