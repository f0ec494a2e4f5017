#include "common/nn/sequence_view.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common/kernels/attention.h"
#include "common/nn/latent_decode.h"
#include "common/nn/launched.h"
#include "common/tensor/transfer.h"

namespace rein::nn {

namespace {

at::Tensor Longs(const std::vector<int64_t>& values, at::Device device) {
  return tensor::ToDevice(at::tensor(values, at::kLong), device);
}
at::Tensor Ints(const std::vector<int64_t>& values, at::Device device) {
  return tensor::ToDevice(at::tensor(values, at::kLong).to(at::kInt), device);
}

std::shared_ptr<const SharedPrompts> Share(const std::vector<Segment>& segments,
                                           const std::vector<int64_t>& offsets, at::Device device) {
  std::vector<int64_t> source, own, begin, lengths;
  std::vector<int64_t> prompt_begin, prompt_length, tail_begin, tail_length;
  size_t prompt = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    begin.push_back(static_cast<int64_t>(source.size()));
    auto append = [&](size_t segment) {
      for (int64_t t = offsets[segment]; t < offsets[segment + 1]; ++t) source.push_back(t);
    };
    if (!segments[s].continues) {
      prompt = s;
    } else {
      if (s == prompt + 1) {
        prompt_begin.push_back(offsets[prompt]);
        prompt_length.push_back(segments[prompt].length);
        tail_begin.push_back(offsets[s]);
        tail_length.push_back(0);
      }
      tail_length.back() += segments[s].length;
      append(prompt);
    }
    for (int64_t t = 0; t < segments[s].length; ++t) own.push_back(static_cast<int64_t>(source.size()) + t);
    append(s);
    lengths.push_back(static_cast<int64_t>(source.size()) - begin.back());
  }
  auto shared = std::make_shared<SharedPrompts>();
  shared->source_E = Longs(source, device);
  shared->own_T = Longs(own, device);
  shared->begin_S = Ints(begin, device);
  shared->copies = std::make_shared<SequenceView>(PackedSequences(lengths, device));
  shared->prompt_begin_G = Ints(prompt_begin, device);
  shared->prompt_length_G = Ints(prompt_length, device);
  shared->tail_begin_G = Ints(tail_begin, device);
  shared->tail_length_G = Ints(tail_length, device);
  shared->longest_prompt = *std::max_element(prompt_length.begin(), prompt_length.end());
  shared->longest_tail = *std::max_element(tail_length.begin(), tail_length.end());
  return shared;
}

}  // namespace

SequenceView PackedSegments(const std::vector<Segment>& segments, at::Device device) {
  SequenceView view;
  view.offsets.push_back(0);
  std::vector<int64_t> positions, contexts;
  int64_t prompt = 0, shift = 0;
  bool any = false;
  for (const Segment& segment : segments) {
    const int64_t first = segment.continues ? prompt : 0;
    if (!segment.continues) {
      prompt = segment.length;
      shift = segment.first_position;
    }
    any = any || segment.continues;
    view.offsets.push_back(view.offsets.back() + segment.length);
    view.longest = std::max(view.longest, segment.length);
    contexts.push_back(first + segment.length);
    for (int64_t t = 0; t < segment.length; ++t) positions.push_back(shift + first + t);
  }
  view.position_T = Longs(positions, device);
  view.offsets_device = Ints(view.offsets, device);
  view.context_B = Ints(contexts, device);
  if (any) view.shared = Share(segments, view.offsets, device);
  return view;
}

SequenceView PackedSequences(const std::vector<int64_t>& lengths, at::Device device) {
  std::vector<Segment> segments;
  for (int64_t length : lengths) segments.push_back({.length = length});
  return PackedSegments(segments, device);
}

void PlanDecode(PageMap& map, const at::Tensor& context_B, int64_t heads, int64_t head_dim) {
  if (map.single_queries == 0) return;
  // Not of a recurrent layer, whose "pages" are states.
  auto attends = [](const KvPages& pages) { return pages.value.dim() == 4; };
  const KvPages& pages = *std::find_if(map.layers->begin(), map.layers->end(), attends);
  if (pages.value.size(3) == 0) {  // latents
    if (DecodesLatents(map, pages)) PlanLatents(map, context_B, heads);
    return;
  }
  if (!kernels::AttentionTakes(head_dim)) return;
  Reserve(kernels::DecodeScratchBytes(map.most_chunks, map.single_queries, heads, head_dim), context_B, map.decode_scratch);
  kernels::DecodePlan plan;
  plan.context = context_B.const_data_ptr<int32_t>();
  if (map.shared_B.defined()) plan.shared = map.shared_B.const_data_ptr<int32_t>();
  plan.sequences = map.single_queries;
  plan.heads = heads;
  plan.kv_heads = pages.key.size(2);
  plan.most_chunks = map.most_chunks;
  Launched(kernels::PlanDecode(plan, map.decode_scratch.mutable_data_ptr(), Stream()));
}

}  // namespace rein::nn
