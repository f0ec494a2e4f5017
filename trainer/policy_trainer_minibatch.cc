// What PolicyTrainer makes of a minibatch before its passes, and of its routers after them.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "common/random/philox.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "trainer/batching/packing.h"
#include "trainer/packed_targets.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {

using tensor::CatchTorch;

// So many prompts of a rank at least, or siblings are shared out one by one.
constexpr size_t kRunsPerRank = 4;

// NEFTune (arXiv 2310.05914): uniform in +-alpha / sqrt(tokens * width), of each sequence; the draws depend on the
// seed, the Update and the sequence's place in the batch alone.
at::Tensor PolicyTrainer::EmbeddingNoise(const std::vector<TrainingSequence>& sequences,
                                         const std::vector<size_t>& members) const {
  if (algorithm_.embedding_noise == 0 || !at::GradMode::is_enabled()) return {};
  const int64_t width = policy_->model().spec.model_dim;
  const uint64_t key = random::DeriveKey(settings_.seed, progress_.updates);
  std::vector<at::Tensor> parts;
  for (size_t i : members) {
    const auto tokens = static_cast<int64_t>(sequences[i].token_ids.size());
    at::Generator draws = at::detail::createCPUGenerator(random::DeriveKey(key, i));
    const double most = algorithm_.embedding_noise / std::sqrt(static_cast<double>(tokens * width));
    parts.push_back(at::rand({tokens, width}, draws, at::kFloat).mul_(2 * most).sub_(most));
  }
  return at::cat(parts).to(policy_->decoder().device());
}

// This rank's share of the members as microbatches; pairs stay together.
std::vector<std::vector<size_t>> PolicyTrainer::OwnMicrobatches(
    const std::vector<TrainingSequence>& sequences, const std::vector<size_t>& members,
    bool whole) const {
  auto length = [&](size_t i) { return static_cast<int64_t>(sequences[i].token_ids.size()); };
  auto shared = [&](size_t before, size_t i) {
    return settings_.share_prompts ? SharedTokens(sequences[before], sequences[i]) : 0;
  };
  std::vector<std::vector<size_t>> units;
  std::vector<int64_t> length_of;  // of each unit, its own prompt once
  for (size_t k = 0; k < members.size(); ++k) {
    if (!algorithm_.pairs || k % 2 == 0) {
      units.push_back({members[k]});
      length_of.push_back(length(members[k]));
    } else {
      units.back().push_back(members[k]);
      length_of.back() += length(members[k]) - shared(members[k - 1], members[k]);
    }
  }
  auto shared_units = [&](size_t before, size_t u) { return shared(units[before].back(), units[u].front()); };

  std::vector<size_t> own(units.size());
  std::iota(own.begin(), own.end(), size_t{0});
  if (!whole && group_.size() > 1) {
    // Siblings go to one rank, unless that leaves ranks without work.
    std::vector<std::vector<size_t>> runs;
    std::vector<int64_t> length_of_run;
    for (size_t u : own) {
      const int64_t common = u > 0 ? shared_units(u - 1, u) : 0;
      if (common == 0) {
        runs.emplace_back();
        length_of_run.push_back(0);
      }
      runs.back().push_back(u);
      length_of_run.back() += length_of[u] - common;
    }
    const auto ranks = static_cast<size_t>(group_.size());
    if (runs.size() < kRunsPerRank * ranks) {
      length_of_run = length_of;
      runs.clear();
      for (size_t u : own) runs.push_back({u});
    }
    own.clear();
    const auto shares = BalanceOverRanks(length_of_run, ranks);
    for (size_t run : shares[static_cast<size_t>(group_.rank())]) {
      own.insert(own.end(), runs[run].begin(), runs[run].end());
    }
  }
  std::vector<int64_t> own_length, own_shared;
  for (size_t k = 0; k < own.size(); ++k) {
    own_length.push_back(length_of[own[k]]);
    own_shared.push_back(k > 0 ? shared_units(own[k - 1], own[k]) : 0);
  }
  const bool free = !algorithm_.pairs && !algorithm_.advantage &&
                    std::all_of(own_shared.begin(), own_shared.end(), [](int64_t n) { return n == 0; });
  std::vector<std::vector<size_t>> microbatches;
  for (const auto& packed : free ? PackBestFit(own_length, settings_.microbatch_tokens)
                                 : PackMicrobatches(own_length, own_shared, settings_.microbatch_tokens)) {
    auto& microbatch = microbatches.emplace_back();
    for (size_t k : packed) {
      microbatch.insert(microbatch.end(), units[own[k]].begin(), units[own[k]].end());
    }
  }
  return microbatches;
}

absl::Status PolicyTrainer::CountChoices(const UpdateBatch& batch, const std::vector<size_t>& minibatch) {
  const models::DecoderSpec& spec = policy_->model().spec;
  if (settings_.router.level != nn::RouterRecord::Level::kGlobal || settings_.router.balance(spec) == 0) return absl::OkStatus();
  at::Tensor sums = at::zeros({spec.experts.routing.experts + 1}, at::kDouble);  // choices, then rows
  RouterRules counting;
  counting.auxiliary_loss = 0;
  absl::Status status;
  for (const auto& members : OwnMicrobatches(batch.sequences, minibatch)) {
    status.Update(CatchTorch("count of the routers' choices", [&] {
      at::NoGradGuard no_grad;
      const PackedTargets packed = PackTargets(batch.sequences, members, settings_.share_prompts, ChoiceWidth(settings_.router, spec));
      if (packed.target.empty()) return;
      const Routers record = NewRecord(counting, policy_->decoder(), packed, 1, {});
      if (algorithm_.scalar_head) {
        ScoresAt(policy_->decoder(), packed, packed.last, false, record);
      } else {
        ForwardTargets(policy_->decoder(), packed, algorithm_.temperature, false, {.routers = record});
      }
      sums.narrow(0, 0, sums.numel() - 1).add_(record->choices_LE.sum(0).to(at::kCPU, at::kDouble));
      sums[-1].add_(static_cast<double>(record->rows));
    }));
  }
  REIN_RETURN_IF_ERROR(Agree(status));
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(sums));
  even_E_ = (sums.narrow(0, 0, sums.numel() - 1) / sums[-1].clamp_min(1)).to(at::kFloat).to(policy_->decoder().device());
  return absl::OkStatus();
}

// The correcting bias against the load (arXiv 2412.19437, section 2.1.2).
absl::StatusOr<std::vector<ParameterSet::Shift>> PolicyTrainer::RouterShifts(UpdateSums* sums) {
  std::vector<ParameterSet::Shift> shifts;
  if (settings_.router.bias_rate == 0 || sums == nullptr) return shifts;
  REIN_ASSIGN_OR_RETURN(at::Tensor load_LE, sums->routers.TakeLoad(group_));
  for (int64_t layer = 0; load_LE.defined() && layer < load_LE.size(0); ++layer) {
    const std::string name = absl::StrCat("layers.", layer, ".router.correction");
    const weights::Parameter* correction = registry().Find(name);
    if (correction == nullptr || !correction->spec.trained) continue;
    at::Tensor load_E = load_LE[layer];
    shifts.push_back({name, ((load_E.mean() - load_E).sign() * settings_.router.bias_rate).to(at::kFloat)});
  }
  return shifts;
}

}  // namespace rein::trainer
