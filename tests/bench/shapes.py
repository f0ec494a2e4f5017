"""The work that cpu_bench.py and peer_transformers.py both measure."""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

SHAPES = {
    # The quickstart's model: 256 sequences of 18 tokens an update.
    "digits": dict(model=ROOT / "configs/models/digits", train=(256, 18), updates=12, prompts=128, prompt_tokens=16,
                   new_tokens=40),
    "smollm2": dict(model=ROOT / "models/smollm2-135m-instruct", train=(4, 256), updates=4, prompts=16,
                    prompt_tokens=64, new_tokens=32),
}


def parameters(config):
    """Of the matrices that every token is multiplied with, the head included: what FLOP/s are counted from."""
    c = dict(config)
    d, heads = c["hidden_size"], c["num_attention_heads"]
    width = c.get("head_dim") or d // heads
    attention = d * width * (heads + 2 * c["num_key_value_heads"]) + heads * width * d
    return c["num_hidden_layers"] * (attention + 3 * d * c["intermediate_size"]) + c["vocab_size"] * d


def config_of(shape):
    return json.loads((shape["model"] / "config.json").read_text())


def report(**figures):
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}),
          flush=True)
