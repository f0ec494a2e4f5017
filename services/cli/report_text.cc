#include "services/cli/report_text.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include <nlohmann/json.hpp>

#include "common/config/nearest_name.h"
#include "services/cli/describe_text.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

constexpr const char* kCommon[] = {"reward", "loss", "reference_kl", "entropy", "grad_norm", "completion_tokens",
                                   "truncated_ratio", "lag", "tokens_per_second", "seconds"};

// Longest common subsequence of two lists, as (in a, in b) with npos where one lacks it; in order.
constexpr size_t kNone = static_cast<size_t>(-1);
constexpr size_t kMaxDiff = 4000;  // elements of a list; the rest counts as changed

std::vector<std::pair<size_t, size_t>> Align(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  const size_t n = std::min(a.size(), kMaxDiff), m = std::min(b.size(), kMaxDiff);
  std::vector<std::vector<uint16_t>> length(n + 1, std::vector<uint16_t>(m + 1, 0));
  for (size_t i = n; i-- > 0;) {
    for (size_t k = m; k-- > 0;) {
      length[i][k] = a[i] == b[k] ? static_cast<uint16_t>(length[i + 1][k + 1] + 1)
                                  : std::max(length[i + 1][k], length[i][k + 1]);
    }
  }
  std::vector<std::pair<size_t, size_t>> pairs;
  size_t i = 0, k = 0;
  while (i < n && k < m) {
    if (a[i] == b[k]) {
      pairs.emplace_back(i++, k++);
    } else if (length[i + 1][k] >= length[i][k + 1]) {
      pairs.emplace_back(i++, kNone);
    } else {
      pairs.emplace_back(kNone, k++);
    }
  }
  for (; i < a.size(); ++i) pairs.emplace_back(i, kNone);
  for (; k < b.size(); ++k) pairs.emplace_back(kNone, k);
  return pairs;
}

// Words with the white space before them.
std::vector<std::string> Words(const std::string& text) {
  std::vector<std::string> words;
  bool in_space = true;
  for (char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\t';
    if (words.empty() || (space && !in_space)) words.emplace_back();
    words.back() += c;
    in_space = space;
  }
  return words;
}

std::string WordDiff(const std::string& a, const std::string& b) {
  const std::vector<std::string> from = Words(a), to = Words(b);
  std::string removed, added, text;
  auto flush = [&] {
    if (!removed.empty()) absl::StrAppend(&text, "[-", removed, "-]");
    if (!added.empty()) absl::StrAppend(&text, "{+", added, "+}");
    removed.clear();
    added.clear();
  };
  for (const auto& [i, k] : Align(from, to)) {
    if (i != kNone && k != kNone) {
      flush();
      text += from[i];
    } else if (i != kNone) {
      removed += from[i];
    } else {
      added += to[k];
    }
  }
  flush();
  return text;
}

double MeanOf(const v1::ListUpdatesReply& updates, const std::string& key, size_t window) {
  double sum = 0;
  int count = 0;
  const int first = std::max(0, updates.updates_size() - static_cast<int>(window));
  for (int i = first; i < updates.updates_size(); ++i) {
    const double value = MetricOf(updates.updates(i).metrics(), key);
    if (std::isnan(value)) continue;
    sum += value;
    ++count;
  }
  return count == 0 ? NAN : sum / count;
}

std::string Exact(double value) { return std::isnan(value) ? "" : absl::StrFormat("%.17g", value); }


std::map<uint64_t, std::vector<const v1::StoredRollout*>> ByPrompt(const v1::ListRolloutsReply& reply) {
  std::map<uint64_t, std::vector<const v1::StoredRollout*>> groups;
  for (const v1::StoredRollout& stored : reply.rollouts()) {
    groups[stored.rollout().group().prompt()].push_back(&stored);
  }
  return groups;
}

double RewardOf(const v1::StoredRollout* stored) { return stored->rollout().reward().reward(); }

const v1::StoredRollout* Best(const std::vector<const v1::StoredRollout*>& siblings) {
  return *std::max_element(siblings.begin(), siblings.end(),
                           [](auto* a, auto* b) { return RewardOf(a) < RewardOf(b); });
}

double MeanReward(const std::vector<const v1::StoredRollout*>& siblings) {
  double sum = 0;
  for (const auto* stored : siblings) sum += RewardOf(stored);
  return sum / static_cast<double>(siblings.size());
}

}  // namespace

std::string Size(double size) {
  static constexpr const char* kUnits[] = {"", "K", "M", "G", "T", "P"};
  size_t unit = 0;
  for (; size >= 1000 && unit + 1 < std::size(kUnits); ++unit) size /= 1000;
  return absl::StrFormat(size < 10 && unit > 0 ? "%.1f%sB" : "%.0f%sB", size, kUnits[unit]);
}

absl::StatusOr<std::vector<std::string>> MetricKeys(const v1::ListUpdatesReply& updates,
                                                    const std::vector<std::string>& wanted) {
  std::vector<std::string> known;
  std::set<std::string> seen;
  for (const v1::UpdateRecord& record : updates.updates()) {
    for (const v1::Metric& metric : record.metrics()) {
      if (seen.insert(metric.name()).second) known.push_back(metric.name());
    }
  }
  if (wanted.empty()) return known;
  for (const std::string& key : wanted) {
    if (seen.count(key) > 0) continue;
    const std::string nearest = config::NearestName(key, known);
    return absl::InvalidArgumentError(
        absl::StrCat("no update has a figure ", key, nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"),
                     known.empty() ? " (there is no update yet)" : ""));
  }
  return wanted;
}

std::vector<std::string> CommonKeys(const v1::ListUpdatesReply& updates) {
  std::vector<std::string> keys;
  for (const char* key : kCommon) {
    if (!std::isnan(MeanOf(updates, key, updates.updates_size()))) keys.emplace_back(key);
  }
  return keys;
}

std::string MetricsTable(const v1::ListUpdatesReply& updates, const std::vector<std::string>& keys, int width) {
  for (size_t shown = keys.size();; --shown) {
    std::vector<std::vector<std::string>> rows = {{"UPDATE"}};
    for (size_t i = 0; i < shown; ++i) rows[0].push_back(absl::AsciiStrToUpper(keys[i]));
    for (const v1::UpdateRecord& record : updates.updates()) {
      rows.push_back({absl::StrCat(record.update())});
      for (size_t i = 0; i < shown; ++i) rows.back().push_back(Figure(MetricOf(record.metrics(), keys[i])));
    }
    std::string table = Table(rows);
    size_t widest = 0;
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(table, '\n'))) widest = std::max(widest, Width(line));
    if (widest <= static_cast<size_t>(width) || shown <= 1) {
      if (shown == keys.size()) return table;
      std::vector<std::string> left(keys.begin() + static_cast<std::ptrdiff_t>(shown), keys.end());
      return absl::StrCat(table, "no room for ", absl::StrJoin(left, " "), " (--keys, --csv)\n");
    }
  }
}

std::string MetricsCsv(const v1::ListUpdatesReply& updates, const std::vector<std::string>& keys) {
  std::string csv = absl::StrCat("update", keys.empty() ? "" : ",", absl::StrJoin(keys, ","), "\r\n");
  for (const v1::UpdateRecord& record : updates.updates()) {
    absl::StrAppend(&csv, record.update());
    for (const std::string& key : keys) absl::StrAppend(&csv, ",", Exact(MetricOf(record.metrics(), key)));
    csv += "\r\n";
  }
  return csv;
}

std::string MetricsJsonLines(const v1::ListUpdatesReply& updates, const std::vector<std::string>& keys) {
  std::string text;
  for (const v1::UpdateRecord& record : updates.updates()) {
    nlohmann::ordered_json line = {{"update", record.update()}};
    for (const std::string& key : keys) {
      const double value = MetricOf(record.metrics(), key);
      if (!std::isnan(value)) line[key] = value;
    }
    absl::StrAppend(&text, line.dump(), "\n");
  }
  return text;
}

std::string DiffText(const std::string& a, const std::string& b, size_t context) {
  const std::vector<std::string> from = absl::StrSplit(a, '\n'), to = absl::StrSplit(b, '\n');
  const auto pairs = Align(from, to);
  auto same = [&](size_t at) { return pairs[at].first != kNone && pairs[at].second != kNone; };
  std::string text;
  bool gap = false;
  for (size_t at = 0; at < pairs.size(); ++at) {
    bool near = false;
    for (size_t i = at > context ? at - context : 0; i < std::min(pairs.size(), at + context + 1); ++i) {
      near = near || !same(i);
    }
    if (!near) {
      gap = true;
      continue;
    }
    if (gap && !text.empty()) text += "  ...\n";
    gap = false;
    const auto [i, k] = pairs[at];
    absl::StrAppend(&text, same(at) ? "  " : i != kNone ? "- " : "+ ", i != kNone ? from[i] : to[k], "\n");
  }
  return text;
}

std::string CompareText(const ComparedJob& a, const ComparedJob& b, size_t window) {
  std::vector<std::vector<std::string>> rows = {{"", a.job.name(), b.job.name(), "DIFFERENCE"}};
  rows.push_back({"state", NameOf(a.job.state()), NameOf(b.job.state())});
  rows.push_back({"update", absl::StrCat(a.job.update(), "/", a.job.max_updates()),
                  absl::StrCat(b.job.update(), "/", b.job.max_updates())});
  auto add = [&](const std::string& name, double x, double y) {
    if (std::isnan(x) && std::isnan(y)) return;
    const double difference = y - x;
    rows.push_back({name, Figure(x), Figure(y),
                    std::isnan(difference) ? "" : absl::StrCat(difference > 0 ? "+" : "", Figure(difference))});
  };
  std::set<std::string> keys;
  for (const char* key : kCommon) {
    add(key, MeanOf(a.updates, key, window), MeanOf(b.updates, key, window));
    keys.insert(key);
  }
  for (const ComparedJob* one : {&a, &b}) {
    if (one->updates.updates().empty()) continue;
    for (const v1::Metric& metric : one->updates.updates().rbegin()->metrics()) {
      if (metric.name().rfind("reward/", 0) != 0 || !keys.insert(metric.name()).second) continue;
      add(metric.name(), MeanOf(a.updates, metric.name(), window), MeanOf(b.updates, metric.name(), window));
    }
  }
  auto held_out = [](const v1::Job& job) { return job.evals().empty() ? NAN : job.evals().rbegin()->accuracy(); };
  add("held-out accuracy", held_out(a.job), held_out(b.job));
  std::string text = absl::StrCat(Table(rows), "figures: mean of the last ", window, " updates\n\n");
  const std::string diff = DiffText(a.job.config_yaml(), b.job.config_yaml(), 0);
  return absl::StrCat(text, "config\n", diff.empty() ? "  equal\n" : diff);
}

std::string RolloutDiffText(const v1::ListRolloutsReply& a, const std::string& name_a, const v1::ListRolloutsReply& b,
                            const std::string& name_b, size_t limit) {
  const auto before = ByPrompt(a), after = ByPrompt(b);
  std::string text;
  size_t shown = 0, common = 0;
  for (const auto& [prompt, siblings] : before) {
    auto found = after.find(prompt);
    if (found == after.end()) continue;
    if (++common > limit) continue;
    ++shown;
    const v1::StoredRollout *first = Best(siblings), *second = Best(found->second);
    absl::StrAppend(&text, "prompt ", prompt, " · mean reward ", Figure(MeanReward(siblings)), " → ",
                    Figure(MeanReward(found->second)), " · best ", Figure(RewardOf(first)), " → ", Figure(RewardOf(second)),
                    "\n");
    for (const v1::Message& message : first->prompt()) {
      if (message.role() == "user") absl::StrAppend(&text, "  user  ", message.content(), "\n");
    }
    absl::StrAppend(&text, "  best  ",
                    WordDiff(first->rollout().completion().text(), second->rollout().completion().text()), "\n");
  }
  if (common == 0) {
    return absl::StrCat("no prompt was in both ", name_a, " and ", name_b, "\n");
  }
  return absl::StrCat(text, shown, " of ", common, " prompts in both ", name_a, " and ", name_b,
                      "; [-only the first said-] {+only the second said+}\n");
}

std::string TopText(const v1::ListActorsReply& actors, const v1::ListJobsReply& jobs, absl::Time now, size_t width) {
  std::vector<std::vector<std::string>> rows = {{"ROLE", "NAME", "GROUP", "STATE", "DEVICE", "POLICY", "HEARD", "LOAD"}};
  for (const v1::Actor& actor : actors.actors()) {
    rows.push_back({RoleOf(actor), actor.name(), OrDash(actor.group()), actor.state(), actor.device(), absl::StrCat(actor.version().number()),
                    absl::StrCat(Age(absl::Seconds(actor.silent_seconds())), " ago"), actor.load()});
  }
  std::string text = Table(rows, width);
  std::vector<std::vector<std::string>> open = {{"JOB", "KIND", "STATE", "GROUP", "UPDATE", "REWARD", "TOK/S", "AGE", "MESSAGE"}};
  for (const v1::Job& job : jobs.jobs()) {
    if (job.state() >= v1::JOB_STATE_SUCCEEDED) continue;
    open.push_back({job.name(), job.kind(), NameOf(job.state()), OrDash(job.group()), absl::StrCat(job.update(), "/", job.max_updates()),
                    Figure(MetricOf(job.metrics(), "reward")), Figure(MetricOf(job.metrics(), "tokens_per_second")),
                    Age(now - absl::UnixEpoch() - absl::Seconds(job.submitted_at())),
                    job.message().substr(0, job.message().find('\n'))});
  }
  return absl::StrCat(text, "\n", open.size() > 1 ? Table(open, width) : "no job waits or runs\n");
}

}  // namespace rein::cli
