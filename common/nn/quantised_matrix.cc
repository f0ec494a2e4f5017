#include "common/nn/quantised_matrix.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <functional>
#include <iterator>
#include <numeric>

#include "common/kernels/unpack.h"
#include "common/nn/launched.h"

namespace rein::nn {
namespace {

using weights::kNf4Block;
using weights::Quantisation;

constexpr double kInt8Most = 127;
// bitsandbytes compares with these (csrc/kernels.cu, dQuantizeNF4), which lie between neighbours of the table.
constexpr float kNf4Bounds[] = {-0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.33967943489551544f,
                                -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
                                0.1202552504837513f,  0.2035212516784668f,  0.2920137718319893f,  0.3893125355243683f,
                                0.5016634166240692f,  0.6427869200706482f,  0.8614784181118011f};

int64_t Count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

void UnpackOnCpu(const QuantisedMatrix& m, float* out) {
  const auto* code = m.code.const_data_ptr<uint8_t>();
  const auto* scale = m.scale.const_data_ptr<float>();
  const bool nf4 = m.format == Quantisation::kNf4;
  const int64_t run = nf4 ? kNf4Block : m.shape.back();  // numbers of one scale
  constexpr int64_t kOfThread = int64_t{1} << 17;  // numbers: less is not worth waking one
  at::parallel_for(0, m.scale.numel(), 1 + kOfThread / run, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float* to = out + r * run;
      if (nf4) {
        for (int64_t i = 0; i < run; i += 2) {
          const uint8_t pair = code[(r * run + i) / 2];
          to[i] = kernels::kNf4Table[pair >> 4] * scale[r];
          to[i + 1] = kernels::kNf4Table[pair & 15] * scale[r];
        }
      } else {
        for (int64_t i = 0; i < run; ++i) to[i] = static_cast<float>(static_cast<int8_t>(code[r * run + i])) * scale[r];
      }
    }
  });
}

}  // namespace

QuantisedMatrix QuantisedMatrix::At(int64_t index) const {
  QuantisedMatrix one = *this;
  const int64_t bytes = code.numel() / shape[0], scales = scale.numel() / shape[0];
  one.code = code.narrow(0, index * bytes, bytes);
  one.scale = scale.narrow(0, index * scales, scales);
  one.shape.erase(one.shape.begin());
  return one;
}

at::Tensor Unpacked(const QuantisedMatrix& m) {
  if (!m.code.is_cuda()) {
    at::Tensor wide = at::empty(m.shape, m.code.options().dtype(at::kFloat));
    UnpackOnCpu(m, wide.mutable_data_ptr<float>());
    return wide.to(m.dtype);
  }
  at::Tensor out = at::empty(m.shape, m.code.options().dtype(m.dtype));
  kernels::Unpacking run;
  run.code = m.code.const_data_ptr();
  run.scale = m.scale.const_data_ptr<float>();
  run.out = out.mutable_data_ptr();
  run.elements = out.numel();
  run.columns = m.shape.back();
  run.nf4 = m.format == Quantisation::kNf4;
  run.narrow = m.dtype == at::kBFloat16;
  Launched(kernels::Unpack(run, Stream()));
  return out;
}

void Quantise(const at::Tensor& from, const QuantisedMatrix& m) {
  TORCH_CHECK(Count(m.shape) == from.numel(), "Quantise: ", from.numel(), " numbers, want ", Count(m.shape));
  const bool nf4 = m.format == Quantisation::kNf4;
  at::Tensor x = from.reshape({-1, nf4 ? kNf4Block : m.shape.back()});
  at::Tensor most = x.abs().amax(1), zero = most == 0;
  if (!nf4) {
    // A GPU divides by a plain number by multiplying with its inverse, which rounds otherwise than a CPU's division.
    m.scale.copy_(most / at::full({}, kInt8Most, most.options()));
    at::Tensor inverse = (kInt8Most / most).masked_fill_(zero, 0);
    m.code.copy_(x.mul(inverse.unsqueeze(1)).round_().clamp_(-kInt8Most, kInt8Most).to(at::kChar).view(at::kByte).flatten());
    return;
  }
  m.scale.copy_(most);
  at::Tensor bounds = at::tensor(std::vector<float>(std::begin(kNf4Bounds), std::end(kNf4Bounds))).to(x.device());
  at::Tensor inverse = most.reciprocal().masked_fill_(zero, 0);
  at::Tensor code = at::bucketize(x.mul(inverse.unsqueeze(1)), bounds, /*out_int32=*/true).to(at::kByte).view({-1, 2});
  m.code.copy_(code.select(1, 0).mul(16).add_(code.select(1, 1)));
}

}  // namespace rein::nn
