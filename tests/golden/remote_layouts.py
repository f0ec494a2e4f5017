"""Families that `transformers` does not have in the layout of their authors: the same maths in a class that it has,
and what its tensors and keys are called in the authors' files.

Sources: github.com/baichuan-inc/Baichuan2 (modeling_baichuan.py), github.com/QwenLM/Qwen (modeling_qwen.py),
github.com/THUDM/GLM-4 (modeling_chatglm.py), and `transformers`' own convert_glm_weights_to_hf.py.
"""
import contextlib
import math

import torch
import torch.nn.functional as F
from transformers.models.llama import modeling_llama


def slopes(heads):
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    return torch.tensor(first + [2 ** (-4 * h / power) for h in range(1, 2 * (heads - power), 2)])


@contextlib.contextmanager
def alibi_instead_of_rope():
    """Llama's attention, as Baichuan-13B has it."""
    attend, turn = modeling_llama.eager_attention_forward, modeling_llama.apply_rotary_pos_emb

    def biased(module, query, key, value, mask, scaling, **more):
        positions = torch.arange(key.shape[2], dtype=torch.float32)
        bias = slopes(query.shape[1])[:, None, None] * positions
        return attend(module, query, key, value, mask + bias, scaling, **more)

    modeling_llama.eager_attention_forward, modeling_llama.apply_rotary_pos_emb = biased, lambda q, k, *_: (q, k)
    try:
        yield
    finally:
        modeling_llama.eager_attention_forward, modeling_llama.apply_rotary_pos_emb = attend, turn


class NormHead(torch.nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight))


def renamed(state, names, layer_names, fused):
    """`fused`: new part -> the parts that are stacked in it."""
    out = {}
    for name, tensor in state.items():
        if name in names:
            out[names[name]] = tensor
            continue
        _, _, layer, part = name.split(".", 3)
        stem, kind = part.rsplit(".", 1)
        if stem in layer_names:
            out[layer_names[""] % layer + layer_names[stem] + "." + kind] = tensor
    layers = sorted({int(n.split(".")[2]) for n in state if n.startswith("model.layers.")})
    for layer in layers:
        for part, stems in fused.items():
            for kind in ("weight", "bias"):
                parts = [state.get(f"model.layers.{layer}.{stem}.{kind}") for stem in stems]
                if parts[0] is not None:
                    out[layer_names[""] % layer + part + "." + kind] = torch.cat(parts)
    return out


QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


def baichuan(state):
    same = ["input_layernorm", "post_attention_layernorm", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    return renamed(state, {n: n for n in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")},
                   {"": "model.layers.%s.", **{n: n for n in same}}, {"self_attn.W_pack": QKV})


def qwen(state):
    return renamed(state, {"model.embed_tokens.weight": "transformer.wte.weight", "model.norm.weight": "transformer.ln_f.weight",
                           "lm_head.weight": "lm_head.weight"},
                   {"": "transformer.h.%s.", "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2",
                    "self_attn.o_proj": "attn.c_proj", "mlp.gate_proj": "mlp.w2", "mlp.up_proj": "mlp.w1",
                    "mlp.down_proj": "mlp.c_proj"}, {"attn.c_attn": QKV})


def chatglm(state):
    return renamed(state, {"model.embed_tokens.weight": "transformer.embedding.word_embeddings.weight",
                           "model.norm.weight": "transformer.encoder.final_layernorm.weight",
                           "lm_head.weight": "transformer.output_layer.weight"},
                   {"": "transformer.encoder.layers.%s.", "input_layernorm": "input_layernorm",
                    "post_attention_layernorm": "post_attention_layernorm", "self_attn.o_proj": "self_attention.dense",
                    "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h"},
                   {"self_attention.query_key_value": QKV})


IDS = dict(vocab_size=61, bos_token_id=1, eos_token_id=2, pad_token_id=0)
BAICHUAN = dict(IDS, architectures=["BaichuanForCausalLM"], model_type="baichuan", hidden_size=32, intermediate_size=40,
                num_hidden_layers=2, num_attention_heads=4, rms_norm_eps=1e-6, hidden_act="silu", tie_word_embeddings=False)
# folder: (layout, the authors' config.json, what the class above is put in)
LAYOUTS = {
    "baichuan_7b": (baichuan, dict(BAICHUAN, architectures=["BaiChuanForCausalLM"], max_position_embeddings=64)),
    "baichuan2_13b": (baichuan, dict(BAICHUAN, model_max_length=64, num_attention_heads=6, hidden_size=36, z_loss_weight=0)),
    "qwen": (qwen, dict(
        IDS, architectures=["QWenLMHeadModel"], model_type="qwen", hidden_size=32, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=4, kv_channels=8, layer_norm_epsilon=1e-6, max_position_embeddings=64, seq_length=64,
        rotary_emb_base=10000, rotary_pct=1.0, no_bias=True, scale_attn_weights=True, use_dynamic_ntk=True,
        use_logn_attn=True, use_flash_attn="auto", tie_word_embeddings=False, emb_dropout_prob=0.0, attn_dropout_prob=0.0)),
    "chatglm": (chatglm, dict(
        IDS, architectures=["ChatGLMModel"], model_type="chatglm", padded_vocab_size=61, hidden_size=32, ffn_hidden_size=40,
        num_layers=2, num_attention_heads=4, kv_channels=8, multi_query_attention=True, multi_query_group_num=2,
        layernorm_epsilon=1e-6, seq_length=64, rope_ratio=500, original_rope=True, rmsnorm=True, post_layer_norm=True,
        add_qkv_bias=True, add_bias_linear=False, apply_query_key_layer_scaling=True, attention_softmax_in_fp32=True,
        apply_residual_connection_post_layernorm=False, fp32_residual_connection=False, bias_dropout_fusion=True,
        tie_word_embeddings=False)),
}
