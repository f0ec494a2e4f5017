// PromptSource gives a job its prompts and texts, tokenised once.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <google/protobuf/struct.pb.h>

#include "common/config/job_kind.h"
#include "rein/v1/job.pb.h"
#include "rein/v1/policy.pb.h"

namespace rein::services {

struct Prompt {
  std::vector<uint32_t> token_ids;
  std::vector<v1::Message> messages;
  std::string answer;
  google::protobuf::Struct columns;
  uint32_t cut_tokens = 0;  // that data.truncate took from token_ids
};

// A text to learn: the prompt, then what follows it.
struct LearnedText {
  std::vector<uint32_t> token_ids;
  uint32_t prompt_tokens = 0;       // before the answer
  std::vector<uint8_t> loss_mask;  // 1 where the token is learned
  // 1 for an answer marked good; the score of one with a score; of the chosen one of a pair: the margin.
  double reward = 0;
  std::vector<double> target_rewards;  // one for each target, or none: labels of steps, or weights of turns
  uint32_t first_position = 0;         // of the first token
  uint32_t cut_tokens = 0;             // that data.truncate took
};

class PromptSource {
 public:
  virtual ~PromptSource() = default;
  virtual uint64_t size() const = 0;
  // Longest sequence that the model takes, in tokens; 0: not known here.
  virtual uint64_t context_tokens() const = 0;
  virtual absl::StatusOr<Prompt> Read(uint64_t index) = 0;
  // Ids of a conversation, up to where the policy writes; `tools`: schemas for the chat template. INVALID_ARGUMENT where
  // the prompts are no conversations.
  virtual absl::StatusOr<std::vector<uint32_t>> EncodeMessages(const std::vector<v1::Message>& /*messages*/,
                                                               const std::vector<std::string>& /*tools*/) {
    return absl::InvalidArgumentError("these prompts are no conversations");
  }
  // Ids that follow a turn of the policy which answers `messages` and ends with the token `last`, when `next` is shown
  // and the policy writes again.
  virtual absl::StatusOr<std::vector<uint32_t>> EncodeObservation(const std::vector<v1::Message>& /*messages*/,
                                                                  const std::vector<v1::Message>& /*next*/,
                                                                  uint32_t /*last*/,
                                                                  const std::vector<std::string>& /*tools*/) {
    return absl::InvalidArgumentError("these prompts are no conversations");
  }
  // Whether the model is shown tools that EncodeMessages() is given.
  virtual absl::StatusOr<bool> ShowsTools() { return false; }
  // Bytes of a completion's text up to and with each of its tokens.
  virtual absl::StatusOr<std::vector<uint32_t>> TextEnds(const std::vector<uint32_t>& /*token_ids*/) {
    return absl::InvalidArgumentError("these prompts have no tokenizer");
  }
  // The texts of a line: one; of a pair the chosen one, then the rejected one.
  virtual absl::StatusOr<std::vector<LearnedText>> ReadTexts(uint64_t index) = 0;
};

// What the controller must know of a model; 0: not said. The services check the rest.
struct ModelLimits {
  uint64_t vocabulary = 0;
  uint64_t context_tokens = 0;
};

// From config.json and model.max_length. INVALID_ARGUMENT or NOT_FOUND names the file.
absl::StatusOr<ModelLimits> ReadLimits(const v1::ModelConfig& model);

// Reads a JSONL file with the tokenizer and chat template of `model`, whose vocabulary must fit its
// weights. `answers`: what every line must have; absent: answers may lack.
struct PromptOptions {
  std::optional<config::TextJob::Answers> answers;
  bool all_turns = false;   // every turn of the assistant is learned
  bool imitates = false;    // what the assistant wrote is copied: an empty turn is an error
  std::string separator;    // of steps
  v1::Truncation truncate = v1::TRUNCATION_UNSPECIFIED;  // what is too long is cut here
  uint64_t prompt_tokens = 0;                            // at most, of a prompt; 0: what the context leaves
  uint64_t completion_tokens = 0;                        // that a prompt leaves room for where it is cut
};
absl::StatusOr<std::unique_ptr<PromptSource>> OpenPrompts(const v1::DatasetConfig& dataset,
                                                          const v1::ModelConfig& model, const PromptOptions& options);

// What a job's training data must have, and its held-out data.
PromptOptions TrainPrompts(const v1::JobConfig& job);
PromptOptions HeldOutPrompts(const v1::JobConfig& job);

// The corpus of a pretrain job: line i is its sequence number i, which depends on (seed, i) alone; `held_out`: the
// sequences of the held-out share instead. INVALID_ARGUMENT names the file that is wrong.
absl::StatusOr<std::unique_ptr<PromptSource>> OpenCorpus(const v1::JobConfig& job, bool held_out);

// Opens the data as the run will, and looks for lines that are too long among the first ones, so
// that a wrong file is told at submit.
absl::Status CheckPrompts(const v1::JobConfig& job);

// Looks at the lines that CheckPrompts() left out (at all where lines are cut), until `go_on` is false: none should end a
// job that has trained for hours. What a user should know: how many are cut, or nothing.
absl::StatusOr<std::string> CheckOtherPrompts(const v1::JobConfig& job, PromptSource& train,
                               const std::function<bool()>& go_on);

}  // namespace rein::services
