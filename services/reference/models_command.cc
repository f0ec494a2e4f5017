#include "services/reference/models_command.h"

#include <iostream>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "common/models/folder_report.h"
#include "common/tensor/catch_torch.h"
#include "services/role/one_shot.h"

namespace rein::services {
namespace {

using nlohmann::ordered_json;
using Report = std::function<absl::StatusOr<ordered_json>()>;

absl::Status Print(const Report& report) {
  absl::StatusOr<ordered_json> made = ordered_json();
  absl::Status status = tensor::CatchTorch("models", [&] { made = report(); });
  if (status.ok()) status = made.status();
  if (!status.ok()) return status;
  std::cout << made->dump(2) << std::endl;
  if (!made->is_object() || !made->contains("different")) return absl::OkStatus();
  for (const char* key : {"only_in_first", "only_in_second", "different"}) {
    if (!(*made)[key].empty()) return absl::UnknownError("the folders differ");
  }
  return absl::OkStatus();
}

}  // namespace

int ModelsCommand(int argc, char** argv) {
  CLI::App app("Model families and folders", "rein-reference models");
  app.require_subcommand(1);
  std::string first, second;
  Report report;
  auto add = [&](const char* name, const char* help, int paths, Report run) {
    CLI::App* command = app.add_subcommand(name, help);
    if (paths > 0) command->add_option("path", first, "Model folder")->required();
    if (paths > 1) command->add_option("other", second, "Another one")->required();
    command->callback([&report, run = std::move(run)] { report = run; });
  };
  add("list", "Families that are supported", 0,
      [] { return absl::StatusOr<ordered_json>(models::ListFamilies()); });
  add("inspect", "Structure, parameters and bytes", 1, [&] { return models::InspectFolder(first); });
  add("verify", "Whether all tensors fit config.json and are finite; their digest", 1,
      [&] { return models::VerifyFolder(first); });
  add("diff", "Which tensors of two folders differ, and by how much", 2,
      [&] { return models::DiffFolders(first, second); });
  return RunOneShot(app, argc, argv, [&report] { return Print(report); });
}

}  // namespace rein::services
