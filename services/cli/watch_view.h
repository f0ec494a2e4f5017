// WatchView turns the events of a job into what `rein watch` shows: a few live lines on a terminal,
// one line per event in a file. Pure: it prints nothing itself.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "rein/v1/controller.pb.h"

namespace rein::cli {

class WatchView {
 public:
  // `job` as it was when the watch began.
  explicit WatchView(const v1::Job& job);

  // Takes an event in; returns its line for a file, or "" when it needs none.
  std::string Take(const v1::JobEvent& event);

  // The live lines, each at most `width` wide.
  std::vector<std::string> Lines(int width) const;

  v1::JobState state() const { return state_; }
  const std::string& message() const { return message_; }

 private:
  std::string UpdateLine(const v1::UpdateRecord& record) const;
  std::string EvalLine(const v1::EvalResult& result) const;
  std::string HeadLine() const;
  std::string RewardLine() const;
  std::string HealthLine() const;
  std::string TimeLine() const;
  // Until the last update; from the mean of the last twenty.
  std::optional<absl::Duration> TimeLeft() const;

  std::string name_;
  std::string kind_;
  v1::JobState state_;
  std::string message_;
  uint64_t max_updates_ = 0;
  std::optional<v1::UpdateRecord> last_;
  std::vector<double> rewards_;
  std::vector<double> losses_;
  std::vector<double> seconds_;
  std::vector<v1::EvalResult> evals_;
};

}  // namespace rein::cli
