// FakeStepModel is a StepModel whose "attention" reads real pages: a drawn token is a hash of every
// token of the sequence as its pages hold them, and of the draw's key. So a page that is lost,
// shared wrongly or not copied changes what is drawn, and the right completion can be computed
// beside it.

#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/random/philox.h"
#include "rollout/engine/step_model.h"

namespace rein::rollout {

class FakeStepModel final : public StepModel {
 public:
  explicit FakeStepModel(StepModelLimits limits)
      : limits_(limits), slots_(static_cast<size_t>(limits.pages) * limits.page_tokens, -1) {}

  StepModelLimits limits() const override { return limits_; }

  absl::Status Begin(const StepBatch& batch) override {
    if (on_step) on_step(batch);
    if (!fails.ok()) return fails;
    if (under_way() > (limits_.ahead ? 1 : 0)) return absl::InternalError("a step begins too early");
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
      const int64_t token = batch.tokens[t];
      slots_[static_cast<size_t>(batch.slots[t])] =
          token >= 0 ? token : int64_t{begun_.back().token[static_cast<size_t>(-1 - token)]};
    }
    for (const PageCopy& copy : batch.copies) {
      for (int32_t i = 0; i < limits_.page_tokens; ++i) {
        slots_[Slot(copy.to, i)] = slots_[Slot(copy.from, i)];
      }
    }
    Draws draws;
    for (const StepDraw& draw : batch.draws) {
      size_t b = 0;
      while (batch.offsets[b + 1] <= draw.at_token) ++b;
      std::vector<uint32_t> context;
      for (int64_t i = 0; i < batch.contexts[b]; ++i) {
        int32_t page = batch.pages[b][static_cast<size_t>(i / limits_.page_tokens)];
        context.push_back(static_cast<uint32_t>(
            slots_[Slot(page, static_cast<int32_t>(i % limits_.page_tokens))]));
      }
      draws.token.push_back(Next(context, draw.draw.noise));
      draws.logprob.push_back(-0.5f);
      draws.untempered_logprob.push_back(-1.5f);
    }
    tokens_computed += batch.tokens.size();
    begun_.push_back(std::move(draws));
    return absl::OkStatus();
  }

  absl::StatusOr<Draws> Collect() override {
    if (under_way() == 0) return absl::InternalError("no step was begun");
    if (!collect_fails.ok()) return ++collected_, collect_fails;
    return begun_[collected_++];
  }

  size_t under_way() const { return begun_.size() - collected_; }

  // The token that follows `context`.
  uint32_t Next(const std::vector<uint32_t>& context, const NoiseKey& noise) const {
    uint64_t hash = random::DeriveKey(noise.key, noise.position + weights * 1000);
    for (uint32_t token : context) hash = random::DeriveKey(hash, token);
    return static_cast<uint32_t>(hash % limits_.vocabulary_size);
  }

  // The whole completion of a prompt.
  std::vector<uint32_t> Complete(std::vector<uint32_t> context, uint64_t key,
                                 uint32_t tokens) const {
    std::vector<uint32_t> completion;
    for (uint32_t i = 0; i < tokens; ++i) {
      completion.push_back(Next(context, {key, i}));
      context.push_back(completion.back());
    }
    return completion;
  }

  uint64_t weights = 0;  // another number, other completions
  size_t tokens_computed = 0;
  absl::Status fails, collect_fails;
  std::function<void(const StepBatch&)> on_step;

 private:
  size_t Slot(int32_t page, int32_t offset) const {
    return static_cast<size_t>(page) * static_cast<size_t>(limits_.page_tokens) +
           static_cast<size_t>(offset);
  }

  const StepModelLimits limits_;
  std::vector<int64_t> slots_;
  std::vector<Draws> begun_;  // of every step so far
  size_t collected_ = 0;
};

}  // namespace rein::rollout
