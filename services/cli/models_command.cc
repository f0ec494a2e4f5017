#include "services/cli/models_command.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "services/cli/exit_code.h"
#include "services/cli/local_command.h"
#include "services/cli/output.h"
#include "services/cli/run_program.h"

namespace rein::cli {
namespace {

std::string Program() { return ProgramFolder() + "/rein-reference"; }

}  // namespace

int RunModels(const std::vector<std::string>& arguments) {
  const std::string program = Program();
  std::vector<std::string> words = {program, "models"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  return PrintError(absl::NotFoundError(absl::StrCat("cannot start ", program, ", which reads model folders: ", std::strerror(errno))));
}

absl::Status MergeAdapter(const std::string& adapter, const std::string& to) {
  REIN_ASSIGN_OR_RETURN(ProgramResult result, RunProgram({Program(), "models", "merge", adapter, "--to", to}, "", /*capture=*/true));
  if (result.exit_code == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("rein models merge ended with exit code ", result.exit_code));
}

}  // namespace rein::cli
