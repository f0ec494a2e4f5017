// KL divergences between a teacher and the policy over the teacher's likeliest tokens (arXiv 1503.02531, 2306.08543).
//
//   forward: sum_v p_v (log p_v - log q_v)     reverse: sum_v q_v (log q_v - log p_v)
//
// v runs over K candidates and, unless they are the whole vocabulary, over one more for all the others together: what
// their masses leave, at least kLeastRest. So the value is never below 0, and never above the full divergence.
//
// T target tokens, K candidates.

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

inline constexpr double kLeastRest = 1e-7;

enum class TeacherDivergence { kForward, kReverse };

// policy_TK and teacher_TK are log-probs of the same candidates; `rest`: there are other tokens. [T], differentiable by
// policy_TK.
at::Tensor DistillationLoss(const at::Tensor& policy_TK, const at::Tensor& teacher_TK, bool rest,
                            TeacherDivergence divergence);

}  // namespace rein::trainer
