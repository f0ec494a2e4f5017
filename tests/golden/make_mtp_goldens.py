#!/usr/bin/env python3
"""Makes tests/golden/mtp: a tiny DeepSeek-V3 with two layers of multi-token prediction in the published layout, and what a
short PyTorch reference computes: the main loss, the loss of the layers, and of each tensor's gradient of their weighted sum
its norm, its sum and its product with the cosine of 0, 1, 2, ...

The reference is DeepSeek-V3's section 2.2 (arXiv 2412.19437) as Megatron-LM trains it (core/transformer/multi_token_prediction.py):
layer k takes [enorm(embedding of the token k + 1 places on); hnorm(state behind layer k - 1, normed)] through eh_proj and one
decoder block at the positions of the states, its output through shared_head.norm to the shared head; its loss is the mean over
layers, each over as many tokens as the main loss has. The block is `transformers`' DeepseekV3DecoderLayer.

    pip install torch==2.11.0 transformers==5.23.0 && python3 make_mtp_goldens.py
"""
import json
import pathlib

import safetensors.torch
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

FOLDER = pathlib.Path(__file__).with_name("mtp")
LAYERS, DEPTHS, COEFFICIENT = 2, 2, 0.3
ROWS = [[5, 9, 7, 8, 4, 30, 41, 22, 9], [3, 17, 44, 12, 60, 2], [7, 7]]
config = DeepseekV3Config(
    vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=64, moe_intermediate_size=12, kv_lora_rank=16, q_lora_rank=10, qk_nope_head_dim=8, qk_rope_head_dim=4,
    v_head_dim=6, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, n_group=4, topk_group=2, first_k_dense_replace=1,
    routed_scaling_factor=2.5, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
    num_nextn_predict_layers=DEPTHS, attn_implementation="eager")
torch.manual_seed(11)
model = DeepseekV3ForCausalLM(config).float().eval()


class Mtp(torch.nn.Module):
    def __init__(self, index):
        super().__init__()
        self.enorm = DeepseekV3RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = DeepseekV3RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = DeepseekV3DecoderLayer(config, index)
        self.norm = DeepseekV3RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, next_embedding, hidden, mask, positions):
        x = self.eh_proj(torch.cat([self.enorm(next_embedding), self.hnorm(hidden)], -1))
        x = self.block(x, attention_mask=mask, position_ids=positions, position_embeddings=model.model.rotary_emb(x, positions))
        return self.norm(x[0] if isinstance(x, tuple) else x)


mtp = torch.nn.ModuleList([Mtp(LAYERS + k) for k in range(DEPTHS)]).float().eval()
for parameter in [*model.parameters(), *mtp.parameters()]:
    with torch.no_grad():
        parameter.copy_(1 + 0.2 * torch.randn_like(parameter) if parameter.dim() == 1 else 0.2 * torch.randn_like(parameter))
tensors = {}
for owner, prefix in [(model, "")] + [(m, f"model.layers.{LAYERS + k}.") for k, m in enumerate(mtp)]:
    for name, tensor in owner.state_dict(keep_vars=True).items():
        if name.endswith("e_score_correction_bias"):
            with torch.no_grad():
                tensor.copy_(0.1 * torch.randn_like(tensor))
        if owner is not model:
            name = prefix + name.removeprefix("block.")
            if name.endswith(f"layers.{prefix.split('.')[2]}.norm.weight"):
                name = prefix + "shared_head.norm.weight"
        tensors[name] = tensor


def split_experts(name, tensor):
    """The published file has a tensor for each expert; `transformers` holds them stacked."""
    if name.endswith("experts.gate_up_proj"):
        for e in range(tensor.shape[0]):
            gate, up = tensor[e].chunk(2)
            yield name.replace("gate_up_proj", f"{e}.gate_proj.weight"), gate
            yield name.replace("gate_up_proj", f"{e}.up_proj.weight"), up
    elif name.endswith("experts.down_proj"):
        for e in range(tensor.shape[0]):
            yield name.replace("down_proj", f"{e}.down_proj.weight"), tensor[e]
    else:
        yield name, tensor


total = sum(len(row) - 1 for row in ROWS)
main_loss, mtp_loss = torch.zeros(()), torch.zeros(())
for row in ROWS:
    tokens = torch.tensor([row])
    length = len(row)
    positions = torch.arange(length)[None]
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
    hidden = model.model(tokens).last_hidden_state
    main_loss = main_loss + torch.nn.functional.cross_entropy(model.lm_head(hidden)[0, :-1], tokens[0, 1:], reduction="sum") / total
    for k, layer in enumerate(mtp):
        shift = k + 1
        ahead = torch.cat([tokens[:, shift:], tokens.new_zeros(1, min(shift, length))], 1)
        hidden = layer(model.model.embed_tokens(ahead), hidden, mask, positions)
        if length > shift + 1:
            logits = model.lm_head(hidden)[0, : length - shift - 1]
            mtp_loss = mtp_loss + torch.nn.functional.cross_entropy(logits, tokens[0, shift + 1:], reduction="sum") / total / DEPTHS
(main_loss + COEFFICIENT * mtp_loss).backward()

FOLDER.mkdir(exist_ok=True)
values, gradients = {}, {}
for name, tensor in tensors.items():
    grad = tensor.grad if tensor.grad is not None else None
    for part, value in split_experts(name, tensor.detach()):
        values[part] = value.contiguous().clone()
    if grad is None:
        continue
    for part, value in split_experts(name, grad):
        flat = value.double().flatten()
        gradients[part] = [flat.norm().item(), flat.sum().item(), flat.dot(torch.arange(len(flat)).double().cos()).item()]
for k in range(DEPTHS):
    values[f"model.layers.{LAYERS + k}.embed_tokens.weight"] = values["model.embed_tokens.weight"].clone()
    values[f"model.layers.{LAYERS + k}.shared_head.head.weight"] = values["lm_head.weight"].clone()
safetensors.torch.save_file(values, FOLDER / "model.safetensors", {"format": "pt"})
text = json.loads(config.to_json_string(use_diff=False))
golden = json.loads((FOLDER.parent / "models/deepseek_v3/config.json").read_text())
golden.update(num_nextn_predict_layers=DEPTHS, rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, dtype="float32")
(FOLDER / "config.json").write_text(json.dumps(golden, indent=2) + "\n")
assert all(text[key] == golden[key] for key in ("hidden_size", "q_lora_rank", "n_group", "topk_group", "routed_scaling_factor",
                                                "rms_norm_eps", "norm_topk_prob", "rope_interleave")), "config.json says otherwise"
(FOLDER / "golden.json").write_text(json.dumps({"tokens": ROWS, "loss": main_loss.item(), "mtp_loss": mtp_loss.item(),
                                                "coefficient": COEFFICIENT, "gradients": gradients}) + "\n")
