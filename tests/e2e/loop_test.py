#!/usr/bin/env python3
"""Runs the whole loop as a user does: SFT, then GRPO from its result, through the five services and the CLI.

    loop_test.py BIN_FOLDER

Smaller than deploy/quickstart, the same model and task. Then what must be an error in a running stack: wrong
models and data, numbers that go bad, a disk that is full, services that are absent.
"""
import json
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import time
import unittest
import urllib.request

from stack import BIN, MODEL, Stack

SFT = """name: start
model: {config: %s}
data: {train: data/sft.jsonl, eval: {file: data/eval.jsonl, limit: 100}}
sft: {updates: 120, sequences: 64}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 2e-3}
""" % MODEL
GRPO = """name: grow
model: {job: start}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 100}}
grpo: {updates: 24, prompts: 32, group_size: 8, max_completion_tokens: 3}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
eval: {every: 12}
checkpoint: {every: 12}
"""


class LoopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.addClassCleanup(cls.stack.down)
        cls.stack.end_of(SFT, code=0)
        cls.stack.end_of(GRPO, code=0)
        cls.job = cls.stack.job("grow")
        cls.output = pathlib.Path(cls.job["output"])

    def test_held_out_accuracy_rises(self):
        accuracies = [result["accuracy"] for result in self.job["evals"]]
        self.assertEqual(len(accuracies), 3)  # before, in the middle, at the end
        self.assertLess(accuracies[0], 0.4)
        self.assertGreater(accuracies[-1], accuracies[0] + 0.2)

    def test_a_job_that_only_evaluates_finds_the_same_accuracy(self):
        self.stack.end_of("name: ask\nmodel: {job: grow}\ndata: {eval: {file: data/eval.jsonl, limit: 100}}\n"
                          "evaluate: {}\nrewards: [{exact_match: {}}]\neval: {max_completion_tokens: 3}\n", code=0)
        result, = self.stack.job("ask")["evals"]
        self.assertEqual(result["accuracy"], self.job["evals"][-1]["accuracy"])

    def test_the_exported_model_is_a_complete_folder(self):
        model = self.output / "model"
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            self.assertTrue((model / name).stat().st_size > 0, name)
        with open(model / "model.safetensors", "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        self.assertIn("model.layers.2.self_attn.q_norm.weight", header)
        (self.stack.folder / "in.jsonl").write_text('{"id": "a", "tokens": [4, 5, 6]}\n')
        subprocess.run([BIN / "rein-reference", "score", "--model", model, "--input", "in.jsonl", "--output", "out.jsonl"],
                       cwd=self.stack.folder, check=True, timeout=60, capture_output=True)
        self.assertEqual(json.loads((self.stack.folder / "out.jsonl").read_text())["id"], "a")

    def test_every_update_has_a_line_and_an_event(self):
        lines = self.stack.metrics("grow")
        self.assertEqual([line["update"] for line in lines], list(range(1, 25)))
        for key in ("reward", "loss", "entropy", "grad_norm", "train_seconds", "logprob_diff_max", "mismatch_max"):
            self.assertIn(key, lines[0])
        self.assertLess(max(line["mismatch_max"] for line in lines), 1e-4)  # trainer and generator agree
        self.assertEqual(max(line["mismatch_tokens"] for line in lines), 0)
        for line in lines:  # a part takes no longer than the whole
            for part in ("generate_seconds", "score_seconds", "train_seconds"):
                self.assertLessEqual(line[part], line["seconds"], (part, line["update"]))
        events, = (self.output / "tensorboard").glob("events.out.tfevents.*")
        records, content = 0, events.read_bytes()
        while content:
            size, = struct.unpack("<Q", content[:8])
            content = content[8 + 4 + size + 4:]
            records += 1
        self.assertGreaterEqual(records, 1 + 24 + 3)  # the version, updates, evaluations

    def test_a_person_can_read_what_the_model_said(self):
        text = self.stack.rein("rollouts", "grow", "--update", "24", "--limit", "3", "--sort", "advantage")
        self.assertEqual(text.count("update 24 · prompt "), 3)
        self.assertRegex(text, r"reward 1 \(exact_match 1\) · advantage \+\d")
        self.assertRegex(text, r"user   max\(\d,\d,\d,\d,\d\)\n  model  \d\n")
        self.assertRegex(self.stack.rein("rollouts", "grow", "--tokens"), r"tokens +\d+:-?\d+\.\d{4}")
        reply = json.loads(self.stack.rein("rollouts", "grow", "-o", "json"))
        self.assertEqual(reply["rollouts"][0]["rollout"]["completion"]["finish_reason"], "FINISH_REASON_STOP")

    def test_the_ledger_and_the_checkpoints_are_told(self):
        text = self.stack.rein("describe", "grow")
        self.assertIn("consumed 768 · in training 0 · scored 0 · finished 0 · in flight 0 · dropped 0 · "
                      "rollouts stored 6144", text)
        self.assertEqual([int(checkpoint["update"]) for checkpoint in self.job["checkpoints"]], [12, 24])

    def test_promtool_finds_no_fault_with_any_roles_metrics(self):
        promtool = shutil.which("promtool")
        if promtool is None:
            print("SKIPPED: no promtool here (package prometheus), so no page of metrics was checked", file=sys.stderr)
            self.skipTest("no promtool")
        addresses = sorted((self.stack.folder / "home/run").glob("*.address"))
        self.assertEqual(len(addresses), 5)
        for path in addresses:
            admin = path.read_text().split()[1]
            page = urllib.request.urlopen(f"http://{admin}/metrics", timeout=10).read()
            run = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60)
            self.assertEqual((run.returncode, (run.stdout + run.stderr).decode()), (0, ""), path.stem)

    def test_data_and_models_that_do_not_fit_are_told_at_submit(self):
        folder = self.stack.folder
        (folder / "empty.jsonl").write_text("")
        self.assertIn("empty.jsonl is empty: want one JSON object per line",
                      self.stack.submit(SFT, "name=bad", "data.train=empty.jsonl", code=3))
        (folder / "long.jsonl").write_text('{"prompt": "max(%s1)", "answer": "1"}\n' % ("1," * 100))
        self.assertRegex(self.stack.submit(GRPO, "name=bad", "data.train=long.jsonl", code=3),
                         r"prompt 0 of \S+/long.jsonl has \d+ tokens, the model takes 64 with the completion")
        self.assertRegex(self.stack.submit(SFT, "name=bad", "data.train=long.jsonl", code=3),
                         r"has \d+ tokens with its answer, the model takes 64")
        self.model("small", vocab_size=8)
        self.assertIn("small: vocabulary mismatch: the tokenizer's largest id is 26, but the model has rows for ids "
                      "below 8", self.stack.submit(SFT, "name=bad", "model.config=small", code=3))

    def model(self, name, **changes):
        folder = self.stack.folder / name
        folder.mkdir(exist_ok=True)
        for file in MODEL.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((MODEL / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(dict(config, **changes)))

    def test_a_model_of_an_unknown_type_ends_the_job(self):
        self.model("strange", model_type="mamba", architectures=["MambaForCausalLM"])
        self.assertRegex(self.stack.end_of(SFT, "name=strange", "model.config=strange"), 
                         r"cannot load the model: \S+strange/config.json: architectures is \[\"MambaForCausalLM\"\], which is not supported; supported: .*LlamaForCausalLM")

    def test_a_model_too_large_for_memory_ends_the_job(self):
        self.model("huge", hidden_size=32768, intermediate_size=131072, num_hidden_layers=200,
                   num_attention_heads=256, num_key_value_heads=256, head_dim=128)
        text = self.stack.end_of(SFT, "name=huge", "model.config=huge")
        self.assertRegex(text, r"cannot load the model: out of memory: .* take \d+\.\d GiB, \d+\.\d GiB are left")

    def test_numbers_that_go_bad_are_skipped_and_then_end_the_job(self):
        text = self.stack.end_of(SFT, "name=wild", "trainer.learning_rate=10", "trainer.weight_decay=10",
                                 "sft.updates=100", "failure.max_skipped_updates=2")
        self.assertRegex(text, r"FAILED  wild at update \d+: update \d+: (loss|gradient) is not finite.*3 in a row were "
                               r"skipped, none was applied")
        self.assertIn("was skipped: ", self.stack.rein("describe", "wild"))

    def test_a_reward_service_that_is_absent_is_named(self):
        name = self.stack.submit(GRPO, "name=lonely", "rewards=[{remote: '127.0.0.1:1', timeout_seconds: 0.2}]",
                                 "grpo.prompts=4", "data.train.limit=8", "failure.max_attempts=1", "data.eval=null",
                                 "eval.every=0")
        text = self.stack.rein("wait", "lonely", "--timeout", "240", code=1)
        self.assertIn("every prompt of a whole pass over the data was dropped; the last: score: remote: 127.0.0.1:1: ", text)

    def begin_long(self, name):
        """Starts a job and waits for its first checkpoint."""
        yaml = SFT.replace("eval: {file: data/eval.jsonl, limit: 100}", "").replace("rewards: [{exact_match: {}}]\n", "")
        self.stack.submit(yaml + "checkpoint: {every: 20}\n", "name=" + name, "sft.updates=400")
        deadline = time.time() + 60
        while not self.stack.job(name).get("checkpoints"):
            self.assertLess(time.time(), deadline)
            time.sleep(0.05)

    def test_a_store_that_cannot_grow_stops_the_job_which_then_goes_on(self):
        self.begin_long("stuck")
        controller = self.stack.pid("controller")
        before = resource.prlimit(controller, resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))  # not the log
        text = self.stack.rein("wait", "stuck", "--timeout", "240", code=1)
        resource.prlimit(controller, resource.RLIMIT_FSIZE, before)
        self.assertRegex(text, r"FAILED  stuck at update \d+: store: .*\n +checkpoint \d+ \(update \d+\) is intact")
        done = int(self.stack.job("stuck")["update"])
        self.stack.rein("resume", "stuck", "sft.updates=%d" % (done + 20))
        self.stack.rein("wait", "stuck", "--timeout", "240")
        text = self.stack.rein("describe", "stuck")
        self.assertIn("consumed %d · in training 0 · scored 0 · finished 0 · in flight 0 · dropped 0" % (64 * (done + 20)), text)

    def test_a_full_disk_costs_one_checkpoint_and_no_more(self):
        self.begin_long("full")
        trainer = self.stack.pid("trainer-0")
        before = resource.prlimit(trainer, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        text = self.stack.rein("wait", "full", "--timeout", "240", code=1)
        resource.prlimit(trainer, resource.RLIMIT_FSIZE, before)
        self.assertRegex(text, r"trainer cannot write checkpoint \d+ \(checkpoint (\d+) is intact\): cannot write "
                               r"\S+: File too large")
        self.assertEqual(self.stack.pid("trainer-0"), trainer)  # it lives on
        job = self.stack.job("full")
        kept = pathlib.Path(job["checkpoints"][-1]["path"])
        for name, want in json.loads((kept / "manifest.json").read_text())["files"].items():
            self.assertEqual((kept / name).stat().st_size, want["bytes"], name)
        self.assertFalse(list(kept.parent.glob(".*")), "a half-written checkpoint was left")
        self.stack.rein("resume", "full", "sft.updates=%d" % (int(job["update"]) + 20))
        self.stack.rein("wait", "full", "--timeout", "240")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
