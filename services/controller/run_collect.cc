// The part of RunLoop that goes through data without training (generate, score), and the curriculum.

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "common/data/result_lines.h"
#include "common/status/status_macros.h"
#include "services/controller/run_loop.h"

namespace rein::services {
namespace {

// Groups that are written before others may have the thread.
constexpr uint64_t kWrittenGroups = 256;

std::string NameOf(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_DONE:
      return "done";
    case v1::FINISH_REASON_MAX_TURNS:
      return "max_turns";
    case v1::FINISH_REASON_MAX_TOKENS:
      return "max_tokens";
    case v1::FINISH_REASON_TIMEOUT:
      return "timeout";
    default:
      return "abort";
  }
}

template <typename To, typename From>
std::vector<To> Copied(const From& from) {
  return {from.begin(), from.end()};
}

// Lines count from 1, as in the one-shot commands.
nlohmann::json IdOf(const v1::Rollout& rollout) { return rollout.group().prompt() + 1; }

nlohmann::ordered_json CompletionJson(const v1::Rollout& rollout, bool several, bool scored) {
  const v1::Completion& completion = rollout.completion();
  data::CompletionLine line{.id = IdOf(rollout),
                            .prompt_tokens = Copied<uint32_t>(rollout.prompt_token_ids()),
                            .tokens = Copied<uint32_t>(completion.token_ids()),
                            .logprobs = Copied<float>(completion.behaviour_logprobs()),
                            .text = completion.text(),
                            .finish_reason = NameOf(completion.finish_reason())};
  if (several) line.sibling = rollout.sibling();
  nlohmann::ordered_json out = data::ToJson(line);
  for (const v1::Turn& turn : rollout.turns()) {
    nlohmann::ordered_json said = {{"text", turn.text()}, {"tokens", turn.tokens()}};
    for (const v1::Message& message : turn.observation()) {
      said["observation"].push_back({{"role", message.role()}, {"content", message.content()}});
    }
    if (turn.observation_tokens() > 0) said["observation_tokens"] = turn.observation_tokens();
    if (turn.reward() != 0) said["reward"] = turn.reward();
    out["turns"].push_back(std::move(said));
  }
  if (!scored && rollout.reward().error().empty()) return out;
  if (!rollout.reward().error().empty()) {
    out["error"] = rollout.reward().error();
    return out;
  }
  out["reward"] = rollout.reward().reward();
  for (const v1::RewardPart& part : rollout.reward().parts()) {
    out["rewards"][part.name()] = part.score();
  }
  return out;
}

}  // namespace

absl::Status RunLoop::StoreText(uint64_t order, uint64_t line) {
  REIN_ASSIGN_OR_RETURN(std::vector<LearnedText> texts, state_.deps.train->ReadTexts(line));
  const LearnedText& text = texts.front();
  if (text.token_ids.size() < 2) return ledger_->Drop(order, "score: the text is a single token");
  const size_t context = state_.job.config.score().prompt()
                             ? 1
                             : std::max<size_t>(1, text.prompt_tokens);
  v1::StoredRollout stored;
  v1::Rollout& rollout = *stored.mutable_rollout();
  *rollout.mutable_group() = ledger_->Find(order)->id;
  const auto cut = text.token_ids.begin() + static_cast<std::ptrdiff_t>(context);
  rollout.mutable_prompt_token_ids()->Add(text.token_ids.begin(), cut);
  rollout.mutable_completion()->mutable_token_ids()->Add(cut, text.token_ids.end());
  return ledger_->StoreRollout(order, stored).status();
}

// Of jobs whose completions nobody scores.
void RunLoop::CloseFinished() {
  std::vector<uint64_t> finished;
  for (const auto& [order, state] : ledger_->open()) {
    if (state == GroupState::kFinished) finished.push_back(order);
  }
  for (uint64_t order : finished) CloseIfScored(order);
}

void RunLoop::Collect(uint64_t count) {
  std::vector<uint64_t> orders = ledger_->Ready(/*in_order=*/true);
  orders.resize(std::min<size_t>(orders.size(), count));
  for (uint64_t order : orders) state_.Check(ledger_->Collect(order));
  state_.Commit();
}

void RunLoop::WriteResults() {
  const JobRecord& job = state_.job;
  const bool scores_texts = job.config.has_score();
  if (results_ == nullptr) {
    auto file = ResultFile::Create(
        absl::StrCat(job.output, scores_texts ? "/scores.jsonl" : "/completions.jsonl"));
    if (!state_.Check(file.status())) return;
    results_ = *std::move(file);
  }
  const auto& groups = ledger_->groups();
  auto group = groups.lower_bound(results_->next_order);
  for (uint64_t n = 0; n < kWrittenGroups && group != groups.end(); ++n, ++group) {
    results_->next_order = group->first + 1;
    if (group->second.state != GroupState::kConsumed) continue;
    for (uint32_t i = 0; i < group->second.siblings.size(); ++i) {
      absl::StatusOr<v1::StoredRollout> stored = ledger_->Read(group->first, i);
      if (!state_.Check(stored.status())) return;
      const v1::Rollout& rollout = stored->rollout();
      nlohmann::ordered_json line;
      if (scores_texts) {
        std::vector<uint32_t> tokens = Copied<uint32_t>(rollout.prompt_token_ids());
        for (uint32_t id : rollout.completion().token_ids()) tokens.push_back(id);
        line = data::ScoredTokensJson(IdOf(rollout), tokens,
                                      Copied<float>(rollout.reference_logprobs()));
        for (float logprob : rollout.reference_logprobs()) results_->logprob_sum += logprob;
        results_->tokens += static_cast<uint64_t>(rollout.reference_logprobs_size());
      } else {
        line = CompletionJson(rollout, state_.plan.group_size > 1, state_.plan.scores);
        results_->tokens += static_cast<uint64_t>(rollout.completion().token_ids_size());
      }
      ++results_->sequences;
      if (!state_.Check(results_->Add(line.dump()))) return;
    }
  }
  if (group != groups.end()) return;
  if (!state_.Check(results_->Close())) return;
  if (scores_texts && results_->tokens > 0) {
    v1::EvalResult result;
    v1::EvalSlice* slice = result.add_slices();
    const auto summary = data::ScoreSummaryJson(results_->sequences, results_->tokens, results_->logprob_sum);
    slice->set_dataset("eval");
    slice->set_prompts(static_cast<uint32_t>(results_->sequences));
    slice->set_tokens(results_->tokens);
    slice->set_loss(summary["loss"].get<double>());
    slice->set_perplexity(summary["perplexity"].get<double>());
    result.set_prompts(slice->prompts());
    RecordEval(result);
  }
  state_.Tell(absl::StrCat("wrote ", results_->sequences, scores_texts ? " scored texts, " : " completions, ",
                           results_->tokens, " tokens"));
  results_.reset();
  state_.exported = true;
}

void RunLoop::NotePassRate(const Group& group) {
  if (group.state == GroupState::kDropped) return;
  const v1::GrpoConfig* rl = config::PolicyGradientOf(state_.job.config);
  if (rl == nullptr) return;
  const v1::CurriculumConfig& curriculum = rl->curriculum();
  if (!curriculum.has_min_pass_rate() && !curriculum.has_max_pass_rate()) return;
  double passed = 0, tried = 0;
  const size_t trained = std::min<size_t>(group.siblings.size(), state_.plan.group_size);
  for (size_t i = 0; i < trained; ++i) {
    const Sibling& sibling = group.siblings[i];
    if (!sibling.scored || sibling.failed) continue;
    tried += 1;
    passed += sibling.reward >= curriculum.threshold() ? 1 : 0;
  }
  if (tried == 0) return;
  PassRate& last = pass_rates_[group.id.prompt()];
  if (group.id.data_epoch() >= last.data_epoch) {
    last = {.rate = passed / tried, .data_epoch = group.id.data_epoch()};
  }
}

std::string RunLoop::TooEasyOrHard(uint64_t prompt) const {
  auto last = pass_rates_.find(prompt);
  if (last == pass_rates_.end()) return "";
  const v1::CurriculumConfig& curriculum =
      config::PolicyGradientOf(state_.job.config)->curriculum();
  const PassRate& pass = last->second;
  if (state_.job.cursor_epoch > pass.data_epoch + curriculum.passes()) return "";
  const bool hard = curriculum.has_min_pass_rate() && pass.rate < curriculum.min_pass_rate();
  const bool easy = curriculum.has_max_pass_rate() && pass.rate > curriculum.max_pass_rate();
  if (!hard && !easy) return "";
  return absl::StrCat("curriculum: too ", hard ? "hard" : "easy", ", a share of ", pass.rate,
                      " passed in data epoch ", pass.data_epoch);
}

}  // namespace rein::services
