// NextAction decides what a job does next: a pure function of what is known, so that every rule of
// the run loop can be tested without a thread, a clock or a port.
//
// The loop asks again after each action until the answer is kWait; an action that was started shows
// in the next snapshot as something under way.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace rein::services {

// What the job wants; does not change while it runs.
struct Plan {
  // grpo and its like; sft, dpo and their like; evaluate; generate and score, whose groups end in a file.
  enum class Kind { kRollouts, kTexts, kEvaluate, kCollect };

  Kind kind = Kind::kRollouts;
  uint64_t updates = 0;            // wanted
  uint64_t groups_per_update = 0;  // prompts, or sequences of texts
  bool one_pass = false;           // the job ends with the data
  uint32_t group_size = 0;         // siblings that are trained on; 0 for texts
  bool greedy_sibling = false;     // one more, drawn greedily: a baseline, never trained on
  bool needs_signal = false;       // a group of equal rewards is dropped, and another prompt drawn
  uint32_t staleness = 0;          // updates that rollouts may be behind
  bool out_of_order = false;       // an update takes what is scored first; false: in order of issue
  bool drops_stale = false;        // what falls further behind is given up
  bool drains = false;             // a generator gets new weights once its groups have ended
  bool reference = false;          // a KL term is used
  bool teacher = false;            // every batch is scored by a reference before it is trained on
  bool reward_models = false;      // references serve the job's reward models
  bool generates = true;           // groups are completed by generators; false: they come with their tokens
  bool scores = true;              // completions have rewards
  bool evaluates = false;          // held-out prompts are completed and scored
  bool validates = false;          // the trainer scores held-out answers
  uint64_t eval_every = 0;         // 0: before the first update and at the end
  uint64_t checkpoint_every = 0;   // 0: at the end
};

// One name for weights: the order is (lineage, number).
struct Version {
  uint64_t lineage = 0;
  uint64_t number = 0;
  bool operator==(const Version&) const = default;
};

// A generator, reference or rewarder that may be used now.
struct ActorView {
  std::string name;
  bool loaded = false;       // has the job's model
  bool busy = false;         // is being loaded
  bool waits = false;        // with loading, until the trainer has taken its part of the GPU that both use
  bool has_weights = false;  // `version` is set
  Version version;
  uint64_t in_flight = 0;                        // groups that it works on
  absl::Time not_before = absl::InfinitePast();  // after a failure
};

struct TrainerView {
  bool present = false;
  bool known = false;  // its status was asked for
  bool busy = false;
  bool loaded = false;  // has this job
  Version version;
  absl::Time not_before = absl::InfinitePast();
};

// A group, or a held-out prompt, that waits for work.
struct WaitingGroup {
  uint64_t order = 0;
  bool held_out = false;
  uint64_t oldest_version = 0;  // generation: lowest version number that may be used
  absl::Time not_before = absl::InfinitePast();
};

struct Snapshot {
  absl::Time now;
  Plan plan;

  // From the ledger.
  Version current;                // weights that the consumed updates made
  bool training_pending = false;  // groups are in training(current.number + 1)
  uint64_t open_groups = 0;       // neither consumed nor dropped
  uint64_t ready_groups = 0;      // scored ones; in order: those before the first that is not
  bool more_prompts = false;      // the data has not ended
  bool has_checkpoint = false;
  uint64_t checkpoint_update = 0;  // of the newest
  bool evaluated = false;          // held-out result for current.number is there
  bool evaluating = false;         // or under way
  bool validating = false;         // and answers are left whose loss is not known
  bool exported = false;           // the final weights (the results of kCollect) were written
  std::vector<WaitingGroup> stale;  // were begun by weights that no update takes any more
  std::vector<WaitingGroup> to_generate;
  std::vector<WaitingGroup> to_score;      // by the rewarder
  std::vector<WaitingGroup> to_reference;  // by the reference

  TrainerView trainer;
  std::vector<ActorView> generators;
  std::vector<ActorView> references;
  std::vector<ActorView> rewarders;
};

enum class ActionKind {
  kAskTrainer,      // for its status
  kLoadTrainer,     // from the newest checkpoint, or from the start; rolls the ledger back
  kLoadInitial,     // from the start, to serve a reference that has no weights
  kLoadGenerator,   // actor
  kLoadReference,   // actor
  kPublish,         // to actors
  kSave,            // a checkpoint
  kExport,          // the final weights, as a folder that others load
  kEvaluate,        // begin: the held-out prompts become groups to generate
  kValidate,        // the trainer scores some of the held-out answers
  kCollect,         // the first `count` scored groups are done
  kWriteResults,    // of kCollect, as a file
  kDropStale,       // orders
  kIssue,           // count more groups
  kGenerate,        // orders, on actor
  kScore,           // orders, on actor
  kScoreReference,  // orders, on actor
  kTrain,           // the first `count` scored groups, or those in training
  kFinish,
  kWait,  // until something happens, at the latest `deadline`
};

struct Action {
  ActionKind kind = ActionKind::kWait;
  std::string actor;
  std::vector<std::string> actors;
  std::vector<WaitingGroup> groups;
  uint64_t count = 0;
  absl::Time deadline = absl::InfiniteFuture();
};

Action NextAction(const Snapshot& snapshot);

// What a person should know while nothing moves: "waits for a trainer"; empty when all is well.
std::string WaitsFor(const Snapshot& snapshot);

}  // namespace rein::services
