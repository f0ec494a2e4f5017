#!/usr/bin/env python3
"""Low-rank adapters through the services: training, what is kept, exports, and that `peft` computes the same.

    adapters_test.py BIN_FOLDER
"""
import json
import math
import pathlib
import subprocess
import sys
import unittest

from stack import BIN, MODEL, Stack

START = """name: start
model: {config: %s}
data: {train: data/sft.jsonl}
sft: {updates: 100, sequences: 64}
trainer: {learning_rate: 2e-3}
""" % MODEL
GRPO = """name: %s
model: {job: start, lora: {rank: 8, alpha: 16}}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 200}}
grpo: {updates: %d, prompts: 32, group_size: 16, max_completion_tokens: 3, kl: {coefficient: 1e-3}}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 3e-3}
eval: {every: %d}
checkpoint: {every: 10}
"""

# Loads the folder with `peft` and gives the log-prob of each token of each line.
PEFT = """
import json, sys, torch, transformers, peft
base = json.load(open(sys.argv[1] + "/adapter_config.json"))["base_model_name_or_path"]
model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = peft.PeftModel.from_pretrained(model, sys.argv[1]).eval()
for line in open(sys.argv[2]):
    tokens = torch.tensor([json.loads(line)["tokens"]])
    with torch.no_grad():
        logprobs = model(tokens).logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])[:, 0]
    print(json.dumps(logprobs.tolist()))
"""


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


class AdaptersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.addClassCleanup(cls.stack.down)
        cls.stack.end_of(START, code=0, patience=250)
        cls.stack.end_of(GRPO % ("adapters", 20, 10), code=0, patience=250)
        cls.tokens = cls.stack.folder / "tokens.jsonl"
        cls.tokens.write_text("".join(json.dumps({"tokens": [4 + (7 * i + 3 * t) % 20 for t in range(12)]}) + "\n" for i in range(5)))

    def output(self, name):
        return pathlib.Path(self.stack.job(name)["output"])

    def scores(self, folder):
        subprocess.run([BIN / "rein-reference", "score", "--model", folder, "--input", self.tokens, "--output", "scores.jsonl"],
                       cwd=self.stack.folder, check=True, capture_output=True, timeout=100)
        rows = lines_of(self.stack.folder / "scores.jsonl")
        (self.stack.folder / "scores.jsonl").unlink()
        return [row["logprobs"] for row in rows]

    def assert_near(self, one, other, tolerance):
        worst = max(abs(a - b) for x, y in zip(one, other) for a, b in zip(x, y) if a is not None and b is not None)
        self.assertLessEqual(worst, tolerance)

    def test_accuracy_rises_and_generator_and_trainer_agree(self):
        evals = [line["slices"][0]["accuracy"] for line in lines_of(self.output("adapters") / "evals.jsonl")]
        self.assertGreater(evals[-1], evals[0] + 0.2, evals)
        metrics = self.stack.metrics("adapters")
        self.assertEqual(sum(line["mismatch_tokens"] for line in metrics), 0)
        self.assertGreater(sum(line["reference_kl"] for line in metrics), 0)

    def test_checkpoints_and_results_hold_adapters_alone(self):
        result = self.output("adapters") / "model"
        names = {path.name for path in result.iterdir()}
        self.assertIn("adapter_model.safetensors", names)
        self.assertIn("adapter_config.json", names)
        self.assertIn("tokenizer.json", names)
        self.assertNotIn("model.safetensors", names)
        base = (self.output("start") / "model/model.safetensors").stat().st_size
        self.assertLess((result / "adapter_model.safetensors").stat().st_size, base / 4)
        number = self.stack.job("adapters")["checkpoints"][-1]["path"]
        self.assertLess((pathlib.Path(number) / "optimizer.safetensors").stat().st_size, base)

    def test_the_merged_export_is_the_same_model(self):
        result = self.output("adapters") / "model"
        said = self.stack.rein("export", "adapters", "--to", "merged", "--format", "merged")
        self.assertIn("AutoModelForCausalLM.from_pretrained", said)
        self.assertTrue((self.stack.folder / "merged/model.safetensors").exists())
        self.assert_near(self.scores(result), self.scores(self.stack.folder / "merged"), 1e-4)
        self.stack.rein("export", "adapters", "--to", "adapter")
        self.assertEqual(self.scores(result), self.scores(self.stack.folder / "adapter"))
        base = self.scores(self.output("start") / "model")
        self.assertGreater(max(abs(a - b) for a, b in zip(base[0][1:], self.scores(result)[0][1:])), 1e-3)

    def test_an_adapter_is_trained_further_and_evaluated(self):
        further = (GRPO % ("further", 3, 3)).replace("{job: start, lora: {rank: 8, alpha: 16}}", "{job: adapters}")
        self.stack.end_of(further, code=0)
        evals = [line["slices"][0]["accuracy"] for line in lines_of(self.output("further") / "evals.jsonl")]
        before = [line["slices"][0]["accuracy"] for line in lines_of(self.output("adapters") / "evals.jsonl")]
        self.assertAlmostEqual(evals[0], before[-1], 6)
        self.assertTrue((self.output("further") / "model/adapter_model.safetensors").exists())

    def test_a_quantised_base_learns_and_generator_and_trainer_agree(self):
        for base, updates in (("nf4", 20), ("int8", 4)):
            job = (GRPO % (base, updates, updates)).replace("alpha: 16}}", "alpha: 16}, base: %s}" % base)
            self.stack.end_of(job, code=0, patience=250)
            evals = [line["slices"][0]["accuracy"] for line in lines_of(self.output(base) / "evals.jsonl")]
            self.assertGreater(evals[-1], evals[0] + (0.2 if updates == 20 else 0), evals)
            metrics = self.stack.metrics(base)
            self.assertEqual(sum(line["mismatch_tokens"] for line in metrics), 0)
            self.assertGreater(sum(line["reference_kl"] for line in metrics), 0)
            names = {path.name for path in (self.output(base) / "model").iterdir()}
            self.assertIn("adapter_model.safetensors", names)
            self.assertNotIn("model.safetensors", names)
        further = (GRPO % ("packed-further", 2, 2)).replace("{job: start, lora: {rank: 8, alpha: 16}}", "{job: nf4, base: nf4}")
        self.stack.end_of(further, code=0)
        self.stack.end_of("name: whole\nmodel: {job: start, base: nf4}\ndata: {train: data/sft.jsonl}\nsft: {updates: 2}\n")
        self.assertIn("quantised weights have no gradient: want model.lora", self.stack.rein("describe", "whole"))
        weights = {}
        for base in ((), ("--base", "int8"), ("--base", "nf4")):
            said = self.stack.run("models", "estimate", str(self.output("start") / "model"), "--length", "64", "--lora-rank", "8", *base)
            weights[base[-1:]] = json.loads(said.stdout)["bytes"]["trainer"]["weights"]
        self.assertLess(weights["nf4",], weights["int8",])
        self.assertLess(weights["int8",], weights[()] * 2 / 3)

    def test_a_trainer_replays_the_experts_of_its_generator(self):
        self.stack.rein("models", "upcycle", str(self.output("start") / "model"), "--to", "experts", "--experts", "4", "--chosen", "2")
        job = GRPO % ("replay", 6, 6) + "rollout: {max_running: 40}\n"
        job = job.replace("{job: start, lora: {rank: 8, alpha: 16}}", str(self.stack.folder / "experts"))
        self.stack.end_of(job.replace("{learning_rate: 3e-3}", "{learning_rate: 1e-4, router: {replay: true}}"), code=0, patience=250)
        metrics = self.stack.metrics("replay")
        self.assertEqual(sum(line["mismatch_tokens"] for line in metrics), 0)
        self.assertEqual(sum(line["router_differing"] for line in metrics), 0)
        for line in metrics:  # three routers, two experts each, of every token but each completion's last
            self.assertGreater(line["router_replayed"], 0)
            self.assertLess(line["router_replayed"], 6 * line["tokens"])
            self.assertEqual(line["router_replayed"] % 6, 0)

    def test_a_critic_has_adapters_and_a_norm_is_trained_whole(self):
        job = (GRPO % ("ppo", 3, 3)).replace("alpha: 16}", "alpha: 16, save: [norm]}").replace("grpo:", "ppo:")
        job = job.replace("group_size: 16,", "group_size: 1,").replace("kl:", "critic: {learning_rate: 1e-3, lora: 8}, kl:")
        self.stack.end_of(job, code=0, patience=250)
        metrics = self.stack.metrics("ppo")
        self.assertEqual(sum(line["mismatch_tokens"] for line in metrics), 0)
        self.assertTrue(all(math.isfinite(line["value_loss"]) for line in metrics), metrics[0])
        config = json.loads((self.output("ppo") / "model/adapter_config.json").read_text())
        self.assertEqual(config["modules_to_save"], ["model.norm"])
        checkpoint = pathlib.Path(self.stack.job("ppo")["checkpoints"][-1]["path"])
        base = (self.output("start") / "model/model.safetensors").stat().st_size
        self.assertLess((checkpoint / "critic.safetensors").stat().st_size, 1.5 * base)  # whole it would be three times as large
        self.stack.rein("export", "ppo", "--to", "merged-ppo", "--format", "merged")
        self.assert_near(self.scores(self.output("ppo") / "model"), self.scores(self.stack.folder / "merged-ppo"), 1e-4)

    def test_what_cannot_be_is_said(self):
        said = self.stack.submit("name: x\nmodel: {config: %s, lora: {rank: 4}}\ndata: {train: data/sft.jsonl}\nsft: {}\n" % MODEL, code=3)
        self.assertIn("model.lora", said)
        self.assertIn("random weights are all trained", said)
        said = self.stack.submit("name: x\nmodel: {job: start, lora: {rank: 4, dropout: 0.1}}\ndata: {train: data/sft.jsonl}\nsft: {}\n", code=3)
        self.assertIn("want 0", said)
        self.stack.end_of("name: nothing\nmodel: {job: start, lora: {rank: 4, target: [q_prj]}}\ndata: {train: data/sft.jsonl}\nsft: {updates: 2}\n")
        self.assertIn("did you mean q_proj?", self.stack.rein("describe", "nothing"))

    def test_frozen_parameters_stay(self):
        self.stack.end_of("name: frozen\nmodel: {job: start, freeze: [embed_tokens, 'layers.0.*']}\ndata: {train: data/sft.jsonl}\n"
                          "sft: {updates: 3, sequences: 16}\ntrainer: {learning_rate: 1e-3}\n", code=0)
        run = self.stack.run("models", "diff", str(self.output("start") / "model"), str(self.output("frozen") / "model"))
        self.assertEqual(run.returncode, 1, run.stderr)
        different = {row["tensor"] for row in json.loads(run.stdout)["different"]}
        self.assertIn("model.layers.1.mlp.down_proj.weight", different)
        self.assertFalse([name for name in different if "embed" in name or "layers.0." in name], different)

    def test_models_are_looked_at_from_the_command_line(self):
        self.assertIn("LlamaForCausalLM", self.stack.rein("models", "list"))
        inspected = json.loads(self.stack.run("models", "inspect", str(self.output("start") / "model")).stdout)
        self.assertEqual(inspected["structure"]["layers"], 3)
        estimate = json.loads(self.stack.run("models", "estimate", str(MODEL), "--length", "64", "--job", "sft").stdout)
        self.assertEqual(estimate["parameters"]["all"], inspected["parameters"]["all"])
        self.assertTrue(all(place["fits"] for place in estimate["placements"]))
        self.assertIn("estimate", self.stack.rein("models", "--help"))
        self.stack.rein("models", "inspect", "/nonexistent", code=3)

    def test_peft_computes_the_same(self):
        if subprocess.run([sys.executable, "-c", "import peft, torch, transformers"], capture_output=True).returncode != 0:
            self.skipTest("NOT RUN: this Python has no peft; pip install torch==2.11.0 transformers==5.23.0 peft==0.21.2")
        result = self.output("adapters") / "model"
        run = subprocess.run([sys.executable, "-c", PEFT, result, self.tokens], capture_output=True, text=True, timeout=200)
        self.assertEqual(run.returncode, 0, run.stderr)
        theirs = [json.loads(line) for line in run.stdout.splitlines()]
        ours = [row[1:] if len(row) == 12 else row for row in self.scores(result)]
        self.assertEqual([len(row) for row in ours], [len(row) for row in theirs])
        self.assert_near(ours, theirs, 1e-4)
        self.assertTrue(all(math.isfinite(x) for row in theirs for x in row))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
