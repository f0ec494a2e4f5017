// What the parts of rein-gpu-bench share, and what each measures. A failure ends the program with a message.

#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/gpu/random_policy.h"

namespace rein::gpu {

double Seconds(std::chrono::steady_clock::time_point begin);  // until now
void Wait();                                                   // for GPU 0
[[noreturn]] void Die(const std::string& message);
void Print(nlohmann::json line);  // with the peak of GPU 0's memory, in GiB

// Of training on sequences of at most `length` tokens, with what the environment asks for.
trainer::TrainerSettings SettingsFor(int64_t length);
// Figures of `updates` updates, after one in which choices are made and memory is taken.
nlohmann::json TimeUpdates(RandomPolicy& policy, const std::vector<trainer::TrainingSequence>& batch, int updates);

// One line for each family (or those named): tokens/s and MFU of training on packed sequences of 4096 tokens at a shape of about
// 1 B parameters, and the ratio of its MFU to Llama's, which comes first.
void Families(const std::vector<std::string>& only);

// What a publish does from weights that are ready on GPU 0 to the receiver's having them in use, on GPU `gpu` by `way` (ipc or
// nccl): digests, bytes, and digests again on the other side. Beside it one plain copy of as many bytes between the two.
void Sync(const ShapeOfModel& shape, const std::string& way, int64_t gpu);

// A line for each kernel and shape: microseconds, GB/s, TFLOP/s.
void Kernels();

}  // namespace rein::gpu
