#!/usr/bin/env python3
"""Makes tests/golden/trl_updates.json: what `trl` computes, update by update, from a tiny model and given completions:
its own trainers on a CPU, with AdamW, and the loss and gradient norm of every optimizer step.

    pip install torch==2.11.0 transformers==5.23.0 trl==1.16.0 && tests/golden/make_trl_goldens.py

Every sequence is written as it reached the model, so that the test needs neither `trl` nor a tokenizer.
"""
import json
import pathlib
import random
import tempfile

import datasets
import tokenizers
import torch
import transformers
import trl

ROOT = pathlib.Path(__file__).parent
FOLDER = "qwen3"
STEPS, PROMPTS, GROUP, RATE = 6, 3, 4, 1e-3
COMMON = dict(learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=0.5, adam_beta1=0.9,
              adam_beta2=0.95, adam_epsilon=1e-8, logging_steps=1, save_strategy="no", report_to=[], seed=1, use_cpu=True,
              bf16=False, fp16=False, disable_tqdm=True, gradient_checkpointing=False, max_steps=STEPS)


def tokenizer():
    """Token i is the word "ti"."""
    vocabulary = {f"t{i}": i for i in range(61)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="t3"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token="t2", unk_token="t3")


def model(head=False):
    kind = transformers.AutoModelForSequenceClassification if head else transformers.AutoModelForCausalLM
    more = dict(num_labels=1) if head else {}
    made = kind.from_pretrained(ROOT / "models" / FOLDER, dtype=torch.float32, attn_implementation="eager", **more)
    if head:
        torch.nn.init.zeros_(made.score.weight)  # where a new head begins here too
    return made


def words(draw, low, high):
    return " ".join(f"t{draw.randint(5, 60)}" for _ in range(draw.randint(low, high)))


def run(trainer, record):
    """Trains; returns a line for each optimizer step, `record(inputs)` with its loss and gradient norm."""
    lines = []
    inner_loss, inner_log = trainer.compute_loss, trainer.log

    def compute_loss(network, inputs, *arguments, **named):
        line = record(inputs)
        loss = inner_loss(network, inputs, *arguments, **named)
        line["loss"] = (loss[0] if isinstance(loss, tuple) else loss).item()
        lines.append(line)
        return loss

    def log(logs, *arguments, **named):
        if "grad_norm" in logs:
            lines[-1]["grad_norm"] = float(logs["grad_norm"])
        return inner_log(logs, *arguments, **named)

    trainer.compute_loss, trainer.log = compute_loss, log
    trainer.train()
    assert len(lines) == STEPS and all("grad_norm" in line for line in lines), lines
    return lines


def rows(ids, attention, targets, **more):
    """The sequences of a batch without their padding."""
    out = []
    for i in range(len(ids)):
        keep = attention[i].bool()
        out.append({"tokens": ids[i][keep].tolist(), "mask": targets[i][keep].int().tolist()})
        for key, value in more.items():
            out[-1][key] = value[i]
    return out


def reward_of(completion):
    return (sum(completion) % 7) / 6


def grpo(name, **settings):
    draw = random.Random(name)
    data = datasets.Dataset.from_list([{"prompt": f"t{5 + i} " + words(draw, 2, 4)} for i in range(PROMPTS * STEPS)])
    configuration = trl.GRPOConfig(
        tempfile.mkdtemp(), per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, num_iterations=2,
        max_completion_length=8, beta=0.0, temperature=1.0, shuffle_dataset=False, remove_unused_columns=False,
        **COMMON, **settings)

    def rollouts(prompts, trainer):
        encoded = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
        completions = [[draw.randint(5, 60) for _ in range(draw.randint(1, 7))] + [2] for _ in prompts]
        return {"prompt_ids": encoded, "completion_ids": completions, "logprobs": [[0.0] * len(c) for c in completions]}

    trainer = trl.GRPOTrainer(model(), args=configuration, train_dataset=data, processing_class=tokenizer(),
                              reward_funcs=lambda completion_ids, **_: [reward_of(c) for c in completion_ids],
                              rollout_func=rollouts)

    def record(inputs):
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        targets = torch.cat([torch.zeros_like(inputs["prompt_mask"]), inputs["completion_mask"]], 1)
        completions = [c[m.bool()].tolist() for c, m in zip(inputs["completion_ids"], inputs["completion_mask"])]
        prompts = [tuple(p[m.bool()].tolist()) for p, m in zip(inputs["prompt_ids"], inputs["prompt_mask"])]
        order = {prompt: k for k, prompt in enumerate(dict.fromkeys(prompts))}
        return {"sequences": rows(ids, attention, targets, reward=[reward_of(c) for c in completions],
                                  group=[order[p] for p in prompts])}

    return run(trainer, record)


def sft():
    draw = random.Random("sft")
    data = datasets.Dataset.from_list([{"prompt": words(draw, 2, 5), "completion": " " + words(draw, 2, 9)}
                                       for _ in range(8 * STEPS)])
    configuration = trl.SFTConfig(tempfile.mkdtemp(), per_device_train_batch_size=8, max_length=None,
                                  completion_only_loss=True, **COMMON)
    trainer = trl.SFTTrainer(model(), args=configuration, train_dataset=data, processing_class=tokenizer())
    return run(trainer, lambda inputs: {"sequences": rows(
        inputs["input_ids"], inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])),
        inputs["labels"] != -100)})


def pairs_of(sequences):
    """Chosen ones stand in the first half, rejected ones in the second: side by side, with a group for each pair."""
    half = len(sequences) // 2
    out = []
    for k in range(half):
        out += [dict(sequences[k], group=k), dict(sequences[half + k], group=k)]
    return out


def preference_data(name):
    draw = random.Random(name)
    return datasets.Dataset.from_list([
        {"prompt": words(draw, 2, 5), "chosen": " " + words(draw, 2, 7), "rejected": " " + words(draw, 2, 7)}
        for _ in range(6 * STEPS)])


def dpo():
    configuration = trl.DPOConfig(tempfile.mkdtemp(), per_device_train_batch_size=6, beta=0.1, max_length=None, **COMMON)
    trainer = trl.DPOTrainer(model(), args=configuration, train_dataset=preference_data("dpo"),
                             processing_class=tokenizer())
    return run(trainer, lambda inputs: {"sequences": pairs_of(
        rows(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"]))})


def reward_model():
    configuration = trl.RewardConfig(tempfile.mkdtemp(), per_device_train_batch_size=6, max_length=None,
                                     center_rewards_coefficient=0.01, **COMMON)
    trainer = trl.RewardTrainer(model(head=True), args=configuration, train_dataset=preference_data("reward"),
                                processing_class=tokenizer())

    def record(inputs):
        # Every token but the first is called a target: only the last one is read.
        targets = torch.ones_like(inputs["input_ids"])
        found = rows(inputs["input_ids"], inputs["attention_mask"], targets)
        for row in found:
            row["mask"][0] = 0
        return {"sequences": pairs_of(found)}

    return run(trainer, record)


def main():
    out = {"model": FOLDER, "learning_rate": RATE, "beta2": COMMON["adam_beta2"], "epsilon": COMMON["adam_epsilon"],
           "max_grad_norm": COMMON["max_grad_norm"], "trl": trl.__version__, "transformers": transformers.__version__,
           "torch": torch.__version__.split("+")[0], "cases": {}}
    cases = out["cases"]
    cases["grpo"] = grpo("grpo", loss_type="grpo", epsilon=0.2)
    cases["dr_grpo"] = grpo("dr_grpo", loss_type="dr_grpo", scale_rewards="none", epsilon=0.2)
    cases["dapo"] = grpo("dapo", loss_type="dapo", epsilon=0.2, epsilon_high=0.28)
    cases["gspo"] = grpo("gspo", loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4)
    cases["sft"] = sft()
    cases["dpo"] = dpo()
    cases["reward_model"] = reward_model()
    text = json.dumps(out, separators=(",", ":")).replace('{"sequences"', '\n{"sequences"')
    (ROOT / "trl_updates.json").write_text(text + "\n")
    for name, lines in cases.items():
        print(name, [(round(line["loss"], 6), round(line["grad_norm"], 6)) for line in lines])


main()
