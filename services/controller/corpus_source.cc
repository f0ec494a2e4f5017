// The corpus of a pretrain job as a PromptSource.

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/config/corpus_split.h"
#include "common/data/corpus.h"
#include "common/status/status_macros.h"
#include "services/controller/prompt_source.h"

namespace rein::services {
namespace {

class CorpusSource final : public PromptSource {
 public:
  CorpusSource(std::unique_ptr<data::Corpus> corpus, uint64_t context_tokens, v1::DocumentPacking packing)
      : corpus_(std::move(corpus)), context_tokens_(context_tokens), packing_(packing) {}

  uint64_t size() const override { return corpus_->size(); }
  uint64_t context_tokens() const override { return context_tokens_; }

  absl::StatusOr<Prompt> Read(uint64_t) override {
    return absl::InternalError("a corpus has no prompts to complete");
  }

  absl::StatusOr<std::vector<LearnedText>> ReadTexts(uint64_t index) override {
    REIN_ASSIGN_OR_RETURN(std::vector<std::vector<uint32_t>> pieces, corpus_->Read(index));
    std::vector<LearnedText> texts;
    uint32_t position = 0;
    for (std::vector<uint32_t>& piece : pieces) {
      if (packing_ != v1::DOCUMENT_PACKING_JOINED || texts.empty()) {
        const auto tokens = static_cast<uint32_t>(piece.size());
        texts.push_back({.token_ids = std::move(piece)});
        if (packing_ == v1::DOCUMENT_PACKING_CONTINUED) texts.back().first_position = position;
        position += tokens;
      } else {
        auto& ids = texts.front().token_ids;
        ids.insert(ids.end(), piece.begin(), piece.end());
      }
    }
    // A single token predicts nothing.
    std::erase_if(texts, [](const LearnedText& text) { return text.token_ids.size() < 2; });
    for (LearnedText& text : texts) text.loss_mask.assign(text.token_ids.size(), 1);
    return texts;
  }

 private:
  std::unique_ptr<data::Corpus> corpus_;
  const uint64_t context_tokens_;
  const v1::DocumentPacking packing_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PromptSource>> OpenCorpus(const v1::JobConfig& job, bool held_out) {
  const v1::PretrainConfig& config = job.pretrain();
  REIN_ASSIGN_OR_RETURN(ModelLimits limits, ReadLimits(job.model()));
  if (limits.context_tokens > 0 && config.sequence_tokens() > limits.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("pretrain.sequence_tokens is ",
                                                   config.sequence_tokens(), ", the model takes ",
                                                   limits.context_tokens));
  }
  REIN_ASSIGN_OR_RETURN(std::vector<double> shares, config::SplitShares(config.split()));
  data::CorpusOptions options{.sequence_tokens = config.sequence_tokens(),
                              .share_begin = held_out ? shares[0] : 0,
                              .share_end = held_out ? shares[0] + shares[1] : shares[0],
                              .passes = config.passes(),
                              .seed = job.seed(),
                              .shuffle = job.data().shuffle() && !held_out};
  if (held_out) options.passes = 1;
  if (!held_out && config.has_updates()) {
    options.sequences = uint64_t{config.updates()} * config.sequences();
  }
  auto open = [&]() -> absl::StatusOr<std::unique_ptr<data::Corpus>> {
    std::vector<data::CorpusPart> parts;
    for (const v1::CorpusConfig& part : config.corpus()) {
      REIN_ASSIGN_OR_RETURN(auto tokens, data::IndexedTokens::Open(part.path()));
      parts.push_back({.tokens = std::move(tokens), .weight = part.weight()});
    }
    return data::Corpus::Create(std::move(parts), options);
  };
  REIN_ASSIGN_OR_RETURN(std::unique_ptr<data::Corpus> corpus, open());
  if (held_out && corpus->size() > config.held_out_sequences()) {
    options.sequences = config.held_out_sequences();
    REIN_ASSIGN_OR_RETURN(corpus, open());
  }
  return std::make_unique<CorpusSource>(std::move(corpus), limits.context_tokens,
                                        config.documents());
}

}  // namespace rein::services
