// What an update costs the trainer's host beside its GPU: the request taken apart, sequences checked, advantages, packing
// and the loss's inputs, the mismatch check. No model runs. Prints one JSON line: milliseconds of each, on one thread.
//
//   host_bench [--rollouts 512] [--tokens 2048] [--prompt 128] [--microbatch 16384]

#include <iostream>
#include <numeric>
#include <random>

#include <ATen/ops/full.h>
#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "absl/time/clock.h"
#include "rein/v1/trainer.pb.h"
#include "services/trainer/sequences_from_proto.h"
#include "trainer/algorithms/from_job.h"
#include "trainer/batching/packing.h"
#include "trainer/mismatch.h"
#include "trainer/packed_targets.h"
#include "trainer/sequence_check.h"
#include "trainer/update_batch.h"

namespace rein::trainer {
namespace {

struct Options {
  int rollouts = 512, tokens = 2048, prompt = 128;
  int64_t microbatch = 16384;
};

constexpr int kGroupSize = 16;
constexpr int64_t kVocabulary = 150'000;

v1::UpdateRequest RequestOf(const Options& options) {
  std::mt19937 random(1);
  v1::UpdateRequest request;
  for (int i = 0; i < options.rollouts; ++i) {
    v1::TrainingSequence* s = request.add_sequences();
    s->set_id("r" + std::to_string(i));
    s->set_group(static_cast<uint32_t>(i / kGroupSize));
    s->set_reward(static_cast<double>(random() % 2));
    s->set_on_policy(true);
    for (int t = 0; t < options.prompt + options.tokens; ++t) {
      const bool is_target = t >= options.prompt;
      s->add_token_ids(is_target ? static_cast<uint32_t>(random() % kVocabulary)
                                 : static_cast<uint32_t>(i / kGroupSize * 1000 + t));
      s->mutable_loss_mask()->push_back(is_target ? 1 : 0);
      if (is_target) s->add_behaviour_logprobs(-1.5f);
    }
  }
  return request;
}

class Stopwatch {
 public:
  void Lap(const std::string& name) {
    const absl::Time now = absl::Now();
    milliseconds_[name] = absl::ToDoubleMilliseconds(now - last_);
    total_ += milliseconds_[name].get<double>();
    last_ = absl::Now();
  }
  nlohmann::ordered_json Report() const {
    nlohmann::ordered_json all = milliseconds_;
    all["total_ms"] = total_;
    return all;
  }

 private:
  absl::Time last_ = absl::Now();
  nlohmann::ordered_json milliseconds_;
  double total_ = 0;
};

int Run(const Options& options) {
  at::set_num_threads(1);
  v1::JobConfig job;
  job.mutable_grpo()->set_updates(1);
  job.mutable_grpo()->set_group_size(kGroupSize);
  auto algorithm = AlgorithmFromJob(job);
  if (!algorithm.ok()) return std::cerr << algorithm.status() << "\n", 1;
  const std::string wire = RequestOf(options).SerializeAsString();

  Stopwatch stopwatch;
  v1::UpdateRequest request;
  if (!request.ParseFromString(wire)) return 1;
  stopwatch.Lap("parse_ms");
  const std::vector<TrainingSequence> sequences = services::SequencesFromProto(request.sequences());
  stopwatch.Lap("sequences_ms");
  absl::Status status = CheckSequences(
      sequences, {.max_length = options.prompt + options.tokens, .vocab_size = kVocabulary}, &*algorithm);
  if (!status.ok()) return std::cerr << status << "\n", 1;
  stopwatch.Lap("check_ms");
  UpdateBatch batch = PrepareBatch(sequences, *algorithm, /*kl_coefficient=*/0);
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  batch.counts = CountTargets(sequences, all, *algorithm);
  const std::vector<size_t> learned = WithSignal(batch, all, *algorithm);
  stopwatch.Lap("advantages_ms");
  std::vector<int64_t> length, shared;
  for (size_t k = 0; k < learned.size(); ++k) {
    length.push_back(static_cast<int64_t>(sequences[learned[k]].token_ids.size()));
    shared.push_back(k > 0 ? SharedTokens(sequences[learned[k - 1]], sequences[learned[k]]) : 0);
  }
  std::vector<std::vector<size_t>> microbatches;
  for (const auto& packed : PackMicrobatches(length, shared, options.microbatch)) {
    auto& members = microbatches.emplace_back();
    for (size_t k : packed) members.push_back(learned[k]);
  }
  std::vector<PackedTargets> packed;
  for (const auto& members : microbatches) packed.push_back(PackTargets(sequences, members));
  stopwatch.Lap("packing_ms");
  for (const auto& members : microbatches) {
    InputsOfLoss(batch, *algorithm, members, at::kCPU);
    LossWeights(batch, *algorithm, members);
  }
  stopwatch.Lap("loss_inputs_ms");
  MismatchSums sums;
  for (size_t m = 0; m < microbatches.size(); ++m) {
    at::Tensor logprob_N = at::full({static_cast<int64_t>(packed[m].target.size())}, -1.5f);
    AddMismatch(logprob_N, packed[m], sequences, microbatches[m], /*promised=*/0, &sums);
  }
  stopwatch.Lap("mismatch_ms");

  nlohmann::ordered_json report{{"bench", "host"},
                                {"rollouts", options.rollouts},
                                {"tokens", options.rollouts * (options.prompt + options.tokens)},
                                {"learned", learned.size()},
                                {"microbatches", microbatches.size()},
                                {"compared", sums.compared}};
  report.update(stopwatch.Report());
  std::cout << report << "\n";
  return sums.beyond == 0 ? 0 : 1;
}

}  // namespace
}  // namespace rein::trainer

int main(int argc, char** argv) {
  rein::trainer::Options options;
  CLI::App app("Measures what an update costs the trainer's host");
  app.add_option("--rollouts", options.rollouts, "Sequences of the update");
  app.add_option("--tokens", options.tokens, "Targets of each");
  app.add_option("--prompt", options.prompt, "Tokens of each prompt, shared by 16 siblings");
  app.add_option("--microbatch", options.microbatch, "Tokens of a microbatch");
  CLI11_PARSE(app, argc, argv);
  return rein::trainer::Run(options);
}
