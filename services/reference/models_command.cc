#include "services/reference/models_command.h"

#include <filesystem>
#include <iostream>
#include <string>

#include <ATen/ATen.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "common/checkpoint/model_source.h"
#include "common/models/estimate.h"
#include "common/models/folder_report.h"
#include "common/models/gguf_folder.h"
#include "common/models/lora.h"
#include "common/models/upcycle.h"
#include "common/status/status_macros.h"
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

// Writes the folder of an adapter and its base as one model.
absl::StatusOr<ordered_json> Merge(const std::string& folder, const std::string& to) {
  if (std::filesystem::exists(to)) return absl::AlreadyExistsError(to + " is there already");
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(folder));
  if (source.adapter.empty()) return absl::InvalidArgumentError(folder + ": is no adapter folder: it has no adapter_config.json");
  REIN_ASSIGN_OR_RETURN(models::ModelDescription model, models::DescribeModel(folder));
  REIN_ASSIGN_OR_RETURN(weights::Registry registry, weights::Registry::Create(models::DecoderParameters(model.spec)));
  const bool bf16 = nlohmann::json::parse(model.config_json).value("torch_dtype", "") == "bfloat16" ||
                    nlohmann::json::parse(model.config_json).value("dtype", "") == "bfloat16";
  at::Tensor arena = at::zeros({registry.arena_elements()}, at::kFloat);
  REIN_RETURN_IF_ERROR(models::LoadWeights(folder, model, registry, arena));
  REIN_ASSIGN_OR_RETURN(models::MergedModel merged, models::Merge(model, registry, models::PartsOf(registry, arena)));
  REIN_RETURN_IF_ERROR(models::SaveModelFolder(to, merged.model, merged.registry,
                                               bf16 ? merged.arena.to(at::kBFloat16) : merged.arena, source.text));
  return ordered_json{{"folder", to}, {"base", model.base}, {"matrices", model.spec.lora.size()},
                      {"dtype", bf16 ? "bfloat16" : "float32"}};
}

void AddMerge(CLI::App& app, std::string* from, std::string* to, Report* report) {
  CLI::App* command = app.add_subcommand("merge", "Add an adapter's updates to its base: one whole folder");
  command->add_option("path", *from, "PEFT adapter folder")->required();
  command->add_option("--to", *to, "The folder to make")->required();
  command->callback([=] { *report = [=] { return Merge(*from, *to); }; });
}

void AddUpcycle(CLI::App& app, std::string* from, std::string* to, models::UpcycleChoice* choice, Report* report) {
  CLI::App* command = app.add_subcommand("upcycle", "Make a mixture of experts of a dense model, which computes the same");
  command->add_option("path", *from, "Folder of a Llama, Mistral or Qwen3")->required();
  command->add_option("--to", *to, "The folder to make")->required();
  command->add_option("--experts", choice->experts, "Experts of each layer")->capture_default_str();
  command->add_option("--chosen", choice->chosen, "Experts of a token")->capture_default_str();
  command->add_option("--seed", choice->seed, "Of the routers' first weights")->capture_default_str();
  command->callback([=] { *report = [=] { return models::Upcycle(*from, *to, *choice); }; });
}

void AddGguf(CLI::App& app, std::string* from, std::string* to, std::string* dtype, bool* no_tokenizer, Report* report) {
  CLI::App* in = app.add_subcommand("import", "Make a folder of a GGUF file");
  in->add_option("file", *from, "Of a Llama, Qwen2 or Qwen3; F32, F16, BF16, Q8_0, Q4_0 or Q4_1")->required();
  in->add_option("--to", *to, "The folder to make")->required();
  in->callback([=] { *report = [=] { return models::ImportGguf(*from, *to); }; });
  CLI::App* out = app.add_subcommand("export", "Write a folder as a GGUF file, for llama.cpp");
  out->add_option("path", *from, "Folder of a Llama, Qwen2 or Qwen3")->required();
  out->add_option("--to", *to, "The file to write")->required();
  out->add_option("--dtype", *dtype, "Of its matrices")->check(CLI::IsMember({"f32", "f16", "bf16"}))->capture_default_str();
  out->add_flag("--no-tokenizer", *no_tokenizer, "Without the vocabulary");
  out->callback([=] { *report = [=] { return models::ExportGguf(*from, *to, *dtype, !*no_tokenizer); }; });
}

void AddEstimate(CLI::App& app, std::string* path, models::EstimateChoice* choice, models::LoraChoice* lora, Report* report) {
  CLI::App* command = app.add_subcommand("estimate", "Bytes, GPUs and tokens/s that a job would need");
  command->add_option("path", *path, "Model folder, or its config.json")->required();
  command->add_option("--job", choice->job, "What it does")
      ->check(CLI::IsMember({"pretrain", "sft", "dpo", "rl", "evaluate"}))
      ->capture_default_str();
  command->add_option("--length", choice->length, "Tokens of a sequence; default: 4096, or the context");
  command->add_option("--sequences", choice->sequences, "Generated at once")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command->add_option("--microbatch-tokens", choice->microbatch_tokens, "As trainer.microbatch_tokens")
      ->check(CLI::Range(16, 1 << 26))
      ->capture_default_str();
  command->add_flag("--recompute", choice->recompute, "As trainer.recompute");
  command->add_flag("--reference", choice->reference, "rl: with a KL term, which a reference scores");
  command->add_option("--lora-rank", lora->rank, "Train adapters of this rank")->check(CLI::Range(1, 4096));
  command->add_option("--lora-target", lora->targets, "Of these matrices, with commas")->delimiter(',');
  command->add_option("--base", choice->trained.base, "As model.base: how adapters hold what is beneath them")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, weights::Quantisation>{{"int8", weights::Quantisation::kInt8}, {"nf4", weights::Quantisation::kNf4}}));
  command->add_option("--freeze", choice->trained.freeze, "As model.freeze, with commas")->delimiter(',');
  command->callback([=] {
    if (lora->rank > 0) choice->trained.lora = *lora;
    *report = [=] { return models::EstimateJob(*path, *choice); };
  });
}

}  // namespace

int ModelsCommand(int argc, char** argv) {
  CLI::App app("Model families and folders", "rein models");
  app.require_subcommand(1);
  std::string first, second;
  models::EstimateChoice estimate;
  models::LoraChoice lora;
  models::UpcycleChoice upcycle;
  std::string dtype = "bf16";
  bool no_tokenizer = false;
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
  AddMerge(app, &first, &second, &report);
  AddEstimate(app, &first, &estimate, &lora, &report);
  AddUpcycle(app, &first, &second, &upcycle, &report);
  AddGguf(app, &first, &second, &dtype, &no_tokenizer, &report);
  add("diff", "Which tensors of two folders differ, and by how much", 2,
      [&] { return models::DiffFolders(first, second); });
  return RunOneShot(app, argc, argv, [&report] { return Print(report); });
}

}  // namespace rein::services
