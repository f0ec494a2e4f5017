#include "common/config/dataset_schema.h"

#include "absl/strings/str_cat.h"

namespace rein::config {
namespace {

struct Columns {
  const char* prompt;
  const char* answer;
  const char* context;  // empty: none
};

Columns ColumnsOf(v1::DatasetSchema schema) {
  switch (schema) {
    case v1::DATASET_SCHEMA_VERL:
      return {"prompt", "reward_model.ground_truth", ""};
    case v1::DATASET_SCHEMA_TRL:
      return {"prompt", "completion", ""};
    case v1::DATASET_SCHEMA_SHAREGPT:
      return {"conversations", "answer", ""};
    case v1::DATASET_SCHEMA_ALPACA:
      return {"instruction", "output", "input"};
    default:
      return {"messages", "answer", ""};
  }
}

void Apply(const std::string& key, const Places& places, v1::DatasetConfig& dataset) {
  if (!dataset.has_schema()) return;
  const Columns columns = ColumnsOf(dataset.schema());
  auto given = [&](const char* column) { return places.count(absl::StrCat(key, ".", column)) > 0; };
  if (!given("prompt")) dataset.set_prompt(columns.prompt);
  if (!given("answer")) dataset.set_answer(columns.answer);
  if (!given("context") && *columns.context != 0) dataset.set_context(columns.context);
}

}  // namespace

void ApplySchemas(const Places& places, v1::JobConfig& job) {
  if (job.data().has_train()) Apply("data.train", places, *job.mutable_data()->mutable_train());
  if (job.data().has_eval()) Apply("data.eval", places, *job.mutable_data()->mutable_eval());
  for (int i = 0; i < job.eval().datasets_size(); ++i) {
    Apply(absl::StrCat("eval.datasets.", i), places, *job.mutable_eval()->mutable_datasets(i));
  }
}

}  // namespace rein::config
