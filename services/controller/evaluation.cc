#include "services/controller/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/status/status_macros.h"
#include "services/controller/eval_figures.h"

namespace rein::services {
namespace {

constexpr uint64_t kHeldOutAttempt = uint64_t{1} << 32;
constexpr size_t kExamples = 5;
constexpr uint32_t kHeldOutTokens = 256;

// Of a prompt that the named reward is not for: the first that is for it.
double ScoreOf(const Evaluation::Sample& sample, const std::string& name) {
  if (!sample.result.has_value() || sample.result->parts().empty()) return 0;
  for (const v1::RewardPart& part : sample.result->parts()) {
    if (part.name() == name) return part.score();
  }
  return sample.result->parts(0).score();
}

std::string AccuracyOf(const v1::JobConfig& job) {
  if (job.eval().has_accuracy()) return job.eval().accuracy();
  return job.rewards().empty() ? "" : config::NameOfReward(job.rewards(0));
}

std::string LastUserMessage(const Prompt& prompt) {
  for (auto message = prompt.messages.rbegin(); message != prompt.messages.rend(); ++message) {
    if (message->role() == "user") return message->content();
  }
  return prompt.messages.empty() ? "" : prompt.messages.back().content();
}

}  // namespace

bool Evaluation::Item::done() const {
  return std::all_of(samples.begin(), samples.end(), [](const Sample& s) { return s.done(); });
}

bool Evaluation::Item::generated() const { return MissingSamples().empty(); }

std::vector<uint32_t> Evaluation::Item::MissingSamples() const {
  std::vector<uint32_t> missing;
  for (uint32_t i = 0; i < samples.size(); ++i) {
    if (!samples[i].rollout.has_value() && !samples[i].done()) missing.push_back(i);
  }
  return missing;
}

std::vector<uint32_t> Evaluation::Item::UnscoredSamples() const {
  std::vector<uint32_t> unscored;
  for (uint32_t i = 0; i < samples.size(); ++i) {
    if (samples[i].rollout.has_value() && !samples[i].done()) unscored.push_back(i);
  }
  return unscored;
}

std::vector<v1::EvalSampling> EvalSettings(const v1::JobConfig& job) {
  const v1::EvalConfig& eval = job.eval();
  const v1::GrpoConfig* rl = config::PolicyGradientOf(job);
  const uint32_t tokens = eval.has_max_completion_tokens() ? eval.max_completion_tokens()
                          : rl != nullptr                  ? rl->max_completion_tokens()
                                                           : kHeldOutTokens;
  std::vector<v1::EvalSampling> settings(1);
  settings[0].set_temperature(eval.temperature());
  settings[0].set_samples(std::max(eval.samples(), 1u));
  settings[0].set_top_k(eval.top_k());
  if (eval.has_top_p()) settings[0].set_top_p(eval.top_p());
  settings[0].set_min_p(eval.min_p());
  if (eval.has_repetition_penalty()) settings[0].set_repetition_penalty(eval.repetition_penalty());
  settings[0].set_presence_penalty(eval.presence_penalty());
  settings[0].set_frequency_penalty(eval.frequency_penalty());
  settings.insert(settings.end(), eval.settings().begin(), eval.settings().end());
  for (v1::EvalSampling& setting : settings) {
    if (!setting.has_max_completion_tokens()) setting.set_max_completion_tokens(tokens);
  }
  return settings;
}

absl::StatusOr<Evaluation> Evaluation::Begin(const std::vector<HeldOutData>& data,
                                             const v1::JobConfig& job, uint64_t update,
                                             bool generates, bool validates) {
  Evaluation evaluation(job, update);
  const std::vector<v1::EvalSampling> settings = EvalSettings(job);
  if (validates) {
    evaluation.validation_lines_ = evaluation.validation_left_ = data.front().prompts->size();
  }
  if (!generates) {
    evaluation.slices_.push_back({.dataset = data.front().name});
    return evaluation;
  }
  for (const HeldOutData& dataset : data) {
    const size_t first = evaluation.slices_.size();
    for (const v1::EvalSampling& setting : settings) {
      evaluation.slices_.push_back(
          {.dataset = dataset.name, .sampling = setting, .prompts = dataset.prompts});
    }
    for (uint64_t line = 0; line < dataset.prompts->size(); ++line) {
      REIN_ASSIGN_OR_RETURN(Prompt read, dataset.prompts->Read(line));
      const auto prompt = std::make_shared<const Prompt>(std::move(read));
      for (size_t s = 0; s < settings.size(); ++s) {
        Item& item = evaluation.items_.emplace_back();
        item.slice = first + s;
        item.line = line;
        item.prompt = prompt;
        item.samples.resize(settings[s].samples());
      }
    }
  }
  return evaluation;
}

bool Evaluation::Done() const {
  return !validating() &&
         std::all_of(items_.begin(), items_.end(), [](const Item& item) { return item.done(); });
}

v1::GroupId Evaluation::GroupOf(uint64_t item) const {
  v1::GroupId group;
  group.set_data_epoch(update_);
  group.set_prompt(items_[item].line);
  group.set_attempt(kHeldOutAttempt + items_[item].slice);
  return group;
}

v1::SamplingParams Evaluation::SamplingOf(uint64_t item) const {
  const v1::EvalSampling& setting = slices_[items_[item].slice].sampling;
  v1::SamplingParams sampling;
  sampling.set_seed(job_.seed());
  sampling.set_temperature(setting.temperature());
  sampling.set_top_k(setting.top_k());
  if (setting.has_top_p()) sampling.set_top_p(setting.top_p());
  sampling.set_min_p(setting.min_p());
  if (setting.has_repetition_penalty()) sampling.set_repetition_penalty(setting.repetition_penalty());
  sampling.set_presence_penalty(setting.presence_penalty());
  sampling.set_frequency_penalty(setting.frequency_penalty());
  sampling.set_max_tokens(setting.max_completion_tokens());
  return sampling;
}

void Evaluation::AddScores(uint64_t lines, const v1::ScorePolicyReply& scores) {
  validation_left_ -= std::min(validation_left_, lines);
  for (const v1::SequenceLogprobs& sequence : scores.sequences()) {
    for (float logprob : sequence.logprobs()) loss_sum_ -= logprob;
    loss_tokens_ += static_cast<uint64_t>(sequence.logprobs_size());
  }
  for (const v1::Metric& metric : scores.metrics()) figure_sums_[metric.name()] += metric.value() * scores.weight();
  figure_weight_ += scores.weight();
}

// What measured lines gave: the loss, the accuracy if there is one, and the other figures as parts.
void Evaluation::AddFigures(v1::EvalSlice& slice) const {
  slice.set_prompts(static_cast<uint32_t>(validation_lines_));
  for (const auto& [name, sum] : figure_sums_) {
    const double mean = sum / figure_weight_;
    if (name == "loss") {
      slice.set_loss(mean);
    } else if (name == "accuracy") {
      const MeanFigure share = ShareOf(mean, static_cast<double>(validation_lines_));
      slice.set_accuracy(share.mean);
      slice.set_standard_error(share.standard_error);
      slice.set_confidence_low(share.low);
      slice.set_confidence_high(share.high);
    } else if (name != "tokens" && name != "computed_tokens" && name != "trained_tokens") {
      v1::Metric* part = slice.add_parts();
      part->set_name(name);
      part->set_value(mean);
    }
  }
}

v1::EvalSlice Evaluation::FiguresOf(uint64_t slice) const {
  v1::EvalSlice out;
  out.set_dataset(slices_[slice].dataset);
  out.set_setting(slices_[slice].sampling.name());
  const std::string accuracy = AccuracyOf(job_);
  std::vector<double> means;                     // of each prompt's completions
  std::map<uint32_t, std::vector<double>> pass;  // by k, of each prompt
  std::map<std::string, std::pair<double, double>> parts;  // sum, completions that it is for
  double count = 0, tokens = 0, truncated = 0;
  for (const Item& item : items_) {
    if (item.slice != slice) continue;
    double sum = 0;
    uint64_t right = 0;
    for (const Sample& sample : item.samples) {
      const double score = ScoreOf(sample, accuracy);
      sum += score;
      right += sample.result.has_value() && score >= job_.eval().threshold() ? 1 : 0;
      count += 1;
      if (sample.rollout.has_value()) {
        const v1::Completion& completion = sample.rollout->completion();
        tokens += completion.token_ids_size();
        truncated += completion.finish_reason() == v1::FINISH_REASON_LENGTH ? 1 : 0;
      }
      if (!sample.result.has_value()) {
        out.set_failed(out.failed() + 1);
        continue;
      }
      for (const v1::RewardPart& part : sample.result->parts()) {
        parts[part.name()].first += part.score();
        ++parts[part.name()].second;
      }
    }
    out.set_samples(static_cast<uint32_t>(item.samples.size()));
    means.push_back(sum / static_cast<double>(item.samples.size()));
    for (uint32_t k : job_.eval().pass_at()) {
      if (k <= item.samples.size()) pass[k].push_back(PassAt(k, item.samples.size(), right));
    }
  }
  out.set_prompts(static_cast<uint32_t>(means.size()));
  if (means.empty()) return out;
  const MeanFigure mean = MeanOf(means);
  out.set_accuracy(mean.mean);
  out.set_standard_error(mean.standard_error);
  out.set_confidence_low(mean.low);
  out.set_confidence_high(mean.high);
  for (const auto& [k, values] : pass) {
    v1::PassAtK* at = out.add_pass_at();
    at->set_k(k);
    at->set_value(MeanOf(values).mean);
    at->set_standard_error(MeanOf(values).standard_error);
  }
  for (const auto& [name, sum] : parts) {
    v1::Metric* part = out.add_parts();
    part->set_name(name);
    part->set_value(sum.first / (sum.second + out.failed()));  // 0 for each reward
  }
  out.set_completion_tokens(tokens / count);
  out.set_truncated_ratio(truncated / count);
  return out;
}

v1::EvalResult Evaluation::Result() const {
  v1::EvalResult result;
  result.set_update(update_);
  for (uint64_t slice = 0; slice < slices_.size(); ++slice) {
    *result.add_slices() = FiguresOf(slice);
  }
  v1::EvalSlice& first = *result.mutable_slices(0);
  if (figure_weight_ > 0) {
    AddFigures(first);
  } else if (validation_lines_ > 0) {
    const double loss = loss_sum_ / static_cast<double>(std::max<uint64_t>(loss_tokens_, 1));
    first.set_loss(loss);
    first.set_perplexity(std::exp(loss));
    first.set_tokens(loss_tokens_);
    if (first.prompts() == 0) first.set_prompts(static_cast<uint32_t>(validation_lines_));
  }
  result.set_prompts(first.prompts());
  result.set_accuracy(first.accuracy());
  result.set_standard_error(first.standard_error());
  *result.mutable_parts() = first.parts();
  const std::string accuracy = AccuracyOf(job_);
  for (const Item& item : items_) {
    if (item.slice != 0 || static_cast<size_t>(result.examples_size()) >= kExamples) continue;
    const Sample& sample = item.samples.front();
    v1::EvalExample* example = result.add_examples();
    example->set_prompt(LastUserMessage(*item.prompt));
    if (sample.rollout.has_value()) example->set_completion(sample.rollout->completion().text());
    example->set_answer(item.prompt->answer);
    example->set_score(ScoreOf(sample, accuracy));
  }
  return result;
}

bool OutOfPatience(const std::vector<v1::EvalResult>& evals, uint64_t patience) {
  double best = std::numeric_limits<double>::infinity();
  uint64_t in_row = 0;
  for (const v1::EvalResult& eval : evals) {
    if (eval.slices().empty() || !eval.slices(0).has_loss()) continue;
    in_row = eval.slices(0).loss() < best ? 0 : in_row + 1;
    best = std::min(best, eval.slices(0).loss());
  }
  return patience > 0 && in_row >= patience;
}

}  // namespace rein::services
