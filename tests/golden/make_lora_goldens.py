#!/usr/bin/env python3
"""Makes tests/golden/adapters/<folder>: LoRA adapters that `peft` has made and saved for the model of the same name in
tests/golden/models, and what the two compute together in float32: logits, the loss, and of the gradient of each adapter
tensor its norm, its sum and its product with the cosine of 0, 1, 2, ...

    pip install torch==2.11.0 transformers==5.23.0 peft==0.21.2 && tests/golden/make_lora_goldens.py [folder...]
"""
import json
import pathlib
import sys

import peft
import torch
import transformers

ROOT = pathlib.Path(__file__).parent
# folder: (modules, other settings)
ADAPTERS = {
    "llama": (["q_proj", "v_proj", "down_proj"], dict(r=4, lora_alpha=6, rank_pattern={"down_proj": 2},
                                                      alpha_pattern={"layers.1.mlp.down_proj": 5})),
    "qwen3": (["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
              dict(r=4, lora_alpha=8, use_rslora=True)),
    "mixtral": (["q_proj", "v_proj"], dict(r=4, lora_alpha=8, modules_to_save=["lm_head", "embed_tokens", "norm"])),
    "phi3": (["qkv_proj", "gate_up_proj"], dict(r=3, lora_alpha=6)),
    "gpt2": (["c_attn", "c_proj"], dict(r=4, lora_alpha=4, fan_in_fan_out=True)),
    "falcon_40b": (["query_key_value", "dense"], dict(r=4, lora_alpha=4)),
    "deepseek_v3": (["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"], dict(r=4, lora_alpha=4)),
    "qwen3_next": (["in_proj_qkvz", "in_proj_ba", "out_proj", "q_proj", "v_proj"], dict(r=4, lora_alpha=4)),
}


def figures(g):
    g = g.double().flatten()
    wave = torch.arange(g.numel(), dtype=torch.float64).cos()
    return [float(f"{x:.8g}") for x in (g.norm(), g.sum(), g @ wave)]


def make(folder):
    base, out = ROOT / "models" / folder, ROOT / "adapters" / folder
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="sdpa" if "falcon" in folder else "eager")
    modules, settings = ADAPTERS[folder]
    torch.manual_seed(9)
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=modules, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_((torch.randn_like(parameter) * 0.05)).copy_(parameter.to(torch.bfloat16))
            if "lora_" in name:
                parameter.copy_((torch.randn_like(parameter) * 0.2).to(torch.bfloat16))
    model.eval()
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"../../models/{folder}"
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokens = torch.tensor(json.loads((base / "golden.json").read_text())["tokens"])
    result = model(tokens, labels=tokens)
    result.loss.backward()
    golden = {
        "logits": [[round(x, 6) for x in row.flatten().tolist()] for row in result.logits.detach()],
        "loss": result.loss.item(),
        "gradients": {name.replace(".modules_to_save", "").replace(".default", ""): figures(p.grad)
                      for name, p in model.named_parameters() if p.requires_grad},
    }
    (out / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    for folder in sys.argv[1:] or ADAPTERS:
        print(folder)
        make(folder)
