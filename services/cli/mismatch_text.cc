#include "services/cli/mismatch_text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

std::string VersionText(const v1::PolicyVersion& version) {
  return absl::StrCat(version.lineage(), ".", version.number());
}

std::string WeightsText(const v1::TraceLayersReply& trace) {
  return absl::StrCat(VersionText(trace.version()), " ", absl::Hex(trace.digest(), absl::kZeroPad16));
}

bool SameVersion(const v1::PolicyVersion& a, const v1::PolicyVersion& b) {
  return a.lineage() == b.lineage() && a.number() == b.number();
}

// Largest difference, and how many differ at all.
template <typename A, typename B>
std::string DifferenceText(const A& a, const B& b) {
  if (static_cast<int>(a.size()) != static_cast<int>(b.size())) return absl::StrCat(a.size(), " and ", b.size(), " of them");
  double largest = 0;
  int differ = 0;
  for (int i = 0; i < static_cast<int>(b.size()); ++i) {
    if (a[i] == b[i]) continue;
    ++differ;
    largest = std::max(largest, std::abs(double{a[i]} - double{b[i]}));
  }
  if (differ == 0) return absl::StrCat("equal in all ", a.size());
  return absl::StrCat("differ in ", differ, " of ", a.size(), ", by ", Figure(largest), " at most");
}

// Who sampled all of it; null when several versions did.
const v1::PolicyVersion* SampledBy(const v1::Completion& completion) {
  return completion.versions_size() == 1 ? &completion.versions(0).version() : nullptr;
}

// What the policy wrote of a completion's tokens; what an environment showed between its turns was not sampled.
std::vector<float> OfSampled(const v1::Rollout& rollout, const google::protobuf::RepeatedField<float>& logprobs) {
  if (rollout.turns().empty()) return {logprobs.begin(), logprobs.end()};
  std::vector<float> sampled;
  int next = 0;
  for (const v1::Turn& turn : rollout.turns()) {
    const int end = std::min(next + static_cast<int>(turn.tokens()), logprobs.size());
    sampled.insert(sampled.end(), logprobs.begin() + std::min(next, end), logprobs.begin() + end);
    next = end + static_cast<int>(turn.observation_tokens());
  }
  return sampled;
}

std::string SampledText(const v1::TraceRolloutReply& reply, const v1::TraceLayersReply& trace) {
  const v1::Completion& completion = reply.rollout().rollout().completion();
  const v1::PolicyVersion* by = SampledBy(completion);
  if (reply.filtered()) return "not comparable: sampled from what filters or penalties left";
  if (by == nullptr) return "not comparable: several versions sampled it";
  if (!SameVersion(*by, trace.version())) return absl::StrCat("not comparable: ", VersionText(*by), " sampled it");
  return DifferenceText(completion.behaviour_logprobs(), OfSampled(reply.rollout().rollout(), trace.logprobs()));
}

std::string StageName(uint32_t stage, uint32_t stages) {
  if (stage == 0) return "embeddings";
  if (stage + 1 == stages) return "last norm";
  return absl::StrCat("layer ", stage - 1);
}

std::string PairText(const v1::ActorTrace& a, const v1::ActorTrace& b, uint32_t prefix, const std::string& job) {
  const std::string both = absl::StrCat("\n", a.actor(), " and ", b.actor(), ": ");
  const v1::TraceLayersReply &x = a.trace(), &y = b.trace();
  if (!SameVersion(x.version(), y.version())) {
    if (b.role() == "reference") return absl::StrCat(both, "other weights, as a frozen reference has; not compared\n");
    return absl::StrCat(both, "other weights, so their layers say nothing. Ask again while nothing moves:\n  rein pause ",
                        job, " && rein debug mismatch ", job, "\n");
  }
  if (x.digest() != 0 && y.digest() != 0 && x.digest() != y.digest()) {
    return absl::StrCat(both, "the same version, but other weights: one of them is corrupt. A restart of ", b.actor(),
                        " sends them anew\n");
  }
  const std::vector<StageDifference> stages = CompareStages(x, y);
  if (stages.empty()) return absl::StrCat(both, "other numbers of layers or tokens\n");
  auto first = std::find_if(stages.begin(), stages.end(), [](const auto& stage) { return stage.tokens > 0; });
  std::string text = absl::StrCat(both, "log-probs ", DifferenceText(x.logprobs(), y.logprobs()), "; ");
  if (first == stages.end()) return absl::StrCat(text, "the same bits in all ", stages.size(), " stages\n");
  const auto total = static_cast<uint32_t>(stages.size());
  const auto where = static_cast<uint32_t>(first - stages.begin());
  absl::StrAppend(&text, "the first stage to differ is ", StageName(where, total), ", at token ", first->first_token,
                  first->first_token < prefix ? " (of the prompt)" : absl::StrCat(" (completion token ", first->first_token - prefix, ")"),
                  "\n");
  std::vector<std::vector<std::string>> table = {{"STAGE", "TOKENS THAT DIFFER", "FIRST", "NORMS BY"}};
  for (uint32_t s = 0; s < total; ++s) {
    const StageDifference& stage = stages[s];
    table.push_back({StageName(s, total), absl::StrCat(stage.tokens),
                     stage.tokens == 0 ? "" : absl::StrCat(stage.first_token), stage.tokens == 0 ? "" : Figure(stage.largest_norm)});
  }
  return absl::StrCat(text, Table(table));
}

}  // namespace

std::vector<StageDifference> CompareStages(const v1::TraceLayersReply& a, const v1::TraceLayersReply& b) {
  if (a.stages() == 0 || a.stages() != b.stages() || a.state_digests_size() != b.state_digests_size() ||
      a.state_norms_size() != a.state_digests_size() || b.state_norms_size() != b.state_digests_size()) {
    return {};
  }
  const int tokens = a.state_digests_size() / static_cast<int>(a.stages());
  std::vector<StageDifference> stages(a.stages());
  for (int i = 0; i < static_cast<int>(a.stages()) * tokens; ++i) {
    if (a.state_digests(i) == b.state_digests(i)) continue;
    StageDifference& stage = stages[static_cast<size_t>(i / tokens)];
    if (stage.tokens++ == 0) stage.first_token = static_cast<uint32_t>(i % tokens);
    const double larger = std::max(std::abs(a.state_norms(i)), std::abs(b.state_norms(i)));
    const double difference = std::abs(double{a.state_norms(i)} - double{b.state_norms(i)});
    stage.largest_norm = std::max(stage.largest_norm, larger > 0 ? difference / larger : 0);
  }
  return stages;
}

std::string MismatchText(const v1::TraceRolloutReply& reply) {
  const v1::Rollout& rollout = reply.rollout().rollout();
  const v1::PolicyVersion* by = SampledBy(rollout.completion());
  std::string text = absl::StrCat(
      "update ", reply.rollout().update(), " · prompt ", rollout.group().prompt(), " · sibling ", rollout.sibling(),
      by == nullptr ? " · several policies" : absl::StrCat(" · policy ", VersionText(*by)), " · ",
      rollout.prompt_token_ids_size(), " + ", rollout.completion().token_ids_size(), " tokens\n");
  std::vector<std::vector<std::string>> table = {{"ACTOR", "WEIGHTS", "COMPUTED", "LOG-PROBS AGAINST WHAT WAS SAMPLED"}};
  const v1::ActorTrace* base = nullptr;
  for (const v1::ActorTrace& trace : reply.traces()) {
    if (!trace.error().empty()) {
      table.push_back({trace.actor(), "-", "-", trace.error()});
      continue;
    }
    table.push_back({trace.actor(), WeightsText(trace.trace()), trace.trace().in_steps() ? "token by token" : "at once",
                     SampledText(reply, trace.trace())});
    if (base == nullptr || (trace.role() == "trainer" && base->role() != "trainer")) base = &trace;
  }
  absl::StrAppend(&text, Table(table));
  for (const v1::ActorTrace& trace : reply.traces()) {
    if (&trace == base || !trace.error().empty()) continue;
    absl::StrAppend(&text, PairText(*base, trace, static_cast<uint32_t>(rollout.prompt_token_ids_size()), reply.job()));
  }
  return text;
}

}  // namespace rein::cli
