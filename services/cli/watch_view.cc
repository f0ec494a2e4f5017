#include "services/cli/watch_view.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "services/cli/describe_text.h"
#include "services/cli/text_table.h"

namespace rein::cli {
namespace {

constexpr size_t kSparkValues = 24;
constexpr size_t kBarWidth = 24;
constexpr size_t kEtaUpdates = 20;

std::string Percent(double share) { return absl::StrFormat("%.3g %%", share * 100); }

std::vector<double> Last(const std::vector<double>& values, size_t count) {
  size_t first = values.size() > count ? values.size() - count : 0;
  return {values.begin() + static_cast<std::ptrdiff_t>(first), values.end()};
}

std::string Cut(const std::string& line, int width) {
  if (Width(line) <= static_cast<size_t>(width)) return line;
  std::string cut;
  size_t cells = 0;
  for (char c : line) {
    bool starts = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (starts && ++cells > static_cast<size_t>(width)) break;
    cut += c;
  }
  return cut;
}

// "  name 0.12" when the metric is there.
void AddFigure(std::string& line, const v1::UpdateRecord& record, const std::string& label,
               const std::string& metric, bool percent = false) {
  double value = MetricOf(record.metrics(), metric);
  if (std::isnan(value)) return;
  absl::StrAppend(&line, line.empty() ? "" : "   ", label, " ",
                  percent ? Percent(value) : Figure(value));
}

}  // namespace

WatchView::WatchView(const v1::Job& job)
    : name_(job.name()),
      kind_(job.kind()),
      state_(job.state()),
      message_(job.message()),
      max_updates_(job.max_updates()) {}

std::string WatchView::Take(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kState: {
      bool changed = state_ != event.state() || message_ != event.detail();
      state_ = event.state();
      message_ = event.detail();
      if (!changed && message_.empty()) return "";
      return absl::StrCat(NameOf(state_), message_.empty() ? "" : "  ", message_);
    }
    case v1::JobEvent::kUpdate: {
      const v1::UpdateRecord& record = event.update();
      // Updates that are trained again after a crash take the place of the first ones.
      size_t before = record.update() > 0 ? record.update() - 1 : 0;
      for (auto* values : {&rewards_, &losses_, &seconds_}) {
        if (values->size() > before) values->resize(before);
      }
      last_ = record;
      max_updates_ = record.max_updates();
      double reward = MetricOf(record.metrics(), "reward");
      double loss = MetricOf(record.metrics(), "loss");
      double seconds = MetricOf(record.metrics(), "seconds");
      if (!std::isnan(reward)) rewards_.push_back(reward);
      if (!std::isnan(loss)) losses_.push_back(loss);
      if (!std::isnan(seconds)) seconds_.push_back(seconds);
      return UpdateLine(record);
    }
    case v1::JobEvent::kEval:
      evals_.push_back(event.eval());
      return EvalLine(event.eval());
    case v1::JobEvent::kCheckpoint:
      return absl::StrCat("checkpoint ", event.checkpoint().number(), " at update ",
                          event.checkpoint().update());
    case v1::JobEvent::kMessage:
      return event.message();
    case v1::JobEvent::EVENT_NOT_SET:
      break;
  }
  return "";
}

std::optional<absl::Duration> WatchView::TimeLeft() const {
  if (!last_.has_value() || seconds_.empty() || max_updates_ < last_->update()) return std::nullopt;
  double mean = 0;
  std::vector<double> recent = Last(seconds_, kEtaUpdates);
  for (double seconds : recent) mean += seconds / static_cast<double>(recent.size());
  return absl::Seconds(mean * static_cast<double>(max_updates_ - last_->update()));
}

std::string WatchView::UpdateLine(const v1::UpdateRecord& record) const {
  const auto& metrics = record.metrics();
  std::string line = absl::StrCat("update ", record.update(), "/", record.max_updates());
  double reward = MetricOf(metrics, "reward");
  if (!std::isnan(reward)) {
    absl::StrAppend(&line, "  reward ", Figure(reward), "±",
                    Figure(MetricOf(metrics, "reward_std")));
  }
  auto add = [&](const char* label, const char* metric, bool percent = false) {
    double value = MetricOf(metrics, metric);
    if (std::isnan(value)) return;
    absl::StrAppend(&line, "  ", label, " ", percent ? Percent(value) : Figure(value));
  };
  add("loss", "loss");
  add("kl", "reference_kl");
  add("entropy", "entropy");
  add("length", "completion_tokens");
  add("cut", "truncated_ratio", true);
  add("grad", "grad_norm");
  add("lag", "lag");
  add("tok/s", "tokens_per_second");
  for (const auto& [label, metric] : {std::pair{"generate", "generate_seconds"},
                                      {"train", "train_seconds"},
                                      {"sync", "sync_seconds"}}) {
    double value = MetricOf(metrics, metric);
    if (!std::isnan(value)) absl::StrAppend(&line, "  ", label, " ", Figure(value), "s");
  }
  if (auto left = TimeLeft()) absl::StrAppend(&line, "  eta ", Age(*left));
  return line;
}

std::string WatchView::EvalLine(const v1::EvalResult& result) const {
  return absl::StrCat("held-out at update ", result.update(), ": ", HeldOutLines(result).front());
}

std::string WatchView::HeadLine() const {
  uint64_t update = last_.has_value() ? last_->update() : 0;
  double share =
      max_updates_ > 0 ? static_cast<double>(update) / static_cast<double>(max_updates_) : 0;
  std::string line = absl::StrCat(name_, "  ", absl::AsciiStrToUpper(kind_), "  ", NameOf(state_));
  if (max_updates_ > 0) {
    absl::StrAppend(&line, "  update ", update, "/", max_updates_, " ", Bar(share, kBarWidth, true),
                    absl::StrFormat(" %.0f %%", share * 100));
  }
  auto left = TimeLeft();
  bool running = state_ == v1::JOB_STATE_RUNNING;
  if (left.has_value() && running) absl::StrAppend(&line, "  eta ", Age(*left));
  if (!last_.has_value()) return line;
  absl::StrAppend(&line, "   policy ", update);
  double lag = MetricOf(last_->metrics(), "lag");
  if (!std::isnan(lag)) absl::StrAppend(&line, absl::StrFormat("   lag %.1f", lag));
  return line;
}

std::string WatchView::RewardLine() const {
  if (rewards_.empty()) {
    if (losses_.empty()) return "";
    return absl::StrCat("loss ", Figure(losses_.back()), " ",
                        Sparkline(Last(losses_, kSparkValues)));
  }
  std::string line = absl::StrCat("reward ", Figure(rewards_.back()), " ",
                                  Sparkline(Last(rewards_, kSparkValues)));
  const std::string prefix = "reward/";
  for (const v1::Metric& metric : last_->metrics()) {
    if (metric.name().rfind(prefix, 0) != 0) continue;
    absl::StrAppend(&line, "  ", metric.name().substr(prefix.size()), " ", Figure(metric.value()));
  }
  double zero = MetricOf(last_->metrics(), "zero_signal_ratio");
  if (!std::isnan(zero)) absl::StrAppend(&line, "   zero-signal groups ", Percent(zero));
  return line;
}

std::string WatchView::HealthLine() const {
  std::string line;
  double length = MetricOf(last_->metrics(), "completion_tokens");
  if (!std::isnan(length)) {
    absl::StrAppend(&line, "length ", Figure(length), " (cut ",
                    Percent(MetricOf(last_->metrics(), "truncated_ratio")), ")");
  }
  AddFigure(line, *last_, "entropy", "entropy");
  AddFigure(line, *last_, "clip", "clip_ratio", true);
  AddFigure(line, *last_, "clip low", "clip_ratio_low", true);
  AddFigure(line, *last_, "clip high", "clip_ratio_high", true);
  AddFigure(line, *last_, "kl", "reference_kl");
  AddFigure(line, *last_, "grad", "grad_norm");
  double mismatch = MetricOf(last_->metrics(), "mismatch_max");
  if (!std::isnan(mismatch)) {
    absl::StrAppend(&line, "   mismatch ", mismatch == 0 ? "0 (exact)" : Figure(mismatch));
  }
  return line;
}

std::string WatchView::TimeLine() const {
  double total = MetricOf(last_->metrics(), "seconds");
  if (std::isnan(total) || total <= 0) return "";
  std::string line = absl::StrFormat("update %.2f s:", total);
  double rest = total;
  for (const char* phase : {"generate", "score", "train", "sync"}) {
    double seconds = MetricOf(last_->metrics(), absl::StrCat(phase, "_seconds"));
    if (std::isnan(seconds)) continue;
    rest -= seconds;
    absl::StrAppend(&line, "  ", phase, " ", Bar(seconds / total, 12, false),
                    absl::StrFormat(" %.2f", seconds));
  }
  absl::StrAppend(&line, absl::StrFormat("  idle %.2f", std::max(0.0, rest)));
  double speed = MetricOf(last_->metrics(), "tokens_per_second");
  if (!std::isnan(speed)) absl::StrAppend(&line, "     ", Figure(speed), " tok/s");
  return line;
}

std::vector<std::string> WatchView::Lines(int width) const {
  std::vector<std::string> lines = {HeadLine()};
  if (last_.has_value()) {
    for (const std::string& line : {RewardLine(), HealthLine(), TimeLine()}) {
      if (!line.empty()) lines.push_back(line);
    }
  }
  if (!evals_.empty()) lines.push_back(EvalLine(evals_.back()));
  if (!message_.empty()) lines.push_back(message_.substr(0, message_.find('\n')));
  for (std::string& line : lines) line = Cut(line, width);
  return lines;
}

}  // namespace rein::cli
