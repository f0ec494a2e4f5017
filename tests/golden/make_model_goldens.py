#!/usr/bin/env python3
"""Makes tests/golden/models/<family>: tiny folders with random weights saved by `transformers`, and what
its own implementation computes from them in float32 (logits, loss, gradient of each parameter).

    pip install torch==2.11.0 transformers==5.23.0 && tests/golden/make_model_goldens.py
"""
import copy
import json
import pathlib

import torch
from transformers import (LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

ROOT = pathlib.Path(__file__).parent / "models"
SHARED = dict(vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
              bos_token_id=1, eos_token_id=2)
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(
        **SHARED, rope_theta=500000.0, tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 16})),
    "llama_biased": (LlamaForCausalLM, LlamaConfig(
        **SHARED, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
        rope_scaling={"rope_type": "linear", "factor": 4.0})),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHARED, rope_theta=1e6, tie_word_embeddings=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHARED, head_dim=12, rope_theta=1e6, tie_word_embeddings=False)),
}


def rounded(tensor):
    return [float(f"{x:.7g}") for x in tensor.detach().flatten().tolist()]


for name, (architecture, config) in FAMILIES.items():
    torch.manual_seed(7)
    model = architecture(config).to(torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.randn_like(parameter) * 0.15 + (parameter.dim() == 1)).to(torch.bfloat16))
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(ROOT / name)  # .to() would round RoPE's buffers too
    (ROOT / name / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.randint(0, config.vocab_size, (2, 17))
    out = model(tokens, labels=tokens)
    out.loss.backward()
    golden = {
        "tokens": tokens.tolist(),
        "logits": [rounded(row) for row in out.logits],
        "loss": float(out.loss),
        "gradient_norms": {n: float(p.grad.norm()) for n, p in model.named_parameters()},
        "gradient_sums": {n: float(p.grad.double().sum()) for n, p in model.named_parameters()},
    }
    (ROOT / name / "golden.json").write_text(json.dumps(golden) + "\n")
