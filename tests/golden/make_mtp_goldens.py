#!/usr/bin/env python3
"""Makes tests/golden/mtp/<folder>: a tiny DeepSeek-V3 and GLM-4.5 with two layers of multi-token prediction in the published
layout, and what a short PyTorch reference computes: the main loss, the loss of the layers, and of each tensor's gradient of their weighted sum
its norm, its sum and its product with the cosine of 0, 1, 2, ...

The reference is DeepSeek-V3's section 2.2 (arXiv 2412.19437) as Megatron-LM trains it (core/transformer/multi_token_prediction.py):
layer k takes [enorm(embedding of the token k + 1 places on); hnorm(state behind layer k - 1, normed)] through eh_proj and one
decoder block at the positions of the states, its output through shared_head.norm to the shared head; its loss is the mean over
layers, each over as many tokens as the main loss has. The block is `transformers`' own decoder layer of the
family.

    pip install torch==2.11.0 transformers==5.23.0 && python3 make_mtp_goldens.py
"""
import json
import pathlib

import safetensors.torch
import torch
import transformers
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.glm4_moe import modeling_glm4_moe

ROOT = pathlib.Path(__file__).parent
LAYERS, DEPTHS, COEFFICIENT = 2, 2, 0.3
ROWS = [[5, 9, 7, 8, 4, 30, 41, 22, 9], [3, 17, 44, 12, 60, 2], [7, 7]]
# folder: (the family's classes begin with, their module)
FAMILIES = {"deepseek_v3": ("DeepseekV3", modeling_deepseek_v3), "glm4_moe": ("Glm4Moe", modeling_glm4_moe)}


class Mtp(torch.nn.Module):
    def __init__(self, config, family, module, index):
        super().__init__()
        norm = getattr(module, family + "RMSNorm")
        self.enorm = norm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = norm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = getattr(module, family + "DecoderLayer")(config, index)
        self.norm = norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, next_embedding, hidden, mask, positions, rotary):
        x = self.eh_proj(torch.cat([self.enorm(next_embedding), self.hnorm(hidden)], -1))
        x = self.block(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary(x, positions))
        return self.norm(x[0] if isinstance(x, tuple) else x)


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


def draw(model, mtp):
    """Weights well away from 0 and 1; the file's tensors by name."""
    for parameter in [*model.parameters(), *mtp.parameters()]:
        with torch.no_grad():
            parameter.copy_(1 + 0.2 * torch.randn_like(parameter) if parameter.dim() == 1 else 0.2 * torch.randn_like(parameter))
    tensors = dict(model.state_dict(keep_vars=True))
    for k, layer in enumerate(mtp):
        for name, tensor in layer.state_dict(keep_vars=True).items():
            name = "shared_head.norm.weight" if name == "norm.weight" else name.removeprefix("block.")
            tensors[f"model.layers.{LAYERS + k}.{name}"] = tensor
    for name, tensor in tensors.items():
        if name.endswith("e_score_correction_bias"):
            with torch.no_grad():
                tensor.copy_(0.1 * torch.randn_like(tensor))
    return tensors


def losses(model, mtp):
    total = sum(len(row) - 1 for row in ROWS)
    main, ahead = torch.zeros(()), torch.zeros(())
    for row in ROWS:
        tokens, length = torch.tensor([row]), len(row)
        positions = torch.arange(length)[None]
        mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
        hidden = model.model(tokens).last_hidden_state
        main = main + torch.nn.functional.cross_entropy(model.lm_head(hidden)[0, :-1], tokens[0, 1:], reduction="sum") / total
        for k, layer in enumerate(mtp):
            shift = k + 1
            moved = torch.cat([tokens[:, shift:], tokens.new_zeros(1, min(shift, length))], 1)
            hidden = layer(model.model.embed_tokens(moved), hidden, mask, positions, model.model.rotary_emb)
            if length > shift + 1:
                logits = model.lm_head(hidden)[0, : length - shift - 1]
                ahead = ahead + torch.nn.functional.cross_entropy(logits, tokens[0, shift + 1:], reduction="sum") / total / DEPTHS
    return main, ahead


def make(folder):
    family, module = FAMILIES[folder]
    out = ROOT / "mtp" / folder
    text = json.loads((ROOT / "models" / folder / "config.json").read_text())
    text.update(num_nextn_predict_layers=DEPTHS, dtype="float32")
    config = getattr(transformers, family + "Config")(**{k: v for k, v in text.items() if k != "architectures"})
    config._attn_implementation = "eager"
    torch.manual_seed(11)
    model = getattr(transformers, family + "ForCausalLM")(config).float().eval()
    mtp = torch.nn.ModuleList([Mtp(config, family, module, LAYERS + k) for k in range(DEPTHS)]).float().eval()
    tensors = draw(model, mtp)
    main, ahead = losses(model, mtp)
    (main + COEFFICIENT * ahead).backward()
    values, gradients = {}, {}
    for name, tensor in tensors.items():
        for part, value in split_experts(name, tensor.detach()):
            values[part] = value.contiguous().clone()
        if tensor.grad is None:
            continue
        for part, value in split_experts(name, tensor.grad):
            flat = value.double().flatten()
            gradients[part] = [flat.norm().item(), flat.sum().item(), flat.dot(torch.arange(len(flat)).double().cos()).item()]
    for k in range(DEPTHS):
        values[f"model.layers.{LAYERS + k}.embed_tokens.weight"] = values["model.embed_tokens.weight"].clone()
        values[f"model.layers.{LAYERS + k}.shared_head.head.weight"] = values["lm_head.weight"].clone()
    out.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(values, out / "model.safetensors", {"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    (out / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    (out / "golden.json").write_text(json.dumps({"tokens": ROWS, "loss": main.item(), "mtp_loss": ahead.item(),
                                                 "coefficient": COEFFICIENT, "gradients": gradients}) + "\n")


if __name__ == "__main__":
    for folder in FAMILIES:
        make(folder)
