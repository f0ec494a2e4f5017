#include "rollout/engine/device_step.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "common/kernels/attention.h"
#include "common/kernels/filter_logits.h"
#include "common/kernels/logits.h"
#include "common/nn/head.h"
#include "common/tensor/cuda_runtime.h"
#include "rollout/sampling/sampler.h"

namespace rein::rollout {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kLeastBufferBytes = int64_t{4} << 20;
constexpr int64_t kLeastDraws = 4096;

// Batches of these sizes are captured; what is between is filled up with empty sequences.
int64_t RoundedBatch(int64_t sequences) {
  if (sequences <= 2) return sequences;
  const int64_t grain = sequences <= 8 ? 4 : sequences <= 64 ? 8 : 16;
  return (sequences + grain - 1) / grain * grain;
}

int64_t RoundedPages(int64_t pages) {
  int64_t rounded = 16;
  while (rounded < pages) rounded *= 2;
  return rounded;
}

// How many pages two sequences have in common from the first on.
int64_t SamePages(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

template <typename T>
at::ScalarType TypeOf() {
  return std::is_same_v<T, int64_t> ? at::kLong : std::is_same_v<T, int32_t> ? at::kInt : at::kByte;
}

}  // namespace

struct DeviceStep::Sizes {
  int64_t tokens = 0, sequences = 0, draws = 0;
  int64_t pages = 1;    // of one sequence
  int64_t single = 0;   // leading sequences that decode one token
  int64_t chunks = 0;   // of their keys, at most
  int64_t longest = 0;  // queries of one sequence
  bool untempered = false;
  bool uniform = false;              // each sequence decodes one token, and draws at most once
  std::vector<size_t> order;         // the batch's sequences, those that decode first
  std::vector<int64_t> token_order;  // the batch's tokens, in that order
  std::vector<int64_t> place;        // of each of the batch's tokens among them
  std::vector<int64_t> offsets;      // [sequences + 1]
  std::vector<int64_t> draw_row;     // of each draw of the batch, its row among `draws`

  Sizes(const StepBatch& batch, int64_t page_tokens);
};

DeviceStep::Sizes::Sizes(const StepBatch& batch, int64_t page_tokens) {
  auto queries = [&](size_t b) { return batch.offsets[b + 1] - batch.offsets[b]; };
  order.resize(batch.pages.size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto prefills =
      std::stable_partition(order.begin(), order.end(), [&](size_t b) { return queries(b) == 1; });
  single = prefills - order.begin();
  sequences = static_cast<int64_t>(order.size());
  place.resize(batch.tokens.size());
  offsets.push_back(0);
  for (size_t b : order) {
    for (int64_t t = batch.offsets[b]; t < batch.offsets[b + 1]; ++t) {
      place[t] = static_cast<int64_t>(token_order.size());
      token_order.push_back(t);
    }
    offsets.push_back(static_cast<int64_t>(token_order.size()));
    longest = std::max(longest, queries(b));
    pages = std::max(pages, static_cast<int64_t>(batch.pages[b].size()));
  }
  pages = RoundedPages(pages);
  tokens = offsets.back();
  draws = static_cast<int64_t>(batch.draws.size());
  std::vector<bool> drawn(batch.tokens.size(), false);
  uniform = single == sequences;
  for (const StepDraw& draw : batch.draws) {
    uniform = uniform && !drawn[draw.at_token];
    drawn[draw.at_token] = true;
    untempered |= draw.draw.untempered;
  }
  for (size_t d = 0; d < batch.draws.size(); ++d) {
    draw_row.push_back(uniform ? place[batch.draws[d].at_token] : static_cast<int64_t>(d));
  }
  if (uniform) {  // filled up to a size that is captured
    single = sequences = tokens = draws = RoundedBatch(sequences);
    offsets.resize(static_cast<size_t>(sequences + 1));
    std::iota(offsets.begin(), offsets.end(), int64_t{0});
  }
  const int64_t chunks_of_one = (pages * page_tokens + kernels::kKeyChunk - 1) / kernels::kKeyChunk;
  chunks = single * chunks_of_one;
}

struct DeviceStep::Layout {
  explicit Layout(const Sizes& sizes) {
    tokens = Take<int64_t>(sizes.tokens);
    positions = Take<int64_t>(sizes.tokens);
    slots = Take<int64_t>(sizes.tokens);
    draw_at = Take<int64_t>(sizes.draws);
    draws = Take<kernels::DrawRow>(sizes.draws);
    offsets = Take<int32_t>(sizes.sequences + 1);
    contexts = Take<int32_t>(sizes.sequences);
    shared = Take<int32_t>(sizes.sequences);
    pages = Take<int32_t>(sizes.sequences * sizes.pages);
  }

  int64_t bytes = 0;
  int64_t tokens, positions, slots, draw_at, draws, offsets, contexts, shared, pages;

 private:
  template <typename T>
  int64_t Take(int64_t count) {
    const int64_t at = bytes;
    bytes += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
};

struct DeviceStep::Inputs {
  Inputs(const at::Tensor& buffer, const Layout& at, const Sizes& sizes) {
    auto view = [&]<typename T>(T, int64_t offset, int64_t count) {
      return buffer.narrow(0, offset, count * static_cast<int64_t>(sizeof(T))).view(TypeOf<T>());
    };
    token_T = view(int64_t{}, at.tokens, sizes.tokens);
    position_T = view(int64_t{}, at.positions, sizes.tokens);
    slot_T = view(int64_t{}, at.slots, sizes.tokens);
    draw_at_N = view(int64_t{}, at.draw_at, sizes.draws);
    draw_N = view(kernels::DrawRow{}, at.draws, sizes.draws);
    offsets = view(int32_t{}, at.offsets, sizes.sequences + 1);
    context_B = view(int32_t{}, at.contexts, sizes.sequences);
    shared_B = view(int32_t{}, at.shared, sizes.sequences);
    pages_BP = view(int32_t{}, at.pages, sizes.sequences * sizes.pages)
                   .view({sizes.sequences, sizes.pages});
  }
  at::Tensor token_T, position_T, slot_T, draw_at_N, draw_N, offsets, context_B, shared_B, pages_BP;
};

namespace {

// One token for each row of logits, as DeviceStep::Outputs::packed; draw_N holds kernels::DrawRow.
at::Tensor Draw(const at::Tensor& logits_NV, const at::Tensor& draw_N, bool untempered) {
  const int64_t n = logits_NV.size(0), vocabulary = logits_NV.size(1);
  at::TensorOptions bytes = logits_NV.options().dtype(at::kByte);
  at::Tensor out = at::empty({16 * n}, bytes);
  at::Tensor scratch = at::empty({kernels::LogitScratchBytes(n, vocabulary)}, bytes);
  auto* packed = static_cast<char*>(out.mutable_data_ptr());
  kernels::TokenDraw draw;
  draw.rows = n;
  draw.vocabulary = draw.stride = vocabulary;
  draw.logits = logits_NV.const_data_ptr();
  draw.row = static_cast<const kernels::DrawRow*>(draw_N.const_data_ptr());
  draw.token = reinterpret_cast<int64_t*>(packed);
  draw.logprob = reinterpret_cast<float*>(packed + 8 * n);
  if (untempered) draw.untempered = draw.logprob + n;
  draw.scratch = scratch.mutable_data_ptr();
  absl::Status status = kernels::DrawTokens(draw, tensor::CurrentStream());
  TORCH_CHECK(status.ok(), std::string(status.message()));
  return out;
}

// What Draw() packed, as tensors.
struct DrawsOnDevice {
  DrawsOnDevice(const at::Tensor& packed, int64_t n)
      : token_N(packed.narrow(0, 0, 8 * n).view(at::kLong)),
        logprob_N(packed.narrow(0, 8 * n, 4 * n).view(at::kFloat)),
        untempered_N(packed.narrow(0, 12 * n, 4 * n).view(at::kFloat)) {}
  at::Tensor token_N, logprob_N, untempered_N;
};

void EnsurePinned(int64_t bytes, at::Tensor& host) {
  if (host.defined() && host.numel() >= bytes) return;
  host = at::empty({2 * bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
}

kernels::DrawRow RowOf(const RowDraw& draw) {
  return {draw.noise.key, draw.noise.position, static_cast<float>(draw.temperature)};
}

kernels::FilterRow FilterOf(const RowDraw& draw) {
  if (draw.temperature == 0) return {};
  return {draw.top_p, draw.min_p, static_cast<float>(draw.temperature), draw.top_k};
}

// The bytes of `values` on the device, queued: nothing waits.
template <typename T>
at::Tensor OnDevice(const std::vector<T>& values, at::Device device) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  at::Tensor host = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  std::memcpy(host.mutable_data_ptr(), values.data(), static_cast<size_t>(bytes));
  return host.to(device, /*non_blocking=*/true);
}

}  // namespace

DeviceStep::Inputs DeviceStep::Upload(const StepBatch& batch, const Sizes& sizes) {
  const Layout at(sizes);
  const at::Device device = pages_[0].key.device();
  if (!device_.defined() || device_.numel() < at.bytes) {
    graphs_.clear();
    const int64_t bytes = std::max(kLeastBufferBytes, 2 * at.bytes);
    device_ = at::empty({bytes}, at::TensorOptions(at::kByte).device(device));
  }
  if (!drawn_.defined() || drawn_.numel() < sizes.draws) {
    graphs_.clear();
    at::Tensor larger = at::zeros({std::max(kLeastDraws, 2 * sizes.draws)}, at::TensorOptions(at::kLong).device(device));
    if (drawn_.defined()) larger.narrow(0, 0, drawn_.numel()).copy_(drawn_);
    drawn_ = larger;
  }
  at::Tensor& host_in = host_[next_buffer_].in;
  EnsurePinned(device_.numel(), host_in);
  auto* host = host_in.mutable_data_ptr<uint8_t>();
  std::memset(host, 0, static_cast<size_t>(at.bytes));
  auto* tokens = reinterpret_cast<int64_t*>(host + at.tokens);
  auto* positions = reinterpret_cast<int64_t*>(host + at.positions);
  auto* slots = reinterpret_cast<int64_t*>(host + at.slots);
  for (size_t i = 0; i < sizes.token_order.size(); ++i) {
    const int64_t t = sizes.token_order[i];
    tokens[i] = batch.tokens[t] >= 0 ? batch.tokens[t] : DrawnBefore(last_draw_row_[-1 - batch.tokens[t]]);
    positions[i] = batch.positions[t];
    slots[i] = batch.slots[t];
  }
  auto* offsets = reinterpret_cast<int32_t*>(host + at.offsets);
  std::copy(sizes.offsets.begin(), sizes.offsets.end(), offsets);
  auto* contexts = reinterpret_cast<int32_t*>(host + at.contexts);
  auto* shared = reinterpret_cast<int32_t*>(host + at.shared);
  auto* pages = reinterpret_cast<int32_t*>(host + at.pages);
  for (size_t i = 0; i < sizes.order.size(); ++i) {
    const size_t b = sizes.order[i];
    contexts[i] = static_cast<int32_t>(batch.contexts[b]);
    std::copy(batch.pages[b].begin(), batch.pages[b].end(), pages + static_cast<int64_t>(i) * sizes.pages);
    if (i > 0) shared[i] = static_cast<int32_t>(SamePages(batch.pages[sizes.order[i - 1]], batch.pages[b]) * page_tokens_);
  }
  auto* draw_at = reinterpret_cast<int64_t*>(host + at.draw_at);
  auto* draws = reinterpret_cast<kernels::DrawRow*>(host + at.draws);
  if (sizes.uniform) std::iota(draw_at, draw_at + sizes.draws, int64_t{0});
  for (size_t d = 0; d < batch.draws.size(); ++d) {
    const RowDraw& draw = batch.draws[d].draw;
    const int64_t row = sizes.draw_row[d];
    draw_at[row] = sizes.place[batch.draws[d].at_token];
    draws[row] = RowOf(draw);
  }
  device_.narrow(0, 0, at.bytes).copy_(host_in.narrow(0, 0, at.bytes), /*non_blocking=*/true);
  return Inputs(device_, at, sizes);
}

DeviceStep::Outputs DeviceStep::Launch(const models::Decoder& decoder, const Sizes& sizes,
                                       const Inputs& inputs) {
  absl::Status placed = kernels::PlaceDrawnTokens(inputs.token_T.mutable_data_ptr<int64_t>(), sizes.tokens,
                                                  drawn_.const_data_ptr<int64_t>(), tensor::CurrentStream());
  TORCH_CHECK(placed.ok(), std::string(placed.message()));
  nn::PageMap map = {.layers = &pages_,
                     .page_tokens = page_tokens_,
                     .slot_T = inputs.slot_T,
                     .pages_BP = inputs.pages_BP,
                     .single_queries = sizes.single,
                     .most_chunks = sizes.chunks,
                     .shared_B = inputs.shared_B};
  nn::PlanDecode(map, inputs.context_B, decoder.spec().num_heads, decoder.spec().head_dim);
  nn::SequenceView view = {.position_T = inputs.position_T,
                           .offsets = sizes.offsets,
                           .offsets_device = inputs.offsets,
                           .context_B = inputs.context_B,
                           .longest = sizes.longest,
                           .pages = &map};
  at::Tensor hidden_TD = decoder.Hidden(inputs.token_T, view);
  if (sizes.draws == 0) return {};
  at::Tensor logits_NV = decoder.Logits(hidden_TD.index_select(0, inputs.draw_at_N)).contiguous();
  return {logits_NV, Draw(logits_NV, inputs.draw_N, sizes.untempered)};
}

DeviceStep::Outputs DeviceStep::LaunchOrReplay(const models::Decoder& decoder, const Sizes& sizes,
                                               const Inputs& inputs) {
  if (!capture_ || !sizes.uniform) return Launch(decoder, sizes, inputs);
  auto [it, first] =
      graphs_.try_emplace(Key(&decoder, sizes.sequences, sizes.pages, sizes.untempered));
  Captured& captured = it->second;
  // The first time everything runs as it is, so that what is chosen at first use is chosen.
  if (first || captured.refused) return Launch(decoder, sizes, inputs);
  if (captured.graph == nullptr) {
    if (pool_ == nullptr) pool_ = tensor::NewGraphPool();
    auto graph = tensor::CaptureGraph(
        pool_, [&] { captured.outputs = Launch(decoder, sizes, inputs); });
    if (!graph.ok()) {
      captured.refused = true;
      return Launch(decoder, sizes, inputs);
    }
    captured.graph = *std::move(graph);
  }
  captured.graph->Replay();
  return captured.outputs;
}

// Draws again, from what penalties, filters and bans leave, the rows that have any. The log-prob at temperature 1 is of all
// tokens, as the trainer's.
void DeviceStep::DrawFiltered(const StepBatch& batch, const Sizes& sizes, const Outputs& outputs) {
  std::vector<int64_t> row_of;
  std::vector<RowDraw> rows;
  std::vector<at::Tensor> awaited;  // a token that the step before drew and the host has not seen
  for (size_t d = 0; d < batch.draws.size(); ++d) {
    const RowDraw& draw = batch.draws[d].draw;
    if (!HasFilters(draw) && draw.banned.empty() && !draw.penalties.any()) continue;
    row_of.push_back(sizes.draw_row[d]);
    rows.push_back(draw);
    const int64_t last = batch.tokens[static_cast<size_t>(batch.draws[d].at_token)];
    awaited.push_back(last < 0 ? drawn_.narrow(0, last_draw_row_[static_cast<size_t>(-1 - last)], 1) : at::Tensor());
  }
  if (rows.empty()) return;
  std::vector<kernels::DrawRow> draws;
  std::vector<kernels::FilterRow> filters;
  for (const RowDraw& row : rows) {
    draws.push_back(RowOf(row));
    filters.push_back(FilterOf(row));
  }
  const auto filtered = static_cast<int64_t>(rows.size());
  const at::Device device = outputs.packed.device();
  at::Tensor row_F = OnDevice(row_of, device).view(at::kLong), filter_F = OnDevice(filters, device);
  at::Tensor own_FV = outputs.logits_NV.index_select(0, row_F), left_FV = own_FV.clone();
  Penalise(rows, left_FV, awaited);
  Ban(rows, left_FV);
  const kernels::LogitFilter run{left_FV.mutable_data_ptr(), left_FV.size(1),
                                 static_cast<const kernels::FilterRow*>(filter_F.const_data_ptr()), filtered,
                                 left_FV.size(1)};
  absl::Status status = kernels::FilterLogits(run, tensor::CurrentStream());
  TORCH_CHECK(status.ok(), std::string(status.message()));
  const DrawsOnDevice drawn(Draw(left_FV, OnDevice(draws, device), /*untempered=*/false), filtered);
  const DrawsOnDevice all(outputs.packed, sizes.draws);
  all.token_N.index_copy_(0, row_F, drawn.token_N);
  all.logprob_N.index_copy_(0, row_F, drawn.logprob_N);
  if (sizes.untempered) {
    all.untempered_N.index_copy_(0, row_F, nn::TokenLogprobsOfLogits(own_FV, drawn.token_N, 1.0).logprob_N);
  }
}

void DeviceStep::Download(const Sizes& sizes, const Outputs& outputs) {
  HostBuffers& host = host_[next_buffer_];
  if (sizes.draws > 0) {
    drawn_.narrow(0, 0, sizes.draws).copy_(DrawsOnDevice(outputs.packed, sizes.draws).token_N);
    EnsurePinned(outputs.packed.numel(), host.out);
    host.out.narrow(0, 0, outputs.packed.numel()).copy_(outputs.packed, /*non_blocking=*/true);
  }
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  host.done.record(guard.getStream(device_.device()));
}

void DeviceStep::Begin(const models::Decoder& decoder, const StepBatch& batch) {
  const Sizes sizes(batch, page_tokens_);
  const Inputs inputs = Upload(batch, sizes);
  const Outputs outputs = LaunchOrReplay(decoder, sizes, inputs);
  DrawFiltered(batch, sizes, outputs);
  Download(sizes, outputs);
  under_way_.push_back({next_buffer_, sizes.draw_row, sizes.draws, sizes.untempered});
  last_draw_row_ = sizes.draw_row;
  next_buffer_ = (next_buffer_ + 1) % host_.size();
}

Draws DeviceStep::Collect() {
  const UnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  HostBuffers& host = host_[step.buffer];
  host.done.synchronize();
  Draws draws;
  if (step.draw_row.empty()) return draws;
  const auto* bytes = host.out.const_data_ptr<uint8_t>();
  const auto* token = reinterpret_cast<const int64_t*>(bytes);
  const auto* logprob = reinterpret_cast<const float*>(bytes + 8 * step.rows);
  for (int64_t row : step.draw_row) {
    draws.token.push_back(static_cast<uint32_t>(token[row]));
    draws.logprob.push_back(logprob[row]);
    if (step.untempered) draws.untempered_logprob.push_back(logprob[step.rows + row]);
  }
  return draws;
}

int64_t DeviceStep::graphs() const {
  return std::count_if(graphs_.begin(), graphs_.end(),
                       [](const auto& entry) { return entry.second.graph != nullptr; });
}

}  // namespace rein::rollout
