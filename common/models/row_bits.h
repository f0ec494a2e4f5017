// Which decoders give a token the same bits in every pass on a GPU, whatever stands beside it.

#pragma once

#include "common/models/decoder_spec.h"

namespace rein::models {

// Whether in bf16 on a GPU of Hopper every operation of such a decoder is one that keeps a row's bits: then the
// generator's log-prob of a token is the trainer's. Latent attention computes other sums in generation than in training,
// and delta nets, head dims without a kernel and rows too long for one run by LibTorch, whose bits may change with the
// number of rows.
bool KeepsRowBits(const DecoderSpec& spec);

}  // namespace rein::models
