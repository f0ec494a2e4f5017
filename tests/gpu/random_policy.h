// A policy with random weights of a known family's shape, as trainer and generator hold it: for tests and
// benchmarks that need no trained model.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/policy/policy_slots.h"
#include "common/text/model_text.h"
#include "trainer/policy_trainer.h"

namespace rein::gpu {

struct ShapeOfModel {
  std::string name, architecture, model_type;
  int64_t layers, width, heads, kv_heads, head_dim, ffn, vocabulary;
  bool tied = true;
  int64_t experts = 0, chosen = 0, expert_ffn = 0;  // no experts: every layer is dense
  std::string keys = {};     // JSON: config.json's further keys; with "architectures" among them the whole of it
};

// qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b, llama3.2-1b, smollm2-135m;
// qwen3-30b-a3b-4l and olmoe-1b-7b-4l: four layers of these, without OLMoE's norms over all of q and k; mixtral-small-4l: four
// of Mixtral at half its width and a quarter of its experts' width. small-*: four narrow layers of a family, with
// what is its own; other-*: the same of families that are not exact. Null for another name.
const ShapeOfModel* FindShape(const std::string& name);
// Names that begin with `prefix`.
std::vector<std::string> ShapeNames(const std::string& prefix);

// Writes a folder with a config.json of the shape (and so many layers, if above 0); returns its path.
std::string WriteModelFolder(const ShapeOfModel& shape, int64_t layers = 0);

class RandomPolicy {
 public:
  // Dies with a message when anything fails.
  RandomPolicy(const std::string& folder, trainer::TrainerSettings settings,
               trainer::Algorithm algorithm, bool with_generator = true);

  trainer::PolicyTrainer& trainer() { return *trainer_; }
  policy::PolicySlots& slots() { return *slots_; }
  const text::ModelText& text() const { return *text_; }
  // The trainer's weights into use by the generator.
  void Publish();

 private:
  std::unique_ptr<parallel::ProcessGroup> group_;
  std::unique_ptr<trainer::PolicyTrainer> trainer_;
  std::unique_ptr<policy::PolicySlots> slots_;
  std::unique_ptr<text::ModelText> text_;
  uint64_t version_ = 0;
};

}  // namespace rein::gpu
