// StepModel is the forward pass as the engine sees it: packed tokens in, drawn tokens out.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "rollout/sampling/draw.h"

namespace rein::rollout {

// Draws a token from the logits of one of the step's tokens. Several may ask for the same one.
struct StepDraw {
  int64_t at_token = 0;  // index into StepBatch::tokens
  RowDraw draw;
};

struct PageCopy {
  int32_t from = 0;
  int32_t to = 0;
};

// T tokens of B sequences, packed.
struct StepBatch {
  std::vector<int64_t> tokens;         // T; DrawnBefore(d) where only the device knows it yet
  std::vector<int64_t> positions;      // T
  std::vector<int64_t> slots;          // T: page * page_tokens + offset, where keys and values go
  std::vector<int64_t> offsets = {0};  // B + 1
  std::vector<std::vector<int32_t>> pages;  // of each sequence, in order
  std::vector<int64_t> contexts;            // B: tokens of the sequence after this step
  std::vector<PageCopy> copies;             // whole pages, done after the forward pass
  std::vector<StepDraw> draws;
};

// Stands for the token of draw `index` of the step begun before this one.
constexpr int64_t DrawnBefore(size_t index) { return -1 - static_cast<int64_t>(index); }

// Adds tokens [begin, end) of a sequence whose pages are first_page and those after it, with a draw behind the last one.
void AddTokens(int32_t first_page, int32_t page_tokens, const std::vector<int64_t>& sequence, size_t begin, size_t end,
               StepBatch& batch);

struct StepModelLimits {
  int32_t pages = 0;  // page 0 included, which only padding writes to
  int32_t page_tokens = 0;
  uint32_t vocabulary_size = 0;
  uint32_t max_length = 0;  // longest sequence, completion included
  bool ahead = false;       // a step may begin before the one before it is collected
};

class StepModel {
 public:
  virtual ~StepModel() = default;

  virtual StepModelLimits limits() const = 0;
  // Each Begin() that succeeds wants its Collect(), in order: one token for each draw, waited for. At most two
  // steps are under way at once, one where limits().ahead is false. Called from one thread at a time.
  virtual absl::Status Begin(const StepBatch& batch) = 0;
  virtual absl::StatusOr<Draws> Collect() = 0;
  // Experts of the first `tokens` tokens on these pages, as Completion.expert_choices has them; empty where they are not
  // kept. Waits for steps under way.
  virtual absl::StatusOr<std::string> ExpertChoices(const std::vector<int32_t>&, size_t) { return std::string(); }
};

}  // namespace rein::rollout
