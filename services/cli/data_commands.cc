#include "services/cli/data_commands.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

#include "common/data/megatron_index.h"
#include "services/cli/exit_code.h"
#include "services/cli/output.h"

namespace rein::cli {
namespace {

constexpr absl::Duration kToldEvery = absl::Seconds(2);

double PerSecond(uint64_t count, absl::Duration time) {
  return static_cast<double>(count) / std::max(absl::ToDoubleSeconds(time), 1e-9);
}

}  // namespace

int RunDataBuild(const DataBuildFlags& flags) {
  absl::StatusOr<std::unique_ptr<text::ModelText>> text = text::ModelText::Load(flags.model);
  if (!text.ok()) return PrintError(text.status());
  data::BuildOptions options = flags.options;
  options.append_eod = !flags.no_eod;
  const absl::Time start = absl::Now();
  absl::Time told = start;
  absl::StatusOr<data::BuildReport> report =
      data::BuildCorpus(options, **text, [&](const data::BuildReport& so_far) {
        const absl::Time now = absl::Now();
        if (now - told < kToldEvery) return;
        told = now;
        Hint(absl::StrFormat("%.1f MB, %d documents, %d tokens, %.0f tokens/s\n", so_far.text_bytes / 1e6,
                             so_far.documents, so_far.tokens, PerSecond(so_far.tokens, now - start)));
      });
  if (!report.ok()) return PrintError(report.status());
  const absl::Duration time = absl::Now() - start;
  nlohmann::ordered_json out = {{"index", report->index_files},
                                {"documents", report->documents},
                                {"tokens", report->tokens},
                                {"text_bytes", report->text_bytes},
                                {"skipped", report->skipped},
                                {"kept_shards", report->kept_shards},
                                {"seconds", absl::ToDoubleSeconds(time)},
                                {"tokens_per_second", PerSecond(report->tokens, time)},
                                {"bytes_per_second", PerSecond(report->text_bytes, time)}};
  Print(out.dump(2) + "\n");
  return kExitOk;
}

int RunDataInspect(const std::string& path) {
  absl::StatusOr<std::unique_ptr<data::IndexedTokens>> tokens = data::IndexedTokens::Open(path);
  if (!tokens.ok()) return PrintError(tokens.status());
  uint64_t longest = 0;
  for (uint64_t d = 0, begin = 0; d < (*tokens)->documents(); begin = (*tokens)->EndOf(d++)) {
    longest = std::max(longest, (*tokens)->EndOf(d) - begin);
  }
  nlohmann::ordered_json out = {{"documents", (*tokens)->documents()},
                                {"tokens", (*tokens)->tokens()},
                                {"longest_document", longest}};
  Print(out.dump(2) + "\n");
  return kExitOk;
}

}  // namespace rein::cli
