#!/usr/bin/env python3
"""Jobs beside reinforcement learning: pretraining, held-out loss, evaluation in several ways, generation and scoring.

    jobs_test.py BIN_FOLDER
"""
import json
import math
import pathlib
import subprocess
import sys
import time
import unittest

from stack import BIN, MODEL, Stack

START = """name: start
model: {config: %s}
data: {train: data/sft.jsonl, eval: {file: data/eval.jsonl, limit: 60}}
sft: {updates: 60, sequences: 64}
trainer: {learning_rate: 2e-3}
eval: {every: 20}
""" % MODEL
PRETRAIN = """name: %s
model: {config: %s}
pretrain: {updates: 12, sequences: 8, sequence_tokens: 48, corpus: [data/corpus.idx], split: "9,1", documents: %s,
  z_loss: 1e-4}
trainer: {learning_rate: 3e-3}
eval: {every: 4}
checkpoint: {every: 4}
"""


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


class JobsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.addClassCleanup(cls.stack.down)
        cls.stack.end_of(START, code=0)

    def output(self, name):
        return pathlib.Path(self.stack.job(name)["output"])

    def tool(self, *arguments):
        run = subprocess.run([BIN / arguments[0], *map(str, arguments[1:])], cwd=self.stack.folder, capture_output=True,
                             text=True, timeout=200)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout

    def test_the_held_out_loss_falls(self):
        evals = lines_of(self.output("start") / "evals.jsonl")
        self.assertEqual([line["update"] for line in evals], [0, 20, 40, 60])
        losses = [line["slices"][0]["loss"] for line in evals]
        self.assertLess(losses[-1], 0.6 * losses[0])
        self.assertAlmostEqual(evals[-1]["slices"][0]["perplexity"], math.exp(losses[-1]), 5)
        self.assertNotIn("accuracy", evals[-1])
        self.assertIn("loss", self.stack.rein("describe", "start"))

    def test_long_items_are_refused_left_out_or_cut(self):
        rows = [{"prompt": "max(1,2)", "answer": "2"}] * 6 + [{"prompt": "max(1,2)", "answer": "1" * 100}] * 2
        (self.stack.folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = """name: %s
model: {config: MODEL}
data: {train: long.jsonl, shuffle: false, %s}
sft: {updates: 2, sequences: 8}
""".replace("MODEL", str(MODEL))
        (self.stack.folder / "refused.yaml").write_text(job % ("refused", "max_prompt_tokens: 20"))
        said = self.stack.run("submit", "-f", "refused.yaml")
        self.assertEqual(said.returncode, 3, said.stderr)
        self.assertIn("data.drop_long_prompts: true leaves such prompts out, data.truncate cuts them", said.stderr)
        self.stack.end_of(job % ("dropped", "drop_long_prompts: true"), code=0)
        self.stack.end_of(job % ("shortened", "truncate: right"), code=0)
        tokens = {name: lines_of(self.output(name) / "metrics.jsonl")[0]["tokens"] for name in ("dropped", "shortened")}
        short, context = tokens["dropped"] / 8, 64
        self.assertEqual(tokens["shortened"], 6 * short + 2 * context)
        self.assertIn("2 of 8 lines are too long and are cut (data.truncate: right)", self.stack.rein("describe", "shortened"))
        self.assertIn("the model takes 64", self.stack.rein("describe", "dropped"))

    def test_keys_and_values_are_rounded_alike(self):
        job = """name: %s
model: {job: start, kv_cache: %s}
data: {train: data/train.jsonl}
grpo: {updates: 2, prompts: 16, group_size: 8, max_completion_tokens: 4}
rewards: [{exact_match: {}}]
"""
        differences = {}
        for name, form in (("narrow", "fp8"), ("narrow-rollout", "fp8_rollout")):
            self.stack.end_of(job % (name, form), code=0)
            lines = lines_of(self.output(name) / "metrics.jsonl")
            differences[name] = max(line["logprob_diff_max"] for line in lines)
            self.assertEqual([line["mismatch_tokens"] for line in lines], [0, 0])  # beyond what is promised
        # On a CPU a last bit may round to another number now and then.
        self.assertLess(differences["narrow"], 0.2 * differences["narrow-rollout"])

    def test_an_evaluation_tells_pass_at_k_with_its_interval(self):
        self.stack.end_of("""name: ways
model: {job: start}
data: {eval: {file: data/eval.jsonl, limit: 40}}
evaluate: {}
rewards: [{exact_match: {}}]
eval:
  max_completion_tokens: 3
  pass_at: [1, 4]
  settings: [{name: hot, temperature: 1.0, samples: 8}]
  datasets: [{file: data/train.jsonl, name: seen, limit: 10}]
""", code=0)
        slices = lines_of(self.output("ways") / "evals.jsonl")[0]["slices"]
        self.assertEqual([(s["dataset"], s["setting"], s["prompts"], s["samples"]) for s in slices],
                         [("eval", "", 40, 1), ("eval", "hot", 40, 8), ("seen", "", 10, 1), ("seen", "hot", 10, 8)])
        hot = slices[1]
        self.assertGreater(hot["pass_at_4"], hot["pass_at_1"])
        self.assertAlmostEqual(hot["pass_at_1"], hot["accuracy"], 6)
        self.assertLess(hot["confidence"][0], hot["accuracy"])
        self.assertGreater(hot["confidence"][1], hot["accuracy"])
        self.assertIn("pass@4", self.stack.rein("describe", "ways"))

    def test_generate_is_the_one_shot_command_by_another_door(self):
        self.stack.end_of("""name: written
model: {job: start}
data: {eval: {file: data/eval.jsonl, limit: 50}}
generate: {samples: 2, max_completion_tokens: 3, temperature: 0.8}
seed: 5
""", code=0)
        job = lines_of(self.output("written") / "completions.jsonl")
        self.assertEqual(len(job), 100)
        prompts = self.stack.folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"messages": [{"role": "user", "content": row["prompt"]}]}) + "\n"
                                   for row in lines_of(self.stack.folder / "data/eval.jsonl")[:50]))
        flags = ["rein-rollout", "generate", "--model", self.output("start") / "model", "--input", prompts, "--n", 2,
                 "--max-tokens", 3, "--temperature", 0.8, "--seed", 5]
        self.tool(*flags, "--output", "once.jsonl")
        once = lines_of(self.stack.folder / "once.jsonl")
        self.assertEqual(job, once)
        # Cut in the middle of a line of the second of two completions, it goes on from the prompt's beginning.
        whole = (self.stack.folder / "once.jsonl").read_bytes()
        (self.stack.folder / "resumed.jsonl").write_bytes(whole[:len(whole) // 2])
        self.tool(*flags, "--output", "resumed.jsonl", "--resume")
        self.assertEqual((self.stack.folder / "resumed.jsonl").read_bytes(), whole)
        (self.stack.folder / "other.jsonl").write_text(json.dumps({"id": 1, "prompt_tokens": [9]}) + "\n")
        run = subprocess.run([BIN / flags[0], *map(str, flags[1:]), "--output", "other.jsonl", "--resume"],
                             cwd=self.stack.folder, capture_output=True, text=True)
        self.assertEqual(run.returncode, 3)
        self.assertIn("is no output of this input", run.stderr)

    def test_penalties_keep_tokens_from_coming_back(self):
        self.stack.end_of("""name: penalised
model: {job: start}
data: {eval: {file: data/eval.jsonl, limit: 20}}
generate: {max_completion_tokens: 8, temperature: 1.5, frequency_penalty: 100, repetition_penalty: 1.1}
""", code=0)
        for line in lines_of(self.output("penalised") / "completions.jsonl"):
            self.assertEqual(len(set(line["tokens"])), len(line["tokens"]), line)
        self.stack.end_of("""name: penalised-eval
model: {job: start}
data: {eval: {file: data/eval.jsonl, limit: 20}}
evaluate: {}
rewards: [{exact_match: {}}]
eval: {max_completion_tokens: 8, presence_penalty: -100}
""", code=0)
        # Held-out completions are penalised too: with the sign turned, what was written once is written again.
        for example in self.stack.job("penalised-eval")["evals"][0]["examples"]:
            self.assertEqual(example["completion"], 8 * example["completion"][0], example)
        # What is trained on is the whole distribution: nothing is promised of log-probs that were drawn from another.
        self.stack.end_of("""name: penalised-rl
model: {job: start}
data: {train: data/train.jsonl}
grpo: {updates: 1, prompts: 4, group_size: 4, max_completion_tokens: 4, presence_penalty: 0.5}
rewards: [{exact_match: {}}]
""", code=0)
        self.assertNotIn("mismatch_max", self.stack.metrics("penalised-rl")[0])
        said = self.stack.submit("name: a\nmodel: {job: start}\ndata: {train: data/train.jsonl}\nrewards: [{exact_match: {}}]\n"
                                 "grpo: {repetition_penalty: 0}\n", code=3)
        self.assertIn("grpo.repetition_penalty", said)

    def test_score_is_the_one_shot_command_by_another_door(self):
        self.stack.end_of("""name: scored
model: {job: start}
data: {eval: {file: data/eval.jsonl, limit: 50}}
score: {prompt: true}
""", code=0)
        job = lines_of(self.output("scored") / "scores.jsonl")
        self.assertEqual(len(job), 50)
        tokens = self.stack.folder / "tokens.jsonl"
        tokens.write_text("".join(json.dumps({"tokens": line["tokens"]}) + "\n" for line in job))
        summary = json.loads(self.tool("rein-reference", "score", "--model", self.output("start") / "model", "--input",
                                       tokens, "--output", "scores.jsonl"))
        self.assertEqual(lines_of(self.stack.folder / "scores.jsonl"), job)
        figures = lines_of(self.output("scored") / "evals.jsonl")[0]["slices"][0]
        self.assertAlmostEqual(figures["perplexity"], summary["perplexity"], 9)
        self.assertEqual(figures["tokens"], summary["tokens"])

    def test_pretraining_goes_on_bit_for_bit(self):
        built = json.loads(self.stack.rein("data", "build", "data/train.jsonl", "--column", "prompt", "--model", str(MODEL),
                                           "--to", "data/corpus", "--shard-bytes", "50000"))
        self.assertEqual(built["documents"], 6000)
        self.assertGreater(built["tokens_per_second"], 0)
        inspected = json.loads(self.stack.rein("data", "inspect", "data/corpus.idx"))
        self.assertEqual(inspected["tokens"], built["tokens"])
        long = ("pretrain.updates=200", "eval.every=50", "checkpoint.every=50")  # a pause comes before its end
        self.stack.end_of(PRETRAIN % ("whole", MODEL, "joined"), *long, code=0)
        evals = lines_of(self.output("whole") / "evals.jsonl")
        losses = [line["slices"][0]["loss"] for line in evals]
        self.assertEqual([line["update"] for line in evals], [0, 50, 100, 150, 200])
        self.assertLess(losses[-1], 0.8 * losses[0])
        first = self.stack.metrics("whole")[0]
        self.assertEqual(first["target_tokens"], 8 * 47)
        self.assertGreater(first["z_loss"], 0)
        self.stack.rein("submit", "-f", str(MODEL.parents[1] / "jobs/pretrain_digits.yaml"), "--name", "shipped", "pretrain.updates=25",
                        f"pretrain.corpus=[{self.stack.folder}/data/corpus.idx]")
        self.stack.rein("wait", "shipped", "--timeout", "240")

        self.stack.submit(PRETRAIN % ("cut", MODEL, "joined"), *long)
        self.stack.wait_for_update("cut", 5)
        self.stack.rein("pause", "cut")
        for _ in range(200):
            state = self.stack.job("cut")["state"]
            if state == "JOB_STATE_PAUSED":
                break
            time.sleep(0.05)
        self.assertEqual(state, "JOB_STATE_PAUSED")
        self.stack.rein("resume", "cut")
        self.stack.rein("wait", "cut", "--timeout", "240")
        self.assertEqual((self.output("cut") / "model/model.safetensors").read_bytes(),
                         (self.output("whole") / "model/model.safetensors").read_bytes())

        self.stack.end_of(PRETRAIN % ("apart", MODEL, "separate"), code=0)
        self.assertLess(self.stack.metrics("apart")[0]["target_tokens"], 8 * 47)
        # Rotations know differences of positions alone: where documents keep theirs, this model learns the same.
        self.stack.end_of(PRETRAIN % ("continued", MODEL, "continued"), code=0)
        apart, continued = self.stack.metrics("apart"), self.stack.metrics("continued")
        for one, other in zip(apart, continued, strict=True):
            self.assertEqual(one["target_tokens"], other["target_tokens"])
            self.assertAlmostEqual(one["loss"], other["loss"], 3)

    def test_faults_of_a_corpus_are_told_at_submit(self):
        (self.stack.folder / "data/wrong.idx").write_bytes(b"MMIDIDX\0\0")
        (self.stack.folder / "data/wrong.bin").write_bytes(b"")
        yaml = (PRETRAIN % ("wrong", MODEL, "joined")).replace("corpus.idx", "wrong.idx")
        self.assertIn("wrong.idx: is no index of Megatron", self.stack.submit(yaml, code=3))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
