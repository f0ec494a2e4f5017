// Metrics is one process's Prometheus registry: counters, gauges and histograms with labels.
//
//   Metrics metrics;
//   Counter scored = metrics.AddCounter("rein_reward_requests_total", "Completions scored",
//                                       {{"result", "ok"}});
//   scored.Add(3);
//
// Adding the same name and labels again gives the same series. Names follow
// rein_<role>_<what>_<unit>; counters end in _total. Handles are small, thread-safe, and live as
// long as the registry.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace rein::telemetry {

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  explicit Counter(prometheus::Counter& series) : series_(&series) {}
  void Add(double by = 1);  // `by` >= 0

 private:
  prometheus::Counter* series_;
};

class Gauge {
 public:
  explicit Gauge(prometheus::Gauge& series) : series_(&series) {}
  void Set(double value);
  void Add(double by);

 private:
  prometheus::Gauge* series_;
};

class Histogram {
 public:
  explicit Histogram(prometheus::Histogram& series) : series_(&series) {}
  void Observe(double value);

 private:
  prometheus::Histogram* series_;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();

  Counter AddCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge AddGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // `bounds` are the upper ends of the buckets, ascending.
  Histogram AddHistogram(const std::string& name, const std::string& help,
                         const std::vector<double>& bounds, const Labels& labels = {});
  // Series of a job that is over would stay for ever. Handles of a removed series must not be used.
  void RemoveGauge(const std::string& name, const std::string& help, const Labels& labels);
  void RemoveHistogram(const std::string& name, const std::string& help, const Labels& labels);

  // The page that Prometheus reads; also says what this process uses (process_*, as Prometheus's own
  // clients name it).
  std::string Text() const;

 private:
  std::unique_ptr<prometheus::Registry> registry_;
};

}  // namespace rein::telemetry
