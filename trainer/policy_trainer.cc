#include "trainer/policy_trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/models/arena.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "common/tensor/memory_check.h"
#include "trainer/batching/packing.h"
#include "trainer/packed_targets.h"
#include "trainer/sequence_check.h"
#include "trainer/update_batch.h"
#include "trainer/update_sums.h"

namespace rein::trainer {

using tensor::CatchTorch;

PolicyTrainer::PolicyTrainer(TrainerSettings settings, Algorithm algorithm,
                             parallel::ProcessGroup& group)
    : settings_(std::move(settings)), algorithm_(std::move(algorithm)), group_(group) {}

absl::StatusOr<std::unique_ptr<PolicyTrainer>> PolicyTrainer::Create(
    TrainerSettings settings, Algorithm algorithm, parallel::ProcessGroup& group) {
  auto trainer = std::unique_ptr<PolicyTrainer>(
      new PolicyTrainer(std::move(settings), std::move(algorithm), group));
  TrainerSettings& s = trainer->settings_;
  REIN_ASSIGN_OR_RETURN(s.dtype, models::ComputeDtype(s.dtype, s.device));
  REIN_ASSIGN_OR_RETURN(trainer->model_, models::DescribeModel(s.model_path));
  const int64_t context = trainer->model_.spec.max_positions;
  if (s.max_length > context) {
    return absl::InvalidArgumentError(absl::StrCat("model.max_length is ", s.max_length,
                                                   ", but the model's context is ", context));
  }
  if (s.max_length == 0) s.max_length = context;
  REIN_ASSIGN_OR_RETURN(trainer->registry_,
                        weights::Registry::Create(models::DecoderParameters(trainer->model_.spec)));
  if (s.device == "cpu") {
    constexpr uint64_t kArenas = 4;  // weights, gradients, two moments
    REIN_RETURN_IF_ERROR(tensor::CheckHostMemory(
        "weights, gradients and optimizer state",
        kArenas * sizeof(float) * static_cast<uint64_t>(trainer->registry_.arena_elements())));
  }
  absl::Status status;
  REIN_RETURN_IF_ERROR(CatchTorch("trainer memory", [&] { status = trainer->Allocate(); }));
  REIN_RETURN_IF_ERROR(status);
  return trainer;
}

absl::Status PolicyTrainer::Allocate() {
  const int64_t size = registry_.arena_elements();
  at::TensorOptions fp32 = at::TensorOptions().device(settings_.device).dtype(at::kFloat);
  const bool narrow = settings_.dtype == "bfloat16";
  compute_ = at::zeros({size}, narrow ? fp32.dtype(at::kBFloat16) : fp32);
  grad_ = at::zeros({size}, fp32);
  at::Tensor whole = narrow ? at::zeros({size}, fp32) : compute_;
  if (settings_.random_weights) {
    models::InitializeWeights(registry_, settings_.seed, whole);
  } else {
    REIN_RETURN_IF_ERROR(models::LoadWeights(settings_.model_path, model_, registry_, whole));
  }
  if (narrow) compute_.copy_(whole);
  optimizer_.slice = registry_.OptimizerSlice(group_.rank(), group_.size());
  const int64_t begin = optimizer_.slice.begin, length = optimizer_.slice.end - begin;
  optimizer_.master = whole.narrow(0, begin, length);  // in fp32 a view of the compute arena
  if (narrow && length < size) optimizer_.master = optimizer_.master.clone();
  optimizer_.moment1 = at::zeros({length}, fp32);
  optimizer_.moment2 = at::zeros({length}, fp32);
  REIN_ASSIGN_OR_RETURN(decoder_, models::Decoder::Create(model_.spec, registry_, compute_, grad_));
  return absl::OkStatus();
}

// Forward, loss and backward of one packed microbatch.
absl::Status PolicyTrainer::Microbatch(const UpdateBatch& batch, const std::vector<size_t>& members,
                                       UpdateSums* sums,
                                       std::vector<std::vector<float>>* logprobs) {
  const PackedTargets packed = PackTargets(batch.sequences, members);
  sums->tokens += static_cast<double>(packed.token.size());
  sums->trained_tokens += static_cast<double>(packed.target.size());
  if (packed.target.empty()) return absl::OkStatus();
  nn::TokenLogprobs out =
      ForwardTargets(*decoder_, packed, algorithm_.temperature, settings_.recompute);
  REIN_RETURN_IF_ERROR(SplitLogprobs(out.logprob_N, packed, batch.sequences, members, logprobs));
  at::Tensor weight_T;
  LossTerms terms = algorithm_.loss(InputsOfLoss(batch, algorithm_, members, out, &weight_T));
  at::Tensor loss = (terms.loss_T * weight_T).sum();
  const double value = loss.item<double>();
  if (!std::isfinite(value)) {
    return absl::AbortedError(absl::StrCat("loss is not finite: ", value,
                                           " in the microbatch that opens with rollout ",
                                           batch.sequences[members[0]].id));
  }
  loss.backward();
  sums->loss += value;
  at::Tensor token_sums = at::stack(terms.token_means).sum(1, false, at::kDouble).to(at::kCPU);
  for (size_t i = 0; i < terms.token_means.size(); ++i) {
    sums->token_sums[i] += token_sums[static_cast<int64_t>(i)].item<double>();
  }
  for (size_t i = 0; i < terms.token_maxima.size(); ++i) {
    sums->maxima[i] = std::max(sums->maxima[i], terms.token_maxima[i].max().item<double>());
  }
  return absl::OkStatus();
}

// The members that this rank works on, in order.
std::vector<size_t> PolicyTrainer::OwnShare(const std::vector<TrainingSequence>& sequences,
                                            const std::vector<size_t>& members) const {
  std::vector<int64_t> length;
  for (size_t i : members) length.push_back(static_cast<int64_t>(sequences[i].token_ids.size()));
  std::vector<size_t> own;
  const auto shares = BalanceOverRanks(length, static_cast<size_t>(group_.size()));
  for (size_t k : shares[static_cast<size_t>(group_.rank())]) own.push_back(members[k]);
  return own;
}

std::vector<std::vector<size_t>> PolicyTrainer::Microbatches(
    const std::vector<TrainingSequence>& sequences, const std::vector<size_t>& members) const {
  std::vector<int64_t> length;
  for (size_t i : members) length.push_back(static_cast<int64_t>(sequences[i].token_ids.size()));
  auto microbatches = PackMicrobatches(length, settings_.microbatch_tokens);
  for (auto& microbatch : microbatches) {
    for (size_t& k : microbatch) k = members[k];
  }
  return microbatches;
}

// Adds this rank's share of a minibatch's gradients.
absl::Status PolicyTrainer::Accumulate(const UpdateBatch& batch,
                                       const std::vector<size_t>& minibatch, UpdateSums* sums,
                                       std::vector<std::vector<float>>* logprobs) {
  for (const auto& members : Microbatches(batch.sequences, OwnShare(batch.sequences, minibatch))) {
    absl::Status status;
    REIN_RETURN_IF_ERROR(CatchTorch("forward and backward",
                                    [&] { status = Microbatch(batch, members, sums, logprobs); }));
    REIN_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

// OK when every rank is; a rank that is well learns here that another is not, so that all give up
// together.
absl::Status PolicyTrainer::Agree(const absl::Status& own) {
  if (group_.size() == 1) return own;
  at::Tensor failed = at::full({1}, own.ok() ? 0.0 : 1.0, at::kDouble);
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(failed));
  if (!own.ok() || failed.item<double>() == 0) return own;
  return absl::AbortedError("another rank of the trainer gave up on this batch");
}

// Every rank holds the log-probs of its own sequences; afterwards all hold all.
absl::Status PolicyTrainer::ShareLogprobs(const std::vector<TrainingSequence>& sequences,
                                          std::vector<std::vector<float>>* logprobs) {
  if (group_.size() == 1) return absl::OkStatus();
  std::vector<float> flat;
  for (size_t i = 0; i < sequences.size(); ++i) {
    std::vector<float> own = (*logprobs)[i];
    own.resize(static_cast<size_t>(sequences[i].targets()),
               0);  // zeros where another rank has them
    flat.insert(flat.end(), own.begin(), own.end());
  }
  at::Tensor sum = at::tensor(flat, at::kFloat);
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(sum));
  const auto* value = sum.const_data_ptr<float>();
  for (size_t i = 0; i < sequences.size(); ++i) {
    (*logprobs)[i].assign(value, value + sequences[i].targets());
    value += sequences[i].targets();
  }
  return absl::OkStatus();
}

// Sums gradients over ranks, clips, steps. Returns the gradient's norm; ABORTED when it is not
// finite, with nothing changed.
absl::StatusOr<double> PolicyTrainer::Step(double learning_rate) {
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(grad_));
  double norm = 0;
  at::NoGradGuard no_grad;
  REIN_RETURN_IF_ERROR(CatchTorch("gradient norm", [&] { norm = std::sqrt(SquaredNorm(grad_)); }));
  if (!std::isfinite(norm)) {
    for (const weights::Parameter& p : registry_.parameters()) {
      if (std::isfinite(SquaredNorm(grad_.narrow(0, p.offset, p.elements)))) continue;
      return absl::AbortedError(
          absl::StrCat("gradient is not finite (first: parameter ", p.spec.name, ")"));
    }
    return absl::AbortedError(absl::StrCat("gradient norm is not finite: ", norm));
  }
  const double scale =
      settings_.max_grad_norm > 0 ? std::min(1.0, settings_.max_grad_norm / (norm + 1e-6)) : 1;
  const auto [begin, end] = optimizer_.slice;
  std::vector<at::Tensor> parts;
  REIN_RETURN_IF_ERROR(CatchTorch("optimizer step", [&] {
    AdamWStep(registry_, settings_.adamw, learning_rate, scale, progress_.optimizer_steps + 1,
              grad_.narrow(0, begin, end - begin), optimizer_);
    at::Tensor own = compute_.narrow(0, begin, end - begin);
    if (!own.is_alias_of(optimizer_.master)) own.copy_(optimizer_.master);
    for (int rank = 0; rank < group_.size(); ++rank) {
      weights::Registry::Slice slice = registry_.OptimizerSlice(rank, group_.size());
      parts.push_back(compute_.narrow(0, slice.begin, slice.end - slice.begin));
    }
    grad_.zero_();
  }));
  REIN_RETURN_IF_ERROR(group_.AllGather(parts[group_.rank()], parts));
  ++progress_.optimizer_steps;
  return norm;
}

absl::StatusOr<UpdateResult> PolicyTrainer::Update(const std::vector<TrainingSequence>& sequences) {
  if (has_gradients_) {
    return absl::FailedPreconditionError(
        "Update: gradients of ForwardBackward are waiting; call OptimStep first");
  }
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), &algorithm_));
  UpdateBatch batch = PrepareBatch(sequences, algorithm_, kl_coefficient());
  std::vector<uint32_t> group;
  for (const TrainingSequence& s : sequences) group.push_back(s.group);
  const auto minibatches = SplitByGroup(group, algorithm_.minibatches);
  const size_t steps = minibatches.size() * algorithm_.epochs;
  if (algorithm_.recomputes_old) {
    batch.old_logprobs.resize(sequences.size());
    REIN_RETURN_IF_ERROR(Agree(ScoreShare(sequences, &batch.old_logprobs)));
    REIN_RETURN_IF_ERROR(ShareLogprobs(sequences, &batch.old_logprobs));
  }
  const double learning_rate =
      LearningRate(settings_.schedule, static_cast<int64_t>(progress_.updates) + 1);

  // Several steps must be undone together when a later one fails.
  OptimizerState before;
  at::Tensor compute_before;
  const TrainerProgress progress_before = progress_;
  if (steps > 1) {
    REIN_RETURN_IF_ERROR(CatchTorch("copy of the optimizer's state", [&] {
      before = {optimizer_.slice, optimizer_.master.clone(), optimizer_.moment1.clone(),
                optimizer_.moment2.clone()};
      compute_before = compute_.clone();
    }));
  }
  auto undo = [&](const absl::Status& status) {
    at::NoGradGuard no_grad;
    grad_.zero_();
    if (before.master.defined()) {
      compute_.copy_(compute_before);
      optimizer_.master.copy_(before.master);
      optimizer_.moment1.copy_(before.moment1);
      optimizer_.moment2.copy_(before.moment2);
    }
    progress_ = progress_before;
    return status;
  };

  UpdateSums sums(algorithm_);
  double norm = 0;
  for (size_t step = 0; step < steps; ++step) {
    const std::vector<size_t>& minibatch = minibatches[step % minibatches.size()];
    batch.counts = CountTargets(sequences, minibatch, algorithm_);
    absl::Status status =
        Agree(Accumulate(batch, WithSignal(batch, minibatch, algorithm_), &sums, nullptr));
    if (!status.ok()) return undo(status);
    absl::StatusOr<double> step_norm = Step(learning_rate);
    if (!step_norm.ok()) return undo(step_norm.status());
    norm = std::max(norm, *step_norm);
  }
  REIN_RETURN_IF_ERROR(sums.ReduceOver(group_));
  ++progress_.updates;
  UpdateResult result;
  sums.loss /= static_cast<double>(steps);
  result.metrics = sums.Metrics(algorithm_);
  result.metrics.push_back({"grad_norm", norm});
  result.metrics.push_back({"learning_rate", learning_rate});
  if (algorithm_.kl.target) {
    result.metrics.push_back({"kl_coefficient", batch.kl_coefficient});
    progress_.kl_coefficient = NextKlCoefficientOf(batch, algorithm_);
  }
  result.advantages = batch.MeanAdvantages();
  return result;
}

absl::StatusOr<PassResult> PolicyTrainer::ForwardBackward(
    const std::vector<TrainingSequence>& sequences) {
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), &algorithm_));
  UpdateBatch batch = PrepareBatch(sequences, algorithm_, kl_coefficient());
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  batch.counts = CountTargets(sequences, all, algorithm_);
  at::Tensor before = has_gradients_ ? grad_.clone() : at::Tensor();
  UpdateSums sums(algorithm_);
  PassResult result;
  result.logprobs.resize(sequences.size());
  absl::Status status = Agree(Accumulate(batch, all, &sums, &result.logprobs));
  if (status.ok()) status = sums.ReduceOver(group_);
  if (status.ok()) status = ShareLogprobs(sequences, &result.logprobs);
  if (!status.ok()) {
    before.defined() ? grad_.copy_(before) : grad_.zero_();
    return status;
  }
  has_gradients_ = true;
  result.metrics = sums.Metrics(algorithm_);
  return result;
}

absl::StatusOr<std::vector<Metric>> PolicyTrainer::OptimStep(std::optional<double> learning_rate) {
  if (!has_gradients_) {
    return absl::FailedPreconditionError("OptimStep: no gradients; call ForwardBackward first");
  }
  const double rate = learning_rate.value_or(
      LearningRate(settings_.schedule, static_cast<int64_t>(progress_.updates) + 1));
  absl::StatusOr<double> norm = Step(rate);
  has_gradients_ = false;
  if (!norm.ok()) {
    grad_.zero_();
    return norm.status();
  }
  ++progress_.updates;
  return std::vector<Metric>{{"grad_norm", *norm}, {"learning_rate", rate}};
}

absl::StatusOr<std::vector<std::vector<float>>> PolicyTrainer::Score(
    const std::vector<TrainingSequence>& sequences) {
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), nullptr));
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  std::vector<std::vector<float>> scores(sequences.size());
  REIN_RETURN_IF_ERROR(ScoreMembers(sequences, all, &scores));
  return scores;
}

absl::Status PolicyTrainer::ScoreMembers(const std::vector<TrainingSequence>& sequences,
                                         const std::vector<size_t>& members,
                                         std::vector<std::vector<float>>* scores) const {
  absl::Status status;
  REIN_RETURN_IF_ERROR(CatchTorch("score", [&] {
    at::NoGradGuard no_grad;
    for (const auto& microbatch : Microbatches(sequences, members)) {
      const PackedTargets packed = PackTargets(sequences, microbatch);
      if (packed.target.empty()) continue;
      nn::TokenLogprobs out = ForwardTargets(*decoder_, packed, algorithm_.temperature, false);
      status.Update(SplitLogprobs(out.logprob_N, packed, sequences, microbatch, scores));
    }
  }));
  return status;
}

// Log-probs of this rank's share of the sequences.
absl::Status PolicyTrainer::ScoreShare(const std::vector<TrainingSequence>& sequences,
                                       std::vector<std::vector<float>>* scores) const {
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return ScoreMembers(sequences, OwnShare(sequences, all), scores);
}

absl::StatusOr<at::Tensor> PolicyTrainer::HostWeights() const {
  at::Tensor host;
  REIN_RETURN_IF_ERROR(CatchTorch("copy of weights", [&] { host = compute_.to(at::kCPU); }));
  return host;
}

absl::StatusOr<PolicyTrainer::Arenas> PolicyTrainer::GatherArenas() {
  Arenas arenas;
  for (auto [part, whole] : {std::pair{&optimizer_.master, &arenas.master},
                             {&optimizer_.moment1, &arenas.moment1},
                             {&optimizer_.moment2, &arenas.moment2}}) {
    if (group_.size() == 1) {
      *whole = part->to(at::kCPU);
      continue;
    }
    at::Tensor gathered = at::zeros({registry_.arena_elements()}, part->options());
    std::vector<at::Tensor> parts;
    for (int rank = 0; rank < group_.size(); ++rank) {
      weights::Registry::Slice slice = registry_.OptimizerSlice(rank, group_.size());
      parts.push_back(gathered.narrow(0, slice.begin, slice.end - slice.begin));
    }
    REIN_RETURN_IF_ERROR(group_.AllGather(*part, parts));
    *whole = gathered.to(at::kCPU);
  }
  return arenas;
}

absl::Status PolicyTrainer::RestoreArenas(const Arenas& arenas, const TrainerProgress& progress) {
  REIN_RETURN_IF_ERROR(CatchTorch("restore", [&] {
    at::NoGradGuard no_grad;
    const auto [begin, end] = optimizer_.slice;
    compute_.copy_(arenas.master);
    optimizer_.master.copy_(arenas.master.narrow(0, begin, end - begin));
    optimizer_.moment1.copy_(arenas.moment1.narrow(0, begin, end - begin));
    optimizer_.moment2.copy_(arenas.moment2.narrow(0, begin, end - begin));
    grad_.zero_();
  }));
  progress_ = progress;
  has_gradients_ = false;
  return absl::OkStatus();
}

}  // namespace rein::trainer
