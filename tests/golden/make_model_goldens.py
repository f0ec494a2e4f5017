#!/usr/bin/env python3
"""Makes tests/golden/models/<folder>: tiny folders with random weights saved by `transformers`, and what its
own implementation computes from them in float32: logits, a greedy continuation, the loss, and of the gradient of
each tensor of the checkpoint its norm, its sum and its product with the cosine of 0, 1, 2, ... (golden.json); and of each
tensor the values after three steps of AdamW where its gradient stayed furthest from 0 (adamw.json).

    pip install torch==2.11.0 transformers==5.23.0 && tests/golden/make_model_goldens.py [folder...]
"""
import contextlib
import copy
import json
import pathlib
import sys
import tempfile

import safetensors.torch
import torch
import transformers

from remote_layouts import LAYOUTS, NormHead, alibi_instead_of_rope

ROOT = pathlib.Path(__file__).parent / "models"
SHARED = dict(vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
              bos_token_id=1, eos_token_id=2, pad_token_id=0)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
OLD = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64)
MOE = dict(moe_intermediate_size=12)
LATENT = dict(num_key_value_heads=4, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}


def rope(theta, **more):
    return {"rope_theta": theta, "rope_type": "default", **more}


# folder: (architecture, its keys beside SHARED)
MODELS = {
    "llama": ("Llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=False, rms_norm_eps=1e-5)),
    "llama_biased": ("Llama", dict(
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})),
    "qwen2": ("Qwen2", dict(rope_parameters=rope(1e6), tie_word_embeddings=True)),
    "qwen2_yarn": ("Qwen2", dict(rope_parameters=YARN, use_sliding_window=True, sliding_window=6,
                                 max_window_layers=1)),
    "mistral": ("Mistral", dict(head_dim=12, sliding_window=5, rope_parameters=rope(1e6))),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=3, no_rope_layer_interval=2, rope_parameters=rope(2e6))),
    "gemma2": ("Gemma2", dict(num_hidden_layers=3, head_dim=12, sliding_window=5, query_pre_attn_scalar=16,
                              attn_logit_softcapping=3.0, final_logit_softcapping=2.0)),
    "gemma3": ("Gemma3", dict(
        config_class="Gemma3TextConfig", num_hidden_layers=3, head_dim=12, sliding_window=5, query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                         "sliding_attention": rope(1e4)})),
    "phi3": ("Phi3", dict(sliding_window=6, rope_parameters=rope(1e4))),
    "phi4_mini": ("Phi3", dict(
        tie_word_embeddings=True, original_max_position_embeddings=48,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75,
                         "short_factor": [1.0, 1.3, 2.0], "long_factor": [1.5, 4.0, 9.0],
                         "original_max_position_embeddings": 48})),
    "olmo2": ("Olmo2", dict(rope_parameters=rope(5e5))),
    "granite": ("Granite", dict(tie_word_embeddings=True, embedding_multiplier=3.0, attention_multiplier=0.2,
                                residual_multiplier=0.4, logits_scaling=2.0)),
    "glm": ("Glm", dict(head_dim=8, rope_parameters=rope(1e4, partial_rotary_factor=0.5))),
    "glm4": ("Glm4", dict(head_dim=8, rope_parameters=rope(1e4, partial_rotary_factor=0.5))),
    "mixtral": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "mixtral_balanced": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2, output_router_logits=True,
                                         router_aux_loss_coef=0.5)),
    "qwen2_moe": ("Qwen2Moe", dict(**MOE, num_experts=6, num_experts_per_tok=2, mlp_only_layers=[0],
                                   shared_expert_intermediate_size=20)),
    "qwen3_moe": ("Qwen3Moe", dict(**MOE, num_experts=6, num_experts_per_tok=3, head_dim=12, norm_topk_prob=True,
                                   decoder_sparse_step=2)),
    "olmoe": ("Olmoe", dict(intermediate_size=12, num_experts=6, num_experts_per_tok=2)),
    "deepseek_v2": ("DeepseekV2", dict(
        **MOE, **LATENT, q_lora_rank=10, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2, n_group=4,
        topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=1.5, first_k_dense_replace=1,
        rope_parameters={**YARN, "mscale": 0.707, "mscale_all_dim": 0.707})),
    "deepseek_v2_lite": ("DeepseekV2", dict(
        **MOE, **LATENT, q_lora_rank=None, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1,
        topk_method="greedy")),
    "deepseek_v3": ("DeepseekV3", dict(
        **MOE, **LATENT, q_lora_rank=10, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, n_group=4,
        topk_group=2, routed_scaling_factor=2.5, first_k_dense_replace=1,
        rope_parameters={**YARN, "mscale": 1.0, "mscale_all_dim": 1.0})),
    "glm4_moe": ("Glm4Moe", dict(
        **MOE, head_dim=12, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1,
        use_qk_norm=True, attention_bias=True, routed_scaling_factor=1.5,
        rope_parameters=rope(1e4, partial_rotary_factor=0.5))),
    "gpt_oss": ("GptOss", dict(
        intermediate_size=12, num_local_experts=4, num_experts_per_tok=2, head_dim=12, sliding_window=5,
        swiglu_limit=1.0, rope_parameters={**YARN, "truncate": False})),
    "gpt2": ("GPT2", dict(OLD, head_class="LMHeadModel")),
    "gpt_bigcode": ("GPTBigCode", dict(OLD, n_inner=40)),
    "gpt_bigcode_heads": ("GPTBigCode", dict(OLD, multi_query=False)),
    "starcoder2": ("Starcoder2", dict(sliding_window=5)),
    "opt": ("OPT", dict(ffn_dim=40)),
    "opt_350m": ("OPT", dict(ffn_dim=40, do_layer_norm_before=False, word_embed_proj_dim=24)),
    "galactica": ("OPT", dict(ffn_dim=40, activation_function="gelu", enable_bias=False,
                              layer_norm_elementwise_affine=False)),
    "bloom": ("Bloom", dict(n_layer=2, n_head=6, hidden_size=36, seq_length=64)),
    "falcon_7b": ("Falcon", dict(tie_word_embeddings=True)),
    "falcon_40b": ("Falcon", dict(new_decoder_architecture=True, num_kv_heads=2, tie_word_embeddings=False)),
    "falcon_11b": ("Falcon", dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1,
                                  ffn_hidden_size=40)),
    "falcon_rw": ("Falcon", dict(alibi=True, parallel_attn=False, multi_query=False, bias=True)),
    "qwen3_next": ("Qwen3Next", dict(
        **MOE, num_experts=4, num_experts_per_tok=2, shared_expert_intermediate_size=12, head_dim=16,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=5,
        layer_types=["linear_attention", "full_attention", "linear_attention"], num_hidden_layers=3)),
    # In the layout of their authors: see remote_layouts.py.
    "baichuan_7b": ("Llama", dict(num_key_value_heads=4)),
    "baichuan2_13b": ("Llama", dict(num_attention_heads=6, num_key_value_heads=6, hidden_size=36)),
    "qwen": ("Qwen2", dict(num_key_value_heads=4)),
    "chatglm": ("Glm", dict(head_dim=8, rope_parameters=rope(5e6, partial_rotary_factor=0.5), rms_norm_eps=1e-6)),
    "qwen3": ("Qwen3", dict(head_dim=12, rope_parameters=rope(1e6), tie_word_embeddings=False)),
}


def build(folder):
    name, changes = MODELS[folder]
    # Families that call dimensions by other names bring them all.
    shared = {k: SHARED[k] for k in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    keys = {**(shared if "n_layer" in changes else SHARED), **changes}
    if name in ("Falcon", "OPT"):
        del keys["intermediate_size"], keys["num_key_value_heads"]
    head = keys.pop("head_class", "ForCausalLM")
    config = getattr(transformers, keys.pop("config_class", name + "Config"))(**keys)
    attention = "sdpa" if name == "Falcon" else "eager"  # Falcon's eager path adds ALiBi twice
    config._attn_implementation = attention
    torch.manual_seed(7)
    model = getattr(transformers, name + head)(config).to(torch.float32).eval()
    if folder == "baichuan2_13b":
        model.lm_head = NormHead(config.hidden_size, config.vocab_size, bias=False)
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if key.endswith("e_score_correction_bias"):
                tensor.copy_((torch.randn_like(tensor) * 0.3).to(torch.bfloat16))
            elif isinstance(tensor, torch.nn.Parameter):
                # Convolved queries and keys near 0 would make their length a matter of rounding.
                wide = "router" in key or key.endswith(("gate.weight", "conv1d.weight", "in_proj_qkvz.weight"))
                spread = 1.0 if wide else 0.15
                tensor.copy_((torch.randn_like(tensor) * spread + (tensor.dim() == 1)).to(torch.bfloat16))
    return model


def greedy(model, tokens, steps=8):
    for _ in range(steps):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    return tokens[0, -steps:].tolist()


def save(model, folder, path):
    if folder not in LAYOUTS:
        model.save_pretrained(path)
        (path / "generation_config.json").unlink(missing_ok=True)
        return
    layout, config = LAYOUTS[folder]
    path.mkdir(exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in layout(model.state_dict()).items()}
    safetensors.torch.save_file(tensors, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def gradients(model, folder):
    """Of each tensor as the checkpoint names and lays it out."""
    with tempfile.TemporaryDirectory() as path, torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
        save(model, folder, pathlib.Path(path))
        out = {}
        for name, g in safetensors.torch.load_file(path + "/model.safetensors").items():
            if name.endswith("e_score_correction_bias"):
                continue
            g = g.double().flatten()
            wave = torch.arange(g.numel(), dtype=torch.float64).cos()
            out[name] = [float(f"{x:.8g}") for x in (g.norm(), g.sum(), g @ wave)]
        return out


def make(folder):
    model = build(folder)
    # .to() would round RoPE's buffers too
    save(copy.deepcopy(model).to(torch.bfloat16), folder, ROOT / folder)
    torch.manual_seed(8)
    tokens = torch.randint(3, model.config.vocab_size, (2, 13))
    with alibi_instead_of_rope() if folder == "baichuan2_13b" else contextlib.nullcontext():
        out = model(tokens, labels=tokens)
        out.loss.backward()
        continuation = greedy(model, tokens[:1])
    golden = {
        "tokens": tokens.tolist(),
        "logits": [[round(x, 6) for x in row.flatten().tolist()] for row in out.logits.detach()],
        "loss": out.loss.item(),
        "greedy": continuation,
        "gradients": gradients(model, folder),
    }
    (ROOT / folder / "golden.json").write_text(json.dumps(golden) + "\n")


def tensors(model, folder, values):
    """`values` of each parameter, as the checkpoint names and lays them out."""
    with tempfile.TemporaryDirectory() as path, torch.no_grad():
        model = copy.deepcopy(model)
        for parameter, value in zip(model.parameters(), values):
            parameter.copy_(value)
        save(model, folder, pathlib.Path(path))
        loaded = safetensors.torch.load_file(path + "/model.safetensors")
    return {name: x.flatten() for name, x in loaded.items() if not name.endswith("e_score_correction_bias")}


def three_updates(folder, kept=12):
    """Where a gradient is near 0 AdamW's first steps magnify its rounding, so those elements are left out."""
    model = build(folder)
    tokens = torch.tensor(json.loads((ROOT / folder / "golden.json").read_text())["tokens"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    smallest, losses = None, []
    with alibi_instead_of_rope() if folder == "baichuan2_13b" else contextlib.nullcontext():
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(tokens, labels=tokens).loss
            loss.backward()
            now = [torch.zeros_like(p) if p.grad is None else p.grad.abs() for p in model.parameters()]
            smallest = now if smallest is None else [torch.minimum(a, b) for a, b in zip(smallest, now)]
            losses.append(loss.item())
            optimizer.step()
    gradient = tensors(model, folder, smallest)
    values = tensors(model, folder, [p.detach() for p in model.parameters()])
    out = {}
    for name, x in values.items():
        where = gradient[name].topk(min(kept, x.numel())).indices.sort().values
        where = where[gradient[name][where] > 1e-5]
        out[name] = [where.tolist(), [float(f"{v:.8g}") for v in x[where]]]
    (ROOT / folder / "adamw.json").write_text(json.dumps({"losses": losses, "values": out}) + "\n")


if __name__ == "__main__":
    for folder in sys.argv[1:] or MODELS:
        print(folder)
        make(folder)
        three_updates(folder)
