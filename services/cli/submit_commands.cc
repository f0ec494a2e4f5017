#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "absl/strings/str_cat.h"

#include "common/config/explain.h"
#include "common/config/job_reader.h"
#include "common/config/yaml_writer.h"
#include "common/status/status_macros.h"
#include "services/cli/connection.h"
#include "services/cli/exit_code.h"
#include "services/cli/job_commands.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

struct JobFile {
  std::string yaml;
  std::string name;    // for messages
  std::string folder;  // where its relative paths start
  std::vector<std::string> overrides;
};

absl::StatusOr<JobFile> ReadJobFile(const SubmitFlags& flags) {
  JobFile job{.overrides = flags.overrides};
  if (!flags.name.empty()) job.overrides.push_back(absl::StrCat("name=", flags.name));
  if (flags.file == "-") {
    job.yaml.assign(std::istreambuf_iterator<char>(std::cin), {});
    job.name = "standard input";
    job.folder = fs::current_path().string();
    return job;
  }
  std::ifstream in(flags.file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  std::error_code error;
  if (!in || fs::is_directory(flags.file, error)) {
    return absl::NotFoundError(absl::StrCat("cannot read ", flags.file));
  }
  job.yaml = text.str();
  job.name = fs::path(flags.file).filename().string();
  job.folder = fs::absolute(flags.file, error).parent_path().string();
  return job;
}

v1::SubmitRequest RequestOf(const JobFile& file) {
  v1::SubmitRequest request;
  request.set_yaml(file.yaml);
  request.set_file_name(file.name);
  request.mutable_overrides()->Add(file.overrides.begin(), file.overrides.end());
  request.set_base_folder(file.folder);
  return request;
}

// Has the controller, if one can be found, open the data, the tokenizer and the job that a model comes
// from. UNAVAILABLE when there is none.
absl::Status CheckByController(const absl::StatusOr<Connection>& connection, const JobFile& file) {
  if (!connection.ok()) return absl::UnavailableError(connection.status().message());
  REIN_ASSIGN_OR_RETURN(std::string token, UseConnection(*connection));
  v1::SubmitRequest request = RequestOf(file);
  request.set_request_id(RandomRequestId());
  request.set_validate_only(true);
  return ControllerClient(connection->server, token).Submit(request).status();
}

int PrintProblems(const absl::Status& status, bool submitting) {
  std::string text(status.message());
  size_t first_end = text.find('\n');
  bool report = absl::IsInvalidArgument(status) && text.find(" problem") < first_end;
  if (report && submitting)
    text.insert(std::min(first_end, text.size()), "; nothing was submitted");
  return PrintError(absl::Status(status.code(), text));
}

}  // namespace

int RunSubmit(ControllerClient& client, const SubmitFlags& flags, Format format) {
  absl::StatusOr<JobFile> file = ReadJobFile(flags);
  if (!file.ok()) return PrintError(file.status());
  v1::SubmitRequest request = RequestOf(*file);
  request.set_request_id(flags.request_id.empty() ? RandomRequestId() : flags.request_id);
  request.set_validate_only(flags.validate_only);
  absl::StatusOr<v1::SubmitReply> reply = client.Submit(request);
  if (!reply.ok()) return PrintProblems(reply.status(), true);
  const std::string& name = reply->job().name();
  if (format == Format::kJson) Print(ToJson(reply->job()));
  if (format == Format::kYaml) Print(ToYamlText(reply->job()));
  if (format == Format::kName) Print(name + "\n");
  if (format == Format::kTable && flags.validate_only) Print(reply->job().config_yaml());
  if (format == Format::kTable && !flags.validate_only) {
    Print(absl::StrCat("submitted ", name, "\n"));
    Hint(absl::StrCat("  rein watch ", name, "     rein describe ", name, "     rein rollouts ",
                      name, "\n"));
  }
  if (!flags.wait || flags.validate_only) return kExitOk;
  return RunWatch(client, name, format);
}

int RunValidate(const absl::StatusOr<Connection>& connection, const SubmitFlags& flags, Format format) {
  absl::StatusOr<JobFile> file = ReadJobFile(flags);
  if (!file.ok()) return PrintError(file.status());
  absl::StatusOr<v1::JobConfig> job = config::ReadJob({.yaml = file->yaml,
                                                       .file_name = file->name,
                                                       .overrides = file->overrides,
                                                       .folder = file->folder});
  if (!job.ok()) return PrintProblems(job.status(), false);
  absl::Status checked = CheckByController(connection, *file);
  const bool unseen = absl::IsUnavailable(checked);
  if (!checked.ok() && !unseen) return PrintProblems(checked, false);
  if (format == Format::kJson) {
    Print(ToJson(*job));
  } else if (format == Format::kName) {
    Print(job->name() + "\n");
  } else {
    Print(config::ToYaml(*job));
  }
  if (absl::IsNotFound(connection.status())) return kExitOk;  // only the text was asked for
  Hint(absl::StrCat(file->name, " is valid (", config::HashOf(*job), ")",
                    unseen ? "; its data and tokenizer were not opened: that takes a controller (rein up)" : "",
                    "\n"));
  return kExitOk;
}

int RunExplain(const std::string& key) {
  absl::StatusOr<std::string> text = config::Explain(key);
  if (!text.ok()) return PrintError(text.status());
  Print(*text);
  return kExitOk;
}

}  // namespace rein::cli
