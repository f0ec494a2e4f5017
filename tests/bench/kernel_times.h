#pragma once

namespace rein::gpu {

// What runs on the GPU between two calls, by CUPTI's activity records; on stderr, a line for each kernel: how many, microseconds
// of its own, and its share of the whole, largest first. Kernels may overlap: a share is the time from the end of whatever
// had ended before to the kernel's own end, so that shares add up to the whole, waiting included. With REIN_KERNELS_CSV=FILE
// every record is written there too: start and duration in ns, name.
void BeginKernelTimes();
void EndKernelTimes();

// REIN_KERNELS=N: 16 steps of generation from the Nth on, or the Nth update of training, are recorded. Far below 0: none.
int FirstRecorded();

}  // namespace rein::gpu
