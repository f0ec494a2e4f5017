// FakePrompts is a PromptSource without files: prompt i has the ids {i + 1, 7} and the answer "i".

#pragma once

#include <string>
#include <vector>

#include "services/controller/prompt_source.h"
#include "services/controller/run_state.h"

namespace rein::fakes {

class FakePrompts : public services::PromptSource {
 public:
  explicit FakePrompts(uint64_t size) : size_(size) {}

  uint64_t size() const override { return size_; }
  uint64_t context_tokens() const override { return context; }

  absl::StatusOr<services::Prompt> Read(uint64_t index) override {
    services::Prompt prompt{.token_ids = {static_cast<uint32_t>(index) + 1, 7},
                            .answer = std::to_string(index)};
    v1::Message& message = prompt.messages.emplace_back();
    message.set_role("user");
    message.set_content("prompt " + std::to_string(index));
    return prompt;
  }

  // 900, then the lengths of the messages.
  absl::StatusOr<std::vector<uint32_t>> EncodeMessages(const std::vector<v1::Message>& messages,
                                                       const std::vector<std::string>& tools) override {
    std::vector<uint32_t> ids = {900};
    for (const v1::Message& message : messages) ids.push_back(static_cast<uint32_t>(message.content().size()));
    for (const std::string& tool : tools) ids.push_back(static_cast<uint32_t>(tool.size()));
    return ids;
  }
  // 901, the lengths of the messages, 902.
  absl::StatusOr<std::vector<uint32_t>> EncodeObservation(const std::vector<v1::Message>&,
                                                          const std::vector<v1::Message>& next, uint32_t,
                                                          const std::vector<std::string>&) override {
    std::vector<uint32_t> ids = {901};
    for (const v1::Message& message : next) ids.push_back(static_cast<uint32_t>(message.content().size()));
    ids.push_back(902);
    return ids;
  }

  absl::StatusOr<std::vector<services::LearnedText>> ReadTexts(uint64_t index) override {
    return std::vector<services::LearnedText>{
        {.token_ids = {static_cast<uint32_t>(index) + 1, 7, 9, 2},
         .prompt_tokens = 2,
         .loss_mask = {0, 0, 1, 1}}};
  }

  uint64_t context = 0;

 private:
  const uint64_t size_;
};

// Keeps what it was told.
class FakeRecorder final : public services::RunRecorder {
 public:
  void OnUpdate(const services::JobRecord&, const v1::UpdateRecord& record) override {
    updates.push_back(record);
  }
  void OnEval(const services::JobRecord&, const v1::EvalResult& result) override {
    evals.push_back(result);
  }
  void RemoveCheckpoint(const std::string& path) override { removed.push_back(path); }

  std::vector<v1::UpdateRecord> updates;
  std::vector<v1::EvalResult> evals;
  std::vector<std::string> removed;
};

}  // namespace rein::fakes
