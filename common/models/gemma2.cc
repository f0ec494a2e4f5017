// Gemma 2 (Google, arXiv 2408.00118): norms around each half of a block, capped scores and logits, and a sliding
// window on every other layer.

#include "common/models/family_keys.h"
#include "common/models/gemma.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseGemmaKeys(config, spec);
  ParseRope(config, spec);
  ParseWindows(config, spec, [](int64_t layer) { return layer % 2 == 0; });
  spec->score_softcap = config.Has({"attn_logit_softcapping"}) ? config.Positive("attn_logit_softcapping", 50) : 0;
}

}  // namespace

extern constinit const ModelFamily kGemma2{
    "Gemma2ForCausalLM", "gemma2", &Parse, &GemmaPlaces, nullptr, "model."};

}  // namespace rein::models
