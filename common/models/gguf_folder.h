// GGUF files of Llama and Qwen families, by the conventions of llama.cpp's convert_hf_to_gguf.py: names of tensors and keys,
// rows of Llama's q and k interleaved, norms and vectors in F32, llama3 scaling as a tensor of factors.

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace rein::models {

// Makes a Hugging Face folder of a file: config.json, model.safetensors (bf16), and a tokenizer.json where the file has a byte-level
// BPE whose pre-tokenizer is known. Weights are dequantised. Architectures llama, qwen2 and qwen3; F32, F16, BF16, Q8_0, Q4_0, Q4_1.
// Returns what was made. INVALID_ARGUMENT names what is not supported, or missing.
absl::StatusOr<nlohmann::ordered_json> ImportGguf(const std::string& file, const std::string& to);

// Writes a folder (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM) as a file; `dtype` of its matrices is f32, f16 or bf16. Without
// `with_tokenizer` the file holds no vocabulary, which llama.cpp wants. INVALID_ARGUMENT names what has no form there.
absl::StatusOr<nlohmann::ordered_json> ExportGguf(const std::string& folder, const std::string& file, const std::string& dtype,
                                                  bool with_tokenizer);

}  // namespace rein::models
