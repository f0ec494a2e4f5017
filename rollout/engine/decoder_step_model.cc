#include "rollout/engine/decoder_step_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/grad_mode.h>

#include "common/random/philox.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "rollout/sampling/sampler.h"

namespace rein::rollout {
namespace {

constexpr double kShareOfFreeMemory = 0.95;  // beyond what is reserved: the driver and the allocator round up

at::Tensor Longs(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

// Of so many bytes, but no more than twice what can run at once: of a tiny model there would be millions of pages.
uint64_t DefaultKvTokens(const models::Decoder& decoder, int64_t page_tokens, bool choices, uint64_t reserved, uint64_t most) {
  if (decoder.device().is_cpu()) return kDefaultCpuKvTokens;
  at::accelerator::emptyCache();  // of a job before
  const uint64_t free_bytes = at::accelerator::getMemoryInfo(decoder.device().index()).first;
  const uint64_t left = free_bytes - std::min<uint64_t>(free_bytes, reserved);
  const uint64_t pages = static_cast<uint64_t>(kShareOfFreeMemory * static_cast<double>(left)) /
                         static_cast<uint64_t>(decoder.kv_bytes_per_page(page_tokens, choices));
  return std::min(pages * static_cast<uint64_t>(page_tokens), most);
}

// What a step's intermediate results take at most on a GPU: hidden states and both halves of the feed-forward layer of
// every token, logits of every sequence (in bf16, then fp32 and what filters make of them), graphs and libraries.
uint64_t StepBytes(const models::DecoderSpec& spec, const weights::Registry& registry, const KvOptions& options) {
  constexpr uint64_t kLibraries = uint64_t{3} << 28;
  const auto tokens = static_cast<uint64_t>(options.step_tokens), sequences = static_cast<uint64_t>(options.max_running);
  const auto width = static_cast<uint64_t>(8 * spec.model_dim + 4 * spec.ffn_dim + 4 * spec.num_heads * spec.head_dim);
  // Quantised matrices are unpacked one at a time; graphs keep a block of their own.
  const auto unpacked = static_cast<uint64_t>(4 * registry.largest_quantised());
  return kLibraries + unpacked + 2 * tokens * width + 14 * sequences * static_cast<uint64_t>(spec.vocab_size);
}

// The pages of each sequence as int32 [B, P], rows padded with page 0.
at::Tensor PageTable(const std::vector<std::vector<int32_t>>& pages, at::Device device) {
  size_t longest = 1;
  for (const auto& row : pages) longest = std::max(longest, row.size());
  at::Tensor table_BP =
      at::zeros({static_cast<int64_t>(pages.size()), static_cast<int64_t>(longest)}, at::kInt);
  int32_t* table = table_BP.mutable_data_ptr<int32_t>();
  for (size_t b = 0; b < pages.size(); ++b) {
    std::copy(pages[b].begin(), pages[b].end(), table + b * longest);
  }
  return table_BP.to(device);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DecoderStepModel>> DecoderStepModel::Create(
    const policy::PolicySlots& slots, const KvOptions& options) {
  const models::Decoder& decoder = slots.decoder();
  const int64_t context = decoder.spec().max_positions;
  if (options.max_length > context) {
    return absl::InvalidArgumentError(absl::StrCat("max_length is ", options.max_length,
                                                   ", want at most the model's context of ",
                                                   context, " tokens"));
  }
  if (options.page_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_tokens is ", options.page_tokens, ", want at least 1"));
  }
  uint64_t tokens = options.kv_tokens;
  const uint64_t step_bytes = decoder.device().is_cpu() ? 0 : StepBytes(decoder.spec(), slots.registry(), options);
  if (tokens == 0) {
    const auto longest = options.max_length == 0 ? static_cast<uint64_t>(context) : options.max_length;
    const uint64_t most = std::max(kDefaultCpuKvTokens, 2 * longest * static_cast<uint64_t>(options.max_running));
    REIN_RETURN_IF_ERROR(tensor::CatchTorch("free memory of the device",
                                            [&] { tokens = DefaultKvTokens(decoder, options.page_tokens, options.expert_choices, options.reserved_bytes + step_bytes, most); }));
  }
  const uint64_t pages = tokens / static_cast<uint64_t>(options.page_tokens);
  if (pages < 1 || pages >= INT32_MAX) {
    return absl::ResourceExhaustedError(
        absl::StrCat("room for ", tokens, " tokens of keys and values, want at least one page of ",
                     options.page_tokens, "; a page takes ",
                     decoder.kv_bytes_per_page(options.page_tokens, options.expert_choices), " bytes, ", (options.reserved_bytes + step_bytes) >> 20,
                     " MiB are kept free for the trainer's and the steps' own results: the trainer needs less with "
                     "trainer.recompute, trainer.offload or a smaller trainer.microbatch_tokens"));
  }
  StepModelLimits limits = {
      .pages = static_cast<int32_t>(pages) + 1,
      .page_tokens = options.page_tokens,
      .vocabulary_size = static_cast<uint32_t>(decoder.spec().vocab_size),
      .max_length = options.max_length == 0 ? static_cast<uint32_t>(context) : options.max_length};
  auto model = std::unique_ptr<DecoderStepModel>(new DecoderStepModel(slots, limits));
  model->step_bytes_ = step_bytes;
  model->page_bytes_ = static_cast<uint64_t>(limits.pages) * static_cast<uint64_t>(decoder.kv_bytes_per_page(limits.page_tokens, options.expert_choices));
  REIN_RETURN_IF_ERROR(tensor::CatchTorch(
      absl::StrCat("memory for ", tokens, " tokens of keys and values"),
      [&] { model->pages_ = decoder.NewPages(limits.pages, limits.page_tokens, options.expert_choices); }));
  if (decoder.device().is_cuda() && decoder.dtype() == at::kBFloat16) {
    model->limits_.ahead = true;
    model->device_step_ =
        std::make_unique<DeviceStep>(model->pages_, limits.page_tokens, options.capture);
  }
  return model;
}

int64_t DecoderStepModel::Padding(int64_t rows) const {
  if (!slots_.decoder().device().is_cpu()) return 0;
  return (kRowPadding - rows % kRowPadding) % kRowPadding;
}

// Padding tokens make one more sequence, whose tokens all stand at position 0 of page 0.
at::Tensor DecoderStepModel::Hidden(const StepBatch& batch) {
  const models::Decoder& decoder = slots_.decoder();
  const at::Device device = decoder.device();
  const int64_t tokens = static_cast<int64_t>(batch.tokens.size()), padding = Padding(tokens);
  auto padded = [&](std::vector<int64_t> values) {
    values.resize(static_cast<size_t>(tokens + padding), 0);
    return Longs(values, device);
  };
  nn::PageMap map = {.layers = &pages_,
                     .page_tokens = limits_.page_tokens,
                     .slot_T = padded(batch.slots)};
  nn::SequenceView view = {
      .position_T = padded(batch.positions), .offsets = batch.offsets, .pages = &map};
  std::vector<std::vector<int32_t>> pages = batch.pages;
  std::vector<int64_t> contexts = batch.contexts;
  if (padding > 0) {
    view.offsets.push_back(tokens + padding);
    contexts.push_back(1);
    pages.push_back({0});
  }
  map.pages_BP = PageTable(pages, device);
  view.context_B = at::tensor(contexts, at::kLong).to(at::kInt).to(device);
  view.offsets_device = at::tensor(view.offsets, at::kLong).to(at::kInt).to(device);
  for (size_t b = 0; b + 1 < view.offsets.size(); ++b) {
    view.longest = std::max(view.longest, view.offsets[b + 1] - view.offsets[b]);
  }
  return decoder.Hidden(padded(batch.tokens), view);
}

// One row for each draw, then padding.
at::Tensor DecoderStepModel::Logits(const at::Tensor& hidden_TD, const StepBatch& batch) {
  std::vector<int64_t> rows;
  for (const StepDraw& draw : batch.draws) rows.push_back(draw.at_token);
  rows.resize(rows.size() + static_cast<size_t>(Padding(static_cast<int64_t>(rows.size()))), 0);
  return slots_.decoder()
      .Logits(hidden_TD.index_select(0, Longs(rows, hidden_TD.device())))
      .to(at::kFloat);
}

void DecoderStepModel::Copy(const std::vector<PageCopy>& copies) {
  if (copies.empty()) return;
  std::vector<int64_t> from, to;
  for (const PageCopy& copy : copies) {
    from.push_back(copy.from);
    to.push_back(copy.to);
  }
  const at::Device device = slots_.decoder().device();
  at::Tensor from_N = Longs(from, device), to_N = Longs(to, device);
  for (nn::KvPages& layer : pages_) {
    for (at::Tensor pool : {layer.key, layer.value, layer.choice}) {
      if (!pool.defined()) continue;
      if (pool.scalar_type() == at::kFloat8_e4m3fn) pool = pool.view(at::kByte);  // LibTorch moves no fp8 by index
      pool.index_copy_(0, to_N, pool.index_select(0, from_N));
    }
  }
}

Draws DecoderStepModel::PlainStep(const StepBatch& batch) {
  at::Tensor hidden_TD = Hidden(batch);
  Copy(batch.copies);
  if (batch.draws.empty()) return {};
  at::Tensor logits_BV = Logits(hidden_TD, batch);
  std::vector<RowDraw> rows;
  for (const StepDraw& draw : batch.draws) rows.push_back(draw.draw);
  RowDraw padding;
  padding.temperature = 0;
  rows.resize(static_cast<size_t>(logits_BV.size(0)), padding);
  Draws draws = Sample(logits_BV, rows);
  draws.token.resize(batch.draws.size());
  draws.logprob.resize(batch.draws.size());
  if (!draws.untempered_logprob.empty()) draws.untempered_logprob.resize(batch.draws.size());
  return draws;
}

absl::Status DecoderStepModel::Begin(const StepBatch& batch) {
  return tensor::CatchTorch("generation step", [&] {
    at::NoGradGuard no_grad;
    if (device_step_ == nullptr) {
      plain_draws_ = PlainStep(batch);
      return;
    }
    device_step_->Begin(slots_.decoder(), batch);
    Copy(batch.copies);
  });
}

absl::StatusOr<Draws> DecoderStepModel::Collect() {
  if (device_step_ == nullptr) return std::move(plain_draws_);
  Draws draws;
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("generation step", [&] { draws = device_step_->Collect(); }));
  return draws;
}

absl::StatusOr<std::string> DecoderStepModel::ExpertChoices(const std::vector<int32_t>& pages, size_t tokens) {
  std::string bytes;
  absl::Status status = tensor::CatchTorch("experts of a sequence", [&] {
    at::NoGradGuard no_grad;
    at::Tensor page_P = at::tensor(pages, at::kInt).to(slots_.decoder().device());
    std::vector<at::Tensor> routers;
    for (const nn::KvPages& layer : pages_) {
      if (!layer.choice.defined()) continue;
      routers.push_back(layer.choice.index_select(0, page_P).flatten(0, 1).narrow(0, 0, static_cast<int64_t>(tokens)));
    }
    if (routers.empty()) return;
    at::Tensor choice_TRK = at::stack(routers, 1).to(at::kCPU).contiguous();
    bytes.assign(static_cast<const char*>(choice_TRK.const_data_ptr()), choice_TRK.nbytes());
  });
  REIN_RETURN_IF_ERROR(status);
  return bytes;
}

absl::Status DecoderStepModel::CheckRowsStable() {
  if (!slots_.decoder().device().is_cpu()) return absl::OkStatus();
  constexpr int64_t kLength = 8;
  const int64_t room = int64_t{limits_.pages - 1} / ((kLength - 1) / limits_.page_tokens + 1);
  std::vector<int64_t> tokens;
  for (uint32_t i = 0; i < kLength; ++i) {
    tokens.push_back(random::Philox({i, 0, 0, 0}, 1)[0] % limits_.vocabulary_size);
  }
  at::Tensor alone_V;
  bool stable = true;
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("check of row stability", [&] {
    at::NoGradGuard no_grad;
    for (int64_t sequences : {1, 3, 16}) {
      StepBatch batch;
      for (int64_t s = 0; s < std::min(sequences, room); ++s) {
        const int32_t stride = static_cast<int32_t>((kLength - 1) / limits_.page_tokens + 1);
        AddTokens(1 + static_cast<int32_t>(s) * stride, limits_.page_tokens, tokens, 0, tokens.size(), batch);
      }
      at::Tensor logits_BV = Logits(Hidden(batch), batch);
      if (!alone_V.defined()) alone_V = logits_BV[0].clone();
      stable = stable && at::equal(logits_BV[0], alone_V) &&
               at::equal(logits_BV[static_cast<int64_t>(batch.draws.size()) - 1], alone_V);
    }
  }));
  if (stable) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "matrix products on this machine change a row's bits with the rows beside it: completions "
      "may "
      "depend on the load");
}

}  // namespace rein::rollout
