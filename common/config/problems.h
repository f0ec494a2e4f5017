// Problems collects everything that is wrong with a job, so that all of it is told at once.

#pragma once

#include <string>
#include <vector>

#include "common/config/yaml_tree.h"

namespace rein::config {

class Problems {
 public:
  // `overrides` are the texts that places with line 0 stand for: their column counts from 1.
  explicit Problems(std::vector<std::string> overrides = {}) : overrides_(std::move(overrides)) {}

  // `key` is the dotted path, such as grpo.clip.low; may be empty.
  void Add(Place place, const std::string& key, const std::string& text);

  bool empty() const { return all_.empty(); }

  // "job.yaml has 3 problems", then a line for each, in the order of the file.
  std::string Report(const std::string& file_name) const;

 private:
  struct Problem {
    Place place;
    std::string key;
    std::string text;
  };

  std::string Where(const Place& place, const std::string& file_name) const;

  std::vector<std::string> overrides_;
  std::vector<Problem> all_;
};

}  // namespace rein::config
