// Sample draws one token per row of logits, and gives the log-probs of what it drew.
//
// B rows, V vocabulary. A row's draw depends on its own logits and settings only.

#pragma once

#include <vector>

#include "rollout/sampling/draw.h"

namespace rein::rollout {

// logits_BV: fp32 [B, V] with B = rows.size(), on any device; not changed. Every row must keep at
// least one token that is not banned.
Draws Sample(const at::Tensor& logits_BV, const std::vector<RowDraw>& rows);

// Penalises in place the rows that have penalties. `awaited`, where not empty, holds for each row the id of a token that
// was written behind `seen` and is known on the device alone (int64 [1]); undefined: there is none. Does not wait for the
// device.
void Penalise(const std::vector<RowDraw>& rows, at::Tensor& logits_BV, const std::vector<at::Tensor>& awaited = {});

// Writes -infinity where a row bans a token; does not wait for the device.
void Ban(const std::vector<RowDraw>& rows, at::Tensor& logits_BV);

// logits_BV, of any dtype, with -infinity where a row's filters and bans exclude a token: what
// kernels/filter_logits.h does on a GPU.
at::Tensor Filtered(const at::Tensor& logits_BV, const std::vector<RowDraw>& rows);

}  // namespace rein::rollout
