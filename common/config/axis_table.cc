#include "common/config/axis_table.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace rein::config {
namespace {

std::string Entry(const AxisValue& axis, const std::string& name) {
  std::string text = absl::StrCat("  ", name, "   ", axis.source, "\n    Formula: ", axis.formula, "\n");
  if (!axis.peers.empty()) absl::StrAppend(&text, "    Elsewhere: ", axis.peers, "\n");
  return text;
}

}  // namespace

const std::vector<AxisValue>& AxisValues() {
  static const auto& values = *new std::vector<AxisValue>{
      {"advantage", "group_relative", "(r - mean) / (std + e) of the group, unbiased; undivided with normalize_by_std: false",
       "arXiv 2402.03300; 2503.20783", "A group of one keeps its reward, equal rewards give exact zeros; e: verl 1e-6, TRL 1e-4, OpenRLHF 1e-9."},
      {"advantage", "leave_one_out", "r - mean of the others", "arXiv 2402.14740", "A group of one: verl's vectorised form 0, TRL refuses, here its reward."},
      {"advantage", "reinforce_pp", "whiten(sum of later r_t) over the batch", "arXiv 2501.03262", "OpenRLHF whitens by the population variance."},
      {"advantage", "reinforce_pp_baseline", "whiten(r - mean of the group) over all tokens of the batch", "arXiv 2501.03262", ""},
      {"advantage", "greedy_baseline", "sum of later r_t - r of a greedy completion", "arXiv 2310.10505", "verl clips it like PPO."},
      {"advantage", "optimal_baseline", "r - sum(n_j r_j) / sum(n_j) of the group, n_j tokens of completion j", "arXiv 2505.23585", ""},
      {"advantage", "gpg", "a (r - mean), a = completions / max(1, completions with a reward other than 0) of the batch", "arXiv 2504.02546", "verl has it as f_norm 1."},
      {"advantage", "pass_at_k", "the best of the group: (r_best - r_second) / (std + e), the others 0", "arXiv 2503.19595", "A group of one: verl refuses, here 0."},
      {"advantage", "per_reward", "a = sum over rewards of weight (r_k - mean_k) / (std_k + e) in the group, then (a - mean) / (std + e) of the batch",
       "GDPO, arXiv 2601.05242", "TRL multi_objective_aggregation: normalize_then_sum."},
      {"advantage", "reward_to_go", "R_t = r_t + gamma R_(t+1)", "Williams 1992", ""},
      {"advantage", "gae", "d_t = r_t + gamma V_(t+1) - V_t, A_t = d_t + gamma lambda A_(t+1), over sampled tokens only (gae_level: turn: over turns)",
       "arXiv 1506.02438", "slime, TRL and ROLL run over observations of tools too."},
      {"ratio", "token", "rho_t = exp(clamp(policy - old, -20, 20))", "arXiv 1707.06347", "slime and TRL do not clamp."},
      {"ratio", "sequence", "rho = exp(min(mean over tokens of policy - old, 10))", "arXiv 2507.18071", "TRL and slime do not bound it."},
      {"ratio", "geometric", "rho = exp(mean over tokens of log rho_t clipped to [-low, high] on its worse side)", "arXiv 2507.20673", ""},
      {"clip", "", "max(-A min(rho, cap), -A clip(rho, 1 - low, 1 + high)); dual: for A < 0 at most -A dual",
       "arXiv 1707.06347; dual 1912.09729; cap 2505.07291", "verl: dual 3 by default; TRL calls cap delta."},
      {"cispo", "", "-sg(clip(rho, low, high)) A logprob", "arXiv 2506.13585", "TRL's cap is the ratio itself, verl's 1 + clip_ratio_high."},
      {"sapo", "", "-A sigmoid(tau (rho - 1)) 4 / tau", "arXiv 2511.20347", ""},
      {"dppo_tv", "", "-A sg(min(rho, ratio_cap)) logprob where p - q <= high (A > 0) or >= -low, p and q the token's new and old probability",
       "arXiv 2602.04879", "prime-rl's default."},
      {"dppo_kl", "", "the same by q log(q / p) + (1 - q) log((1 - q) / (1 - p))", "arXiv 2602.04879", ""},
      {"reinforce", "", "-A logprob", "Williams 1992", "verl bypass mode."},
      {"kl.estimator", "k1", "policy - reference", "joschu.net/blog/kl-approx.html", ""},
      {"kl.estimator", "k2", "(policy - reference)^2 / 2", "joschu.net/blog/kl-approx.html", ""},
      {"kl.estimator", "k3", "exp(x) - x - 1, x = reference - policy, x clamped to +-20, the value to +-10", "joschu.net/blog/kl-approx.html",
       "TRL clamps nothing; OpenRLHF the value; NeMo-RL both."},
      {"kl.estimator", "abs", "|policy - reference|", "verl kl_penalty: abs", ""},
      {"kl.estimator", "k1_straight_through", "value of k1, gradient of k2", "verl kl_penalty: k1+", ""},
      {"kl.estimator", "k3_straight_through", "value of k3, gradient of k2", "verl kl_penalty: k3+", ""},
      {"kl.importance_weighted", "", "rho KL, the gradient through rho too", "arXiv 2512.02556", "slime use_unbiased_kl; TRL use_bias_correction_kl."},
      {"kl.adaptive", "", "coefficient *= 1 + clip(KL / target - 1, -0.2, 0.2) rollouts / horizon", "arXiv 1909.08593", ""},
      {"aggregation", "token_mean", "sum / N, N tokens of the whole minibatch", "arXiv 2503.14476", "verl token-mean."},
      {"aggregation", "token_sum", "sum", "Tinker", ""},
      {"aggregation", "sequence_mean", "sum over sequences of (mean over its tokens) / S", "arXiv 2402.03300", "verl seq-mean-token-mean."},
      {"aggregation", "sequence_sum", "sum / S, S sequences with a token to learn", "arXiv 2402.14740", "verl seq-mean-token-sum."},
      {"aggregation", "sequence_sum_fixed", "sum / (S max_completion_tokens)", "arXiv 2503.20783", "verl seq-mean-token-sum-norm."},
      {"correction.mode", "truncate", "w = min(exp(x), high), x = old - sampled of a token, or summed over the completion (level: sequence)",
       "TIS, Yao et al. 2025; 2205.09123", "Caps: verl and slime 2, TRL 3."},
      {"correction.mode", "mask", "w = exp(x) where low <= exp(x) <= high, else 0", "MIS; IcePop, arXiv 2510.18855", ""},
      {"reject.statistic", "token_k1, _k2, _k3", "a token is kept where k(x) of it is in range; x = policy - sampled", "verl rollout_rs", ""},
      {"reject.statistic", "sequence_sum_, _mean_, _max_k1, _k2, _k3", "a completion is kept where the sum, mean or largest k(x) is in range", "verl rollout_rs", ""},
      {"mask_negative_above", "", "a completion with A < 0 is left out where mean(sampled - policy) is above this", "arXiv 2512.02556", "OPSM of slime and TRL."},
      {"clip_cov", "", "a random share of the tokens with (logprob - mean)(A - mean) in (low, high) is left out", "arXiv 2505.22617", "verl takes the current log-probs of a microbatch."},
      {"kl_cov", "", "the share of tokens with the highest (logprob - mean)(A - mean) pays coefficient |policy - old|", "arXiv 2505.22617", ""},
      {"entropy_coefficient", "", "loss - coefficient entropy of each token's distribution", "arXiv 1602.01783", ""},
      {"dynamic_sampling", "", "groups of equal rewards are dropped and others drawn until the batch is full", "arXiv 2503.14476", "verl filter_groups."},
      {"curriculum", "", "prompts whose last pass rate was below min or above max are skipped for some passes", "open-instruct active sampling; ROLL", ""},
      {"when_stale", "wait", "Updates take prompts in order; none is more than staleness Updates behind", "AReaL, arXiv 2505.24298", ""},
      {"when_stale", "drop", "Updates take what is complete first; what falls more than staleness Updates behind is given up", "prime-rl max_off_policy_steps", ""},
      {"when_stale", "correct", "the same, and nothing is given up: its ratio, correction or reject weighs it", "arXiv 2509.19128", ""},
  };
  return values;
}

std::string ExplainAxis(const std::string& key) {
  std::string text;
  for (const AxisValue& axis : AxisValues()) {
    if (axis.key == key && !axis.value.empty()) text += Entry(axis, axis.value);
  }
  return text;
}

std::string ExplainAxes() {
  std::string text;
  for (const AxisValue& axis : AxisValues()) {
    text += Entry(axis, axis.value.empty() ? axis.key : absl::StrCat(axis.key, ": ", axis.value));
  }
  return text;
}

std::string MarkdownCell(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}}); }

std::string AxisMarkdown() {
  std::string table = "| key | value | formula | source | where peers differ |\n|---|---|---|---|---|\n";
  for (const AxisValue& axis : AxisValues()) {
    absl::StrAppend(&table, "| `", axis.key, "` | ", axis.value, " | ", MarkdownCell(axis.formula), " | ", axis.source, " | ", axis.peers, " |\n");
  }
  return table;
}

}  // namespace rein::config
