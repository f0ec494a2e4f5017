#!/usr/bin/env python3
"""Makes tests/golden/gguf: tiny models of tests/golden/models as GGUF files, written by the `gguf` package with the names, keys and
permutation of llama.cpp's convert_hf_to_gguf.py, and the logits that `transformers` computes from each file.

    pip install torch==2.11.0 transformers==5.23.0 gguf==0.19.0 && tests/golden/make_gguf_goldens.py
"""
import json
import pathlib

import gguf
import numpy as np
import torch
import transformers
from gguf.quants import quantize

ROOT = pathlib.Path(__file__).parent
Q = gguf.GGMLQuantizationType
FILES = {"llama_q8_0": ("llama", "llama", Q.Q8_0), "llama_f16": ("llama", "llama", Q.F16),
         "qwen2_q4_0": ("qwen2", "qwen2", Q.Q4_0), "qwen3_q4_1": ("qwen3", "qwen3", Q.Q4_1), "qwen3_bf16": ("qwen3", "qwen3", Q.BF16)}
PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def permute(weight, heads):
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def name_of(name):
    stem, kind = name.rsplit(".", 1)
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def make(file):
    folder, architecture, kind = FILES[file]
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "models" / folder, dtype=torch.float32)
    config, path = model.config, ROOT / "gguf" / f"{file}.gguf"
    if folder == "llama":  # its llama3 scaling has other settings than any published file
        config.rope_parameters = {"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    if folder == "llama":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
    dequantised = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = tensor.numpy()
        rotated = architecture == "llama" and (".q_proj." in name or ".k_proj." in name)
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        if rotated:
            data = permute(data, heads)
        own = Q.F32 if data.ndim == 1 else kind
        if data.ndim == 2 and kind in (Q.Q8_0, Q.Q4_0, Q.Q4_1) and data.shape[1] % 32:
            own = Q.F16  # as llama.cpp does where rows have no whole blocks
        raw = quantize(data, own)
        writer.add_tensor(name_of(name), raw, raw_dtype=own)
        data = gguf.quants.dequantize(raw, own).reshape(data.shape)
        if rotated:
            data = data.reshape(heads, data.shape[0] // heads // 2, 2, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        dequantised[name] = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fresh = type(model)(config).float().eval()
    # The folder that is made of the file keeps its weights in bfloat16.
    fresh.load_state_dict({name: x.to(torch.bfloat16).float() if kind != Q.F32 else x for name, x in dequantised.items()},
                          strict=not config.tie_word_embeddings)
    fresh.tie_weights()
    tokens = torch.tensor(json.loads((ROOT / "models" / folder / "golden.json").read_text())["tokens"])
    with torch.no_grad():
        logits = fresh(tokens).logits
    return {"tokens": tokens.tolist(), "logits": [[round(x, 6) for x in row.flatten().tolist()] for row in logits]}


if __name__ == "__main__":
    (ROOT / "gguf").mkdir(exist_ok=True)
    (ROOT / "gguf" / "golden.json").write_text(json.dumps({file: make(file) for file in FILES}) + "\n")
