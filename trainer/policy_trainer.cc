#include "trainer/policy_trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/grad_mode.h>

#include "common/models/arena.h"
#include "common/random/philox.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "common/tensor/memory_check.h"
#include "common/tensor/transfer.h"
#include "trainer/batching/packing.h"
#include "trainer/packed_targets.h"
#include "trainer/sequence_check.h"
#include "trainer/update_batch.h"
#include "trainer/update_sums.h"

namespace rein::trainer {

using tensor::CatchTorch;

constexpr double kUsable = 0.98;  // of a GPU's free memory: cuBLAS has some of its own, and the allocator rounds up

PolicyTrainer::PolicyTrainer(TrainerSettings settings, Algorithm algorithm,
                             parallel::ProcessGroup& group)
    : settings_(std::move(settings)), algorithm_(std::move(algorithm)), group_(group) {}

absl::StatusOr<std::unique_ptr<PolicyTrainer>> PolicyTrainer::Create(
    TrainerSettings settings, Algorithm algorithm, parallel::ProcessGroup& group) {
  auto trainer = std::unique_ptr<PolicyTrainer>(
      new PolicyTrainer(std::move(settings), std::move(algorithm), group));
  TrainerSettings& s = trainer->settings_;
  REIN_ASSIGN_OR_RETURN(s.dtype, models::ComputeDtype(s.dtype, s.device));
  REIN_ASSIGN_OR_RETURN(models::ModelDescription model, models::DescribeModel(s.model_path));
  const int64_t context = model.spec.max_positions;
  if (s.max_length > context) {
    return absl::InvalidArgumentError(absl::StrCat("model.max_length is ", s.max_length,
                                                   ", but the model's context is ", context));
  }
  if (s.max_length == 0) s.max_length = context;
  const ParameterSource source{s.model_path, s.random_weights, s.seed,
                               trainer->algorithm_.scalar_head, s.trained};
  REIN_RETURN_IF_ERROR(trainer->PlanDevice());
  REIN_ASSIGN_OR_RETURN(trainer->policy_, ParameterSet::Create(source, s.device, s.dtype, s.optimizer, group));
  REIN_RETURN_IF_ERROR(CheckRouterRules(s.router, model.spec, trainer->registry()));
  if (s.mtp_loss > 0 && trainer->model().spec.mtp_layers == 0) {
    return absl::InvalidArgumentError(absl::StrCat("trainer.mtp_loss is ", s.mtp_loss,
                                                   ", but no layer of multi-token prediction is loaded: want model.mtp: true"));
  }
  // Noise is of each sequence's own: a prompt that is computed once could not have it.
  s.share_prompts = s.share_prompts && model.spec.shares_prompts() && !s.router.CountsCopies(model.spec) &&
                    trainer->algorithm_.embedding_noise == 0 && s.mtp_loss == 0;
  if (trainer->algorithm_.embedding_noise > 0 && model.spec.embedding_dim > 0) {
    return absl::InvalidArgumentError(absl::StrCat("sft.neftune_alpha does not take ", model.spec.architecture,
                                                   " with word_embed_proj_dim: its embeddings have another width than the model"));
  }
  const bool whole_head = trainer->algorithm_.log_partition || trainer->algorithm_.needs_teacher;
  if (whole_head && model.spec.normalised_head) {
    return absl::InvalidArgumentError("z_loss and distill do not take a model with a normalised head");
  }
  if (trainer->algorithm_.frozen_reference) REIN_RETURN_IF_ERROR(trainer->FreezeReference());
  if (trainer->algorithm_.critic) {
    const CriticSettings& critic = *trainer->algorithm_.critic;
    ParameterSource start{model.base, s.random_weights, s.seed, /*scalar_head=*/true, s.critic_trained};
    if (!critic.path.empty()) start = {critic.path, /*random=*/false, s.seed, /*scalar_head=*/true, s.critic_trained};
    REIN_ASSIGN_OR_RETURN(trainer->critic_,
                          Critic::Create(critic, start, s.device, s.dtype, s.optimizer, group));
  }
  return trainer;
}

// Before anything is allocated: what the job needs of a GPU, and whether it is there.
absl::Status PolicyTrainer::PlanDevice() {
  const bool offloads = settings_.optimizer.offload > 0 || settings_.offload_as_needed;
  if (settings_.device == "cpu") {
    if (!offloads) return absl::OkStatus();
    return absl::InvalidArgumentError("trainer.offload: the trainer runs on a CPU, where there is nothing to offload from");
  }
  if (offloads && settings_.dtype != "bfloat16") {
    return absl::InvalidArgumentError("trainer.offload: wants model.dtype bfloat16: fp32 weights are their own master copy");
  }
  REIN_ASSIGN_OR_RETURN(const models::ModelDescription trained,
                        models::DescribeTrained(settings_.model_path, settings_.trained, algorithm_.scalar_head));
  REIN_ASSIGN_OR_RETURN(const weights::Registry registry,
                        weights::Registry::Create(models::DecoderParameters(trained.spec)));
  int64_t free_bytes = 0;
  REIN_RETURN_IF_ERROR(CatchTorch("free memory of the device", [&] {
    at::accelerator::emptyCache();  // of a job before
    const size_t all = at::accelerator::getMemoryInfo(at::Device(settings_.device).index()).first;
    free_bytes = static_cast<int64_t>(kUsable * static_cast<double>(all));
  }));
  if (settings_.offload_as_needed) {
    settings_.optimizer.offload = NeededOffload(trained, registry, settings_, algorithm_, group_.size(), free_bytes);
  }
  memory_plan_ = PlanMemory(trained, registry, settings_, algorithm_, group_.size());
  return Agree(CheckPlan(trained, registry, settings_, algorithm_, group_.size(), free_bytes));
}

// Keeps the weights that training begins with, to compute reference log-probs with.
absl::Status PolicyTrainer::FreezeReference() {
  absl::StatusOr<std::unique_ptr<models::Decoder>> decoder;
  REIN_RETURN_IF_ERROR(CatchTorch("copy of the reference's weights", [&] {
    reference_compute_ = policy_->parts().trained.clone();
    decoder = models::Decoder::Create(policy_->model().spec, policy_->registry(),
                                      {policy_->parts().frozen, reference_compute_, policy_->parts().quantised});
  }));
  REIN_ASSIGN_OR_RETURN(reference_, std::move(decoder));
  return absl::OkStatus();
}

namespace {

// The mean over layers of multi-token prediction of their cross entropy, each target weighted as in the loss; undefined
// without such layers. A layer's last targets have no token so far ahead, as in Megatron-LM.
at::Tensor LossAhead(const std::vector<TargetFigures::Ahead>& ahead, const at::Tensor& weight_T) {
  at::Tensor sum;
  for (const TargetFigures::Ahead& layer : ahead) {
    at::Tensor loss = -(layer.logprob_M * weight_T.index_select(0, layer.target_M)).sum() / static_cast<double>(ahead.size());
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum;
}

}  // namespace

// A microbatch whose backward pass is under way: its figures come to the host meanwhile.
struct PolicyTrainer::Unread {
  enum Figure { kLogprob, kEntropy, kLoss, kAheadLoss, kTokenSums, kSequenceSums, kMaxima };  // the first two [N]; undefined ones are not wanted

  std::vector<size_t> members;
  PackedTargets packed;
  Routers routers;
  tensor::ToHost figures;
};

absl::Status PolicyTrainer::Read(const UpdateBatch& batch, Unread& of, UpdateSums* sums, TokenFigures* figures) const {
  const std::vector<at::Tensor>& host = of.figures.Wait();
  const at::Tensor& logprob_N = host[Unread::kLogprob];
  if (logprob_N.defined()) {
    REIN_RETURN_IF_ERROR(SplitTargets(logprob_N, of.packed, batch.sequences, of.members, "policy_logprob",
                                      figures == nullptr ? nullptr : &figures->logprobs));
    if (figures != nullptr) {
      REIN_RETURN_IF_ERROR(SplitTargets(host[Unread::kEntropy], of.packed, batch.sequences, of.members, "entropy", &figures->entropies));
    }
    if (algorithm_.needs_behaviour && !batch.policy_moved) {
      const double promised = batch.promised ? PromisedMismatch(policy_->decoder()) : kNoPromise;
      AddMismatch(logprob_N, of.packed, batch.sequences, of.members, promised, &sums->mismatch);
    }
  }
  const double value = host[Unread::kLoss].item<double>();
  if (!std::isfinite(value)) {
    return absl::AbortedError(absl::StrCat("loss is not finite: ", value, " in the microbatch that opens with rollout ",
                                           batch.sequences[of.members[0]].id));
  }
  if (!algorithm_.outside) sums->loss += value;  // else it is the service's
  if (host[Unread::kAheadLoss].defined()) sums->mtp_loss += host[Unread::kAheadLoss].item<double>();
  sums->routers.Add(of.routers.get());
  AddSums(host[Unread::kTokenSums], &sums->token_sums);
  AddSums(host[Unread::kSequenceSums], &sums->sequence_sums);
  for (size_t i = 0; i < sums->maxima.size(); ++i) {
    sums->maxima[i] = std::max(sums->maxima[i], host[Unread::kMaxima][static_cast<int64_t>(i)].item<double>());
  }
  return absl::OkStatus();
}

// Forward, loss and backward of one packed microbatch.
absl::Status PolicyTrainer::Microbatch(const UpdateBatch& batch, const std::vector<size_t>& members,
                                       double minibatch_tokens, UpdateSums* sums, TokenFigures* figures,
                                       std::optional<Unread>* unread) {
  const models::Decoder& decoder = policy_->decoder();
  PackedTargets packed = PackTargets(batch.sequences, members, settings_.share_prompts, ChoiceWidth(settings_.router, decoder.spec()));
  for (size_t i : members) sums->tokens += static_cast<double>(batch.sequences[i].token_ids.size());
  sums->computed_tokens += static_cast<double>(packed.token.size());
  sums->trained_tokens += static_cast<double>(packed.target.size());
  sums->trained_sequences += static_cast<double>(members.size());
  if (packed.target.empty()) return absl::OkStatus();
  std::vector<TargetFigures::Ahead> ahead;
  LossInputs in = InputsOfLoss(batch, algorithm_, members, decoder.device());
  const double share = static_cast<double>(packed.token.size()) / minibatch_tokens;  // routers see every token
  Routers routers;  // what they should do is a matter of training
  if (at::GradMode::is_enabled() || !packed.choices.empty()) routers = NewRecord(settings_.router, decoder, packed, share, even_E_);
  if (algorithm_.scalar_head) {
    const bool targets = algorithm_.scores_targets;
    (targets ? in.score_T : in.score_S) =
        ScoresAt(decoder, packed, targets ? packed.target_place : packed.last, settings_.recompute, routers);
  } else {
    const ForwardExtras extras{routers, EmbeddingNoise(batch.sequences, members),
                               algorithm_.log_partition, in.candidate_TK, settings_.mtp_loss > 0};
    TargetFigures out =
        ForwardTargets(decoder, packed, algorithm_.temperature, settings_.recompute, extras);
    ahead = std::move(out.ahead);
    in.policy_logprob_T = out.logprob_N;
    in.entropy_T = out.entropy_N;
    in.log_partition_T = out.log_partition_N;
    in.candidate_logprob_TK = out.candidate_NK;
    in.vocabulary = decoder.spec().vocab_size;
  }
  LossTerms terms = algorithm_.loss(in);
  at::Tensor weight_T = tensor::ToDevice(LossWeights(batch, algorithm_, members), decoder.device());
  at::Tensor loss = (terms.loss_T * weight_T).sum();
  at::Tensor ahead_loss = LossAhead(ahead, weight_T);
  if (std::optional<Unread> last = std::exchange(*unread, std::nullopt)) REIN_RETURN_IF_ERROR(Read(batch, *last, sums, figures));
  tensor::ToHost wanted({in.policy_logprob_T, figures == nullptr ? at::Tensor() : in.entropy_T, loss, ahead_loss, SumsOf(terms.token_means),
                         SumsOf(terms.sequence_means), MaximaOf(terms.token_maxima)});
  unread->emplace(Unread{members, std::move(packed), routers, std::move(wanted)});
  if (ahead_loss.defined()) loss = loss + ahead_loss * settings_.mtp_loss;
  if (at::GradMode::is_enabled()) loss.backward();
  return absl::OkStatus();
}

// Adds this rank's share of a minibatch's gradients (where they are on) and figures. What is not finite is found when the next
// microbatch is under way: before a step is taken.
absl::Status PolicyTrainer::Accumulate(const UpdateBatch& batch,
                                       const std::vector<size_t>& minibatch, UpdateSums* sums,
                                       TokenFigures* figures, bool whole) {
  double tokens = 0;
  for (size_t i : minibatch) tokens += static_cast<double>(batch.sequences[i].token_ids.size());
  std::optional<Unread> unread;
  for (const auto& members : OwnMicrobatches(batch.sequences, minibatch, whole)) {
    absl::Status status;
    REIN_RETURN_IF_ERROR(CatchTorch("forward and backward",
                                    [&] { status = Microbatch(batch, members, tokens, sums, figures, &unread); }));
    REIN_RETURN_IF_ERROR(status);
  }
  if (!unread) return absl::OkStatus();
  absl::Status status;
  REIN_RETURN_IF_ERROR(CatchTorch("figures of the loss", [&] { status = Read(batch, *unread, sums, figures); }));
  return status;
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

absl::StatusOr<double> PolicyTrainer::Step(double learning_rate, UpdateSums* sums) {
  REIN_ASSIGN_OR_RETURN(std::vector<ParameterSet::Shift> shifts, RouterShifts(sums));
  REIN_ASSIGN_OR_RETURN(double norm,
                        policy_->Step(settings_.adamw, learning_rate, settings_.max_grad_norm,
                                      progress_.optimizer_steps + 1, shifts));
  ++progress_.optimizer_steps;
  return norm;
}

// One step of the critic on the minibatch; the policy's has been made.
absl::Status PolicyTrainer::StepCritic(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                                       CriticSums* sums) {
  absl::Status status;
  for (const auto& members :
       OwnMicrobatches(batch.sequences, Unmasked(batch, minibatch, algorithm_))) {
    status.Update(CatchTorch("critic", [&] {
      if (status.ok()) {
        status = critic_->Accumulate(batch, algorithm_, members, settings_.recompute, sums);
      }
    }));
  }
  REIN_RETURN_IF_ERROR(Agree(status));
  LrSchedule schedule = settings_.schedule;
  schedule.peak = critic_->settings().learning_rate;
  const double rate = LearningRate(schedule, static_cast<int64_t>(progress_.updates) + 1);
  return critic_->parameters()
      .Step(settings_.adamw, rate, settings_.max_grad_norm, progress_.optimizer_steps)
      .status();
}

namespace {

std::vector<Metric> StepMetrics(UpdateSums* sums, const Algorithm& algorithm, size_t steps, double norm, double learning_rate) {
  sums->loss /= static_cast<double>(steps);
  std::vector<Metric> metrics = sums->Metrics(algorithm);
  for (Metric& metric : sums->routers.Metrics(steps)) metrics.push_back(std::move(metric));
  metrics.push_back({"grad_norm", norm});
  metrics.push_back({"learning_rate", learning_rate});
  return metrics;
}

void AddCriticMetrics(const CriticSums& sums, size_t steps, const UpdateBatch& batch, std::vector<Metric>* metrics) {
  metrics->push_back({"value_loss", sums.loss / static_cast<double>(steps)});
  metrics->push_back({"value_clip_ratio", sums.ClippedShare()});
  metrics->push_back({"explained_variance", ExplainedVariance(batch)});
}

}  // namespace

absl::StatusOr<UpdateResult> PolicyTrainer::Update(const std::vector<TrainingSequence>& sequences, bool promised) {
  if (has_gradients_) {
    return absl::FailedPreconditionError(
        "Update: gradients of ForwardBackward are waiting; call OptimStep first");
  }
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), &algorithm_));
  REIN_ASSIGN_OR_RETURN(UpdateBatch batch, Prepare(sequences));
  batch.promised = promised;
  std::vector<uint32_t> group;
  for (const TrainingSequence& s : sequences) group.push_back(s.group);
  const auto minibatches = SplitByGroup(group, algorithm_.minibatches);
  const size_t steps = minibatches.size() * algorithm_.epochs;
  const double learning_rate =
      LearningRate(settings_.schedule, static_cast<int64_t>(progress_.updates) + 1);

  // Several steps must be undone together when a later one fails.
  ParameterSet::Snapshot policy_before, critic_before;
  const TrainerProgress progress_before = progress_;
  if (steps > 1 || critic_ != nullptr) {
    REIN_RETURN_IF_ERROR(CatchTorch("copy of the optimizer's state", [&] {
      policy_before = policy_->Copy();
      if (critic_ != nullptr) critic_before = critic_->parameters().Copy();
    }));
  }
  auto undo = [&](absl::Status status) {
    progress_ = progress_before;
    // On a GPU that an error has broken this fails too; what came first is what is told.
    status.Update(CatchTorch("undoing of the update", [&] {
      policy_->Undo(policy_before);
      if (critic_ != nullptr) critic_->parameters().Undo(critic_before);
    }));
    return status;
  };

  outside_metrics_.clear();
  UpdateSums sums(algorithm_);
  CriticSums critic_sums;
  std::optional<TokenFigures> figures;
  if (settings_.token_figures && algorithm_.needs_behaviour) figures.emplace(sequences.size());
  std::vector<size_t> passed;  // sequences that took a forward pass, on any rank
  double norm = 0;
  for (size_t step = 0; step < steps; ++step) {
    const std::vector<size_t>& minibatch = minibatches[step % minibatches.size()];
    batch.counts = CountTargets(sequences, minibatch, algorithm_);
    batch.policy_moved = step > 0;
    absl::Status status = AskOutsideLoss(minibatch, step, &batch, &sums);
    if (!status.ok()) return undo(status);
    const std::vector<size_t> learned = WithSignal(batch, minibatch, algorithm_);
    status = CountChoices(batch, learned);
    TokenFigures* wanted = figures && step < minibatches.size() ? &*figures : nullptr;
    if (wanted != nullptr) passed.insert(passed.end(), learned.begin(), learned.end());
    if (status.ok()) status = Agree(Accumulate(batch, learned, &sums, wanted));
    if (!status.ok()) return undo(status);
    absl::StatusOr<double> step_norm = Step(learning_rate, &sums);
    if (!step_norm.ok()) return undo(step_norm.status());
    norm = std::max(norm, *step_norm);
    if (critic_ == nullptr) continue;
    status = StepCritic(batch, minibatch, &critic_sums);
    if (!status.ok()) return undo(status);
  }
  REIN_RETURN_IF_ERROR(sums.ReduceOver(group_));
  if (figures) REIN_RETURN_IF_ERROR(ShareFigures(sequences, passed, &*figures));
  ++progress_.updates;
  UpdateResult result;
  result.metrics = StepMetrics(&sums, algorithm_, steps, norm, learning_rate);
  if (critic_ != nullptr) {
    REIN_RETURN_IF_ERROR(critic_sums.ReduceOver(group_));
    AddCriticMetrics(critic_sums, steps, batch, &result.metrics);
  }
  if (algorithm_.needs_mismatch_kl) result.metrics.push_back({"mismatch_kl", batch.mismatch_kl});
  if (algorithm_.kl.target) {
    result.metrics.push_back({"kl_coefficient", batch.kl_coefficient});
    progress_.kl_coefficient = NextKlCoefficientOf(batch, algorithm_);
  }
  AddOutsideMetrics(&result.metrics);
  result.advantages = batch.MeanAdvantages();
  result.mismatched = std::move(sums.mismatch.first);
  result.figures = std::move(figures);
  return result;
}

absl::StatusOr<PassResult> PolicyTrainer::ForwardBackward(
    const std::vector<TrainingSequence>& sequences) {
  if (critic_ != nullptr || algorithm_.scalar_head) {
    return absl::UnimplementedError(
        "ForwardBackward: is for models of one policy; with a critic or a reward model use Update");
  }
  if (settings_.router.bias_rate > 0 || settings_.router.level == nn::RouterRecord::Level::kGlobal) {
    return absl::UnimplementedError(
        "ForwardBackward: trainer.router.bias_rate and a global auxiliary_level want whole Updates");
  }
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), &algorithm_));
  REIN_ASSIGN_OR_RETURN(UpdateBatch batch, Prepare(sequences));
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  batch.counts = CountTargets(sequences, all, algorithm_);
  at::Tensor before = has_gradients_ ? policy_->grad().clone() : at::Tensor();
  UpdateSums sums(algorithm_);
  PassResult result;
  TokenFigures figures(sequences.size());
  REIN_RETURN_IF_ERROR(AskOutsideLoss(all, /*step=*/0, &batch, &sums));
  absl::Status status = Agree(Accumulate(batch, all, &sums, &figures));
  if (status.ok()) status = sums.ReduceOver(group_);
  if (status.ok()) status = ShareLogprobs(sequences, &figures.logprobs);
  if (!status.ok()) {
    before.defined() ? policy_->grad().copy_(before) : policy_->grad().zero_();
    return status;
  }
  has_gradients_ = true;
  result.logprobs = std::move(figures.logprobs);
  result.metrics = sums.Metrics(algorithm_);
  AddOutsideMetrics(&result.metrics);
  return result;
}

absl::StatusOr<std::vector<Metric>> PolicyTrainer::OptimStep(std::optional<double> learning_rate) {
  if (!has_gradients_) {
    return absl::FailedPreconditionError("OptimStep: no gradients; call ForwardBackward first");
  }
  const double rate = learning_rate.value_or(
      LearningRate(settings_.schedule, static_cast<int64_t>(progress_.updates) + 1));
  absl::StatusOr<double> norm = Step(rate, nullptr);
  has_gradients_ = false;
  if (!norm.ok()) {
    policy_->grad().zero_();
    return norm.status();
  }
  ++progress_.updates;
  return std::vector<Metric>{{"grad_norm", *norm}, {"learning_rate", rate}};
}

absl::StatusOr<std::vector<std::vector<float>>> PolicyTrainer::Score(
    const std::vector<TrainingSequence>& sequences) {
  if (algorithm_.scalar_head) {
    return absl::UnimplementedError("Score: a reward model has no log-probs");
  }
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), nullptr));
  return OfTargets(sequences, LogprobsBy(policy_->decoder()), /*whole=*/true);
}

absl::StatusOr<Measured> PolicyTrainer::Measure(const std::vector<TrainingSequence>& sequences) {
  if (algorithm_.advantage) {
    return absl::InvalidArgumentError(
        absl::StrCat("Score: ", algorithm_.name, " has no loss of held-out sequences; call without `measure`"));
  }
  REIN_RETURN_IF_ERROR(CheckSequences(sequences, limits(), &algorithm_));
  at::NoGradGuard no_grad;
  REIN_ASSIGN_OR_RETURN(UpdateBatch batch, Prepare(sequences, /*whole=*/true));
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  batch.counts = CountTargets(sequences, all, algorithm_);
  UpdateSums sums(algorithm_);
  REIN_RETURN_IF_ERROR(Accumulate(batch, all, &sums, nullptr, /*whole=*/true));
  const bool tokens = algorithm_.aggregation == Aggregation::kTokenMean;
  return Measured{sums.Metrics(algorithm_), tokens ? batch.counts.tokens : batch.counts.sequences};
}

absl::StatusOr<at::Tensor> PolicyTrainer::HostWeights() const {
  at::Tensor host;
  REIN_RETURN_IF_ERROR(CatchTorch("copy of weights", [&] { host = parts().trained.to(at::kCPU); }));
  return host;
}

absl::Status PolicyTrainer::RestoreArenas(const Arenas& arenas, const TrainerProgress& progress) {
  REIN_RETURN_IF_ERROR(policy_->Restore(arenas));
  progress_ = progress;
  has_gradients_ = false;
  return absl::OkStatus();
}

}  // namespace rein::trainer
