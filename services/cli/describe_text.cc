#include "services/cli/describe_text.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

#include "services/cli/report_text.h"
#include "services/cli/text_table.h"
#include "services/cli/watch_view.h"

namespace rein::cli {
namespace {

constexpr size_t kEventsShown = 20;
constexpr size_t kDroppedShown = 10;

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// Every line of `text` behind `indent`.
std::string Indented(const std::string& text, const std::string& indent) {
  std::string out;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    absl::StrAppend(&out, indent, line, "\n");
  }
  return out;
}

std::string LedgerText(const v1::LedgerSummary& ledger) {
  std::map<std::string, int> reasons;
  for (const v1::DroppedGroup& dropped : ledger.dropped()) ++reasons[dropped.reason()];
  std::string text = absl::StrCat(
      "ledger     consumed ", ledger.consumed(), " · in training ", ledger.training(), " · scored ",
      ledger.scored(), " · finished ", ledger.finished(), " · in flight ", ledger.in_flight(),
      " · dropped ", ledger.dropped_size(), " · rollouts stored ", ledger.rollouts_stored(), "\n");
  size_t shown = 0;
  for (const auto& [reason, count] : reasons) {
    if (++shown > kDroppedShown) break;
    absl::StrAppend(&text, "           dropped ", count, ": ", reason, "\n");
  }
  if (ledger.duplicates() > 0) {
    absl::StrAppend(&text, "           ALARM: ", ledger.duplicates(), " groups consumed twice\n");
  }
  return text;
}

std::string FinishName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "cut";
    case v1::FINISH_REASON_ABORT:
      return "aborted";
    case v1::FINISH_REASON_DONE:
      return "done";
    case v1::FINISH_REASON_MAX_TURNS:
      return "cut: max_turns";
    case v1::FINISH_REASON_MAX_TOKENS:
      return "cut: max_tokens";
    case v1::FINISH_REASON_TIMEOUT:
      return "cut: timeout";
    default:
      return "?";
  }
}

std::string RolloutHead(const v1::StoredRollout& stored) {
  const v1::Rollout& rollout = stored.rollout();
  const v1::Completion& completion = rollout.completion();
  std::string head = absl::StrCat("update ", stored.update(), " · prompt ",
                                  rollout.group().prompt(), " · sibling ", rollout.sibling());
  if (!completion.versions().empty()) {
    absl::StrAppend(&head, " · policy ", completion.versions(0).version().number());
  }
  if (!rollout.reward().error().empty()) {
    absl::StrAppend(&head, " · not scored: ", rollout.reward().error());
  } else {
    absl::StrAppend(&head, " · reward ", Figure(rollout.reward().reward()));
    std::string parts;
    for (const v1::RewardPart& part : rollout.reward().parts()) {
      absl::StrAppend(&parts, parts.empty() ? "" : ", ", part.name(), " ", Figure(part.score()));
      for (int i = 0; i < part.steps_size(); ++i) {
        absl::StrAppend(&parts, i == 0 ? " by steps of " : " + ", Figure(part.steps(i).reward()));
      }
    }
    if (!parts.empty()) absl::StrAppend(&head, " (", parts, ")");
    if (!rollout.reward().gated_by().empty()) {
      absl::StrAppend(&head, " · failed the gate of ", rollout.reward().gated_by());
    }
  }
  if (rollout.has_advantage()) {
    absl::StrAppend(&head, absl::StrFormat(" · advantage %+.2f", rollout.advantage()));
  }
  absl::StrAppend(&head, " · ", completion.token_ids_size(), " tokens");
  if (!rollout.turns().empty()) {
    uint64_t observed = 0;
    for (const v1::Turn& turn : rollout.turns()) observed += turn.observation_tokens();
    absl::StrAppend(&head, " (", observed, " of them shown) · ", rollout.turns_size(),
                    rollout.turns_size() == 1 ? " turn" : " turns");
  }
  return absl::StrCat(head, " · ", FinishName(completion.finish_reason()));
}

// "  role   first line" and the other lines under it.
std::string Turn(const std::string& role, const std::string& text) {
  return absl::StrCat("  ", PadTo(role, 7), absl::StrReplaceAll(text, {{"\n", "\n         "}}),
                      "\n");
}

// The turns of an episode and what was shown between them; long observations are folded.
std::string TurnsText(const v1::Rollout& rollout) {
  constexpr size_t kShownBytes = 600;
  std::string text;
  for (const v1::Turn& turn : rollout.turns()) {
    absl::StrAppend(&text, Turn("model", turn.text()));
    std::string about = turn.note();
    if (turn.reward() != 0) absl::StrAppend(&about, about.empty() ? "" : " · ", "reward ", Figure(turn.reward()));
    if (!about.empty()) absl::StrAppend(&text, Turn("", absl::StrCat("(", about, ")")));
    for (const v1::Message& message : turn.observation()) {
      std::string shown = message.content();
      if (shown.size() > kShownBytes) {
        size_t end = kShownBytes;
        while (end > 0 && (static_cast<unsigned char>(shown[end]) & 0xC0) == 0x80) --end;
        shown = absl::StrCat(shown.substr(0, end), " ... (", message.content().size() - end, " more bytes)");
      }
      absl::StrAppend(&text, Turn(message.role(), shown));
    }
  }
  return text;
}

// Each token's id with its log-prob where the policy wrote it.
std::string TokensText(const v1::Rollout& rollout) {
  const v1::Completion& completion = rollout.completion();
  std::string line;
  int sampled = 0, turn = 0;
  uint32_t in_turn = 0;  // tokens of the turn in hand that were passed
  for (int i = 0; i < completion.token_ids_size(); ++i) {
    absl::StrAppend(&line, i > 0 ? " " : "", completion.token_ids(i));
    const bool written = turn >= rollout.turns_size() || in_turn < rollout.turns(turn).tokens();
    if (written && sampled < completion.behaviour_logprobs_size()) {
      absl::StrAppend(&line, absl::StrFormat(":%.4f", completion.behaviour_logprobs(sampled++)));
    }
    if (turn >= rollout.turns_size()) continue;
    if (++in_turn == rollout.turns(turn).tokens() + rollout.turns(turn).observation_tokens()) {
      ++turn;
      in_turn = 0;
    }
  }
  return line;
}

// What rules said of their scores, a line each.
std::string Notes(const v1::RewardResult& reward) {
  std::string notes;
  for (const v1::RewardPart& part : reward.parts()) {
    if (!part.note().empty()) {
      absl::StrAppend(&notes, Turn("note", absl::StrCat(part.name(), ": ", part.note())));
    }
  }
  return notes;
}

}  // namespace

std::string OrDash(const std::string& text) { return text.empty() ? "–" : text; }

std::string JobsTable(const v1::ListJobsReply& jobs, absl::Time now, size_t width) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "KIND", "STATE", "GROUP", "UPDATE", "REWARD", "AGE", "MESSAGE"}};
  for (const v1::Job& job : jobs.jobs()) {
    rows.push_back({job.name(), job.kind(), NameOf(job.state()), OrDash(job.group()),
                    absl::StrCat(job.update(), "/", job.max_updates()),
                    Figure(MetricOf(job.metrics(), "reward")), Age(now - At(job.submitted_at())),
                    FirstLine(job.message())});
  }
  return Table(rows, width);
}

std::string RoleOf(const v1::Actor& actor) {
  const bool one_of_several = actor.rank() > 0 || actor.peers_size() > 0;
  return one_of_several ? absl::StrCat(actor.role(), " (rank ", actor.rank(), ")") : actor.role();
}

std::string ActorsTable(const v1::ListActorsReply& actors, size_t width) {
  std::vector<std::vector<std::string>> rows = {
      {"ROLE", "NAME", "GROUP", "JOB", "STATE", "EPOCH", "POLICY", "DEVICE", "ADDRESS", "LOAD"}};
  for (const v1::Actor& actor : actors.actors()) {
    bool weights = actor.version().lineage() > 0;
    rows.push_back({RoleOf(actor), actor.name(), OrDash(actor.group()), OrDash(actor.job()), actor.state(), absl::StrCat(actor.epoch()),
                    weights ? absl::StrCat(actor.version().number()) : "–", actor.device(),
                    actor.address(), actor.load()});
  }
  return Table(rows, width);
}

std::string CheckpointsTable(const v1::Job& job, absl::Time now, size_t width) {
  std::vector<std::vector<std::string>> rows = {{"NUMBER", "UPDATE", "SIZE", "AGE", "FOLDER"}};
  for (const v1::Checkpoint& one : job.checkpoints()) {
    rows.push_back({absl::StrCat(one.number()), absl::StrCat(one.update()), Size(static_cast<double>(one.bytes())),
                    Age(now - At(one.created_at())), one.path()});
  }
  return Table(rows, width);
}

std::vector<std::string> HeldOutLines(const v1::EvalResult& result) {
  std::vector<std::string> lines;
  for (const v1::EvalSlice& slice : result.slices()) {
    std::string line;
    if (result.slices_size() > 1) {
      line = absl::StrCat(slice.dataset(), slice.setting().empty() ? "" : ", ", slice.setting(), ": ");
    }
    if (slice.samples() > 0) {
      absl::StrAppend(&line, absl::StrFormat("accuracy %.3f ± %.3f (%d prompts", slice.accuracy(),
                                             slice.standard_error(), slice.prompts()),
                      slice.samples() > 1 ? absl::StrCat(" x ", slice.samples()) : "", ")");
      for (const v1::PassAtK& at : slice.pass_at()) {
        absl::StrAppend(&line, absl::StrFormat(", pass@%d %.3f", at.k(), at.value()));
      }
    }
    if (slice.has_loss()) {
      absl::StrAppend(&line, slice.samples() > 0 ? ", " : "",
                      absl::StrFormat("loss %.4f, perplexity %.3f (%d tokens)", slice.loss(),
                                      slice.perplexity(), slice.tokens()));
    }
    lines.push_back(std::move(line));
  }
  if (!lines.empty()) return lines;
  return {absl::StrFormat("accuracy %.3f ± %.3f (%d prompts)", result.accuracy(),
                          result.standard_error(), result.prompts())};
}

std::string DescribeJob(const v1::Job& job, const v1::LedgerSummary& ledger,
                        const std::vector<v1::JobEvent>& events, absl::Time now) {
  std::string text = absl::StrCat(
      "name       ", job.name(), "\nkind       ", job.kind(), "\nstate      ", NameOf(job.state()),
      "\ngroup      ", OrDash(job.group()), "\nupdate     ", job.update(), "/", job.max_updates(), "\nsubmitted  ",
      absl::FormatTime(absl::RFC3339_sec, At(job.submitted_at()), absl::UTCTimeZone()), " (",
      Age(now - At(job.submitted_at())), " ago)\nfolder     ", job.output(), "\nconfig     ",
      job.config_hash(), "\n");
  if (job.disk_bytes() > 0) {
    double checkpoints = 0;
    for (const v1::Checkpoint& one : job.checkpoints()) checkpoints += static_cast<double>(one.bytes());
    absl::StrAppend(&text, "disk       ", Size(static_cast<double>(job.disk_bytes())), ", of it ", Size(checkpoints),
                    " in checkpoints\n");
  }
  if (!job.message().empty()) {
    absl::StrAppend(&text, "message    ",
                    absl::StrReplaceAll(job.message(), {{"\n", "\n           "}}), "\n");
  }
  absl::StrAppend(&text, LedgerText(ledger));
  for (const v1::EvalResult& eval : job.evals()) {
    for (const std::string& line : HeldOutLines(eval)) {
      absl::StrAppend(&text, "held-out   update ", eval.update(), ": ", line, "\n");
    }
  }
  for (const v1::Checkpoint& checkpoint : job.checkpoints()) {
    absl::StrAppend(&text, "checkpoint ", checkpoint.number(), " at update ", checkpoint.update(),
                    ", ", Figure(static_cast<double>(checkpoint.bytes())), "B, ", checkpoint.path(),
                    "\n");
  }
  if (!job.metrics().empty()) absl::StrAppend(&text, "\nlast update\n");
  for (const v1::Metric& metric : job.metrics()) {
    absl::StrAppend(&text, "  ", PadTo(metric.name(), 28), Figure(metric.value()), "\n");
  }
  absl::StrAppend(&text, "\nevents\n");
  WatchView view(job);
  std::vector<std::string> lines;
  for (const v1::JobEvent& event : events) {
    std::string line = view.Take(event);
    if (line.empty() || event.has_update()) continue;
    lines.push_back(absl::StrCat("  ", PadTo(Age(now - At(event.time())) + " ago", 12),
                                 absl::StrReplaceAll(line, {{"\n", "; "}}), "\n"));
  }
  size_t first = lines.size() > kEventsShown ? lines.size() - kEventsShown : 0;
  for (size_t i = first; i < lines.size(); ++i) text += lines[i];
  return absl::StrCat(text, "\nconfig\n", Indented(job.config_yaml(), "  "));
}

std::string RolloutsText(const v1::ListRolloutsReply& reply, bool tokens) {
  std::string text;
  for (const v1::StoredRollout& stored : reply.rollouts()) {
    absl::StrAppend(&text, RolloutHead(stored), "\n");
    for (const v1::Message& message : stored.prompt()) {
      absl::StrAppend(&text, Turn(message.role(), message.content()));
    }
    const v1::Rollout& rollout = stored.rollout();
    absl::StrAppend(&text, rollout.turns().empty() ? Turn("model", rollout.completion().text()) : TurnsText(rollout));
    if (!stored.answer().empty()) absl::StrAppend(&text, Turn("answer", stored.answer()));
    absl::StrAppend(&text, Notes(stored.rollout().reward()));
    if (tokens) absl::StrAppend(&text, Turn("tokens", TokensText(rollout)));
  }
  return text;
}

std::string EndText(const v1::Job& job) {
  std::string state = NameOf(job.state());
  if (job.state() != v1::JOB_STATE_FAILED) {
    return absl::StrCat(state, "  ", job.name(), " after ", job.update(), " updates",
                        job.message().empty() ? "" : absl::StrCat(": ", FirstLine(job.message())),
                        "\n");
  }
  return absl::StrCat(
      "FAILED  ", job.name(), " ", absl::StrReplaceAll(job.message(), {{"\n", "\n        "}}),
      "\n        rein describe ", job.name(), "     rein resume ", job.name(), "\n");
}

}  // namespace rein::cli
