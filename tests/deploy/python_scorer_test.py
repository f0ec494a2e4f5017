#!/usr/bin/env python3
"""Scorers in Python behind the real services: the example, and functions written for verl, TRL and reasoning-gym as they stand.

    python_scorer_test.py BIN_FOLDER

reasoning-gym is tried where it is installed beside the package, and skipped loudly else.
"""
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from python_environment import ROOT  # first: it starts this file again where the package is

from google.protobuf import struct_pb2

import rein
from rein.v1 import policy_pb2, reward_pb2
from stack import MODEL, Stack

EXAMPLE = ROOT / "deploy/python/examples/my_reward.py"
# As verl's documentation has it for custom_reward_function.path.
VERL = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    if solution_str.startswith("9"):
        raise ValueError("no nines")
    exact = solution_str.strip() == str(ground_truth)
    return {"score": (1.0 if exact else 0.0) + bonus, "acc": exact, "index": (extra_info or {}).get("index"), "source": data_source}
"""
# The batched form, for verl's batch reward manager.
VERL_BATCH = """
def compute_score(data_sources, solution_strs, ground_truths, extra_infos):
    return [len(text) + len(truth) for text, truth in zip(solution_strs, ground_truths)]
"""
# As TRL's documentation has them for reward_funcs.
TRL = """
async def even_digits(prompts, completions, answer, completion_ids, log_extra=None, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    if log_extra:
        log_extra("asked", [prompt[-1]["content"] for prompt in prompts])
    return [None if not c else sum(d in "02468" for d in c) / len(c) for c in contents]

def length(completions, **kwargs):
    return [float(len(completion)) for completion in completions]

def wrong_count(completions, **kwargs):
    return [1.0]
"""


def serve(test, *arguments):
    """The address of a scorer in a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "rein.serve", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    test.addClassCleanup(lambda: (process.kill(), process.wait(), process.stdout.close()))
    return process.stdout.readline().strip()


def item(text, answer="", **columns):
    fields = struct_pb2.Struct()
    fields.update(columns)
    prompt = [policy_pb2.Message(role="user", content="1 + 1 =")]
    return reward_pb2.RewardItem(prompt=prompt, completion=policy_pb2.Completion(text=text, token_ids=[7] * len(text)), answer=answer, columns=fields)


def score(service, *items):
    return service.Score(reward_pb2.ScoreRewardsRequest(items=items), None).results


def function(source, name):
    names = {}
    exec(source, names)
    return names[name]


class AdapterTest(unittest.TestCase):
    def test_verl_gets_what_verl_gives(self):
        service = rein.verl(function(VERL, "compute_score"), bonus=0.5)
        right, wrong, broken = score(service, item("4", reward_model={"ground_truth": "4", "style": "rule"}, data_source="sums", extra_info={"index": 3}),
                                     item("5", answer="4"), item("9", answer="9"))
        self.assertEqual((right.reward, right.error), (1.5, ""))
        self.assertEqual(right.parts[0].note, '{"acc": true, "index": 3, "source": "sums"}')
        self.assertEqual((wrong.reward, wrong.error), (0.5, ""))
        self.assertEqual(broken.error, "ValueError: no nines")
        self.assertEqual([r.reward for r in score(rein.verl(function(VERL_BATCH, "compute_score")), item("abc", "de"), item("", "f"))], [5, 1])
        bare = rein.verl(lambda solution_str, ground_truth: solution_str == ground_truth)
        self.assertEqual([r.reward for r in score(bare, item("a", "a", data_source="x"), item("a", "b"))], [1, 0])

    def test_trl_gets_what_trl_gives(self):
        odd, none = score(rein.trl(function(TRL, "even_digits")), item("1234", answer="2"), item("", answer="1"))
        self.assertEqual((odd.reward, odd.parts[0].note), (0.5, '{"asked": "1 + 1 ="}'))
        self.assertEqual((none.reward, none.error), (0, ""))
        self.assertIn('"score": null', none.parts[0].note)
        self.assertEqual(score(rein.trl(function(TRL, "length")), item("abcd", prompt="1 + 1 ="))[0].reward, 4)  # text, as the dataset's
        self.assertEqual(score(rein.trl(function(TRL, "length")), item("abcd", prompt=[{"role": "user", "content": "x"}]))[0].reward, 1)
        seen = {}
        rein.trl(lambda completions, **given: seen.update(given) or [0.0] * len(completions)).Score(
            reward_pb2.ScoreRewardsRequest(items=[item("ab", level=2, tags=["x"]), item("c", level=0.5)]), None)
        self.assertEqual((seen["level"], seen["tags"], seen["completion_ids"]), ([2, 0.5], [["x"], None], [[7, 7], [7]]))
        self.assertIsInstance(seen["level"][0], int)

    def test_a_wrong_number_of_scores_is_an_error_of_each(self):
        results = score(rein.trl(function(TRL, "wrong_count")), item("a"), item("b"))
        self.assertEqual([r.error for r in results], ["", ""])  # right for each alone
        results = score(rein.trl(lambda completions, **_: []), item("a"), item("b"))
        self.assertEqual([r.error for r in results], ["ValueError: gave 0 scores for 1 completions"] * 2)

    def test_a_long_note_is_cut_at_a_character(self):
        note = score(rein.verl(lambda solution_str, ground_truth: {"score": 1, "text": "é" * 999}), item("a"))[0].parts[0].note
        self.assertLessEqual(len(note.encode()), 512)

    @unittest.skipUnless(importlib.util.find_spec("reasoning_gym"), "NOT tried: reasoning_gym is not installed")
    def test_reasoning_gym(self):
        import reasoning_gym
        entry = reasoning_gym.create_dataset("countdown", size=1, seed=4)[0]
        right, wrong = score(rein.reasoning_gym(), item(entry["metadata"]["expression"], metadata=entry["metadata"]),
                             item("1", metadata=entry["metadata"]))
        self.assertEqual((right.reward, right.error), (1, ""))
        self.assertLess(wrong.reward, 0.1)


class ServeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack("--references", "0")
        cls.addClassCleanup(cls.stack.down)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        (cls.folder / "verl_reward.py").write_text(VERL)
        (cls.folder / "trl_rewards.py").write_text(TRL)

    def job(self, name, *rewards, updates=2):
        rules = ", ".join(f"{{remote: '{address}', name: {rule}}}" for rule, address in rewards)
        self.stack.submit(f"""
            name: {name}
            model: {{config: {MODEL}}}
            data: {{train: data/train.jsonl}}
            grpo: {{updates: {updates}, prompts: 4, group_size: 4, max_completion_tokens: 3}}
            rewards: [{rules}]
            trainer: {{learning_rate: 1e-3}}""")
        self.stack.rein("wait", name, "--timeout", "120")
        os.environ["REIN_HOME"] = self.stack.environment["REIN_HOME"]
        return list(rein.connect().rollouts(name, update=1))

    def test_the_example_scores_a_job(self):
        self.assertLess(len(EXAMPLE.read_text().splitlines()), 25)
        port = subprocess.run([sys.executable, "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"],
                              capture_output=True, text=True).stdout.strip()
        process = subprocess.Popen([sys.executable, EXAMPLE, f"127.0.0.1:{port}"])
        self.addCleanup(lambda: (process.kill(), process.wait()))
        stored = self.job("example", ("near", f"127.0.0.1:{port}"))
        self.assertTrue(stored)
        for one in stored:
            numbers = re.findall(r"-?[0-9]+", one.rollout.completion.text)
            wanted = 1 / (1 + abs(int(numbers[-1]) - int(one.answer))) if numbers else 0
            self.assertAlmostEqual(one.rollout.reward.reward, wanted)

    def test_verl_and_trl_functions_score_one_job(self):
        verl = serve(self, "--verl", self.folder / "verl_reward.py", "--set", "bonus=0.25")
        trl = serve(self, "--trl", f"{self.folder / 'trl_rewards.py'}:even_digits", "--conversational")
        stored = self.job("adapted", ("exact", verl), ("even", trl))
        self.assertTrue(stored)
        for one in stored:
            text, reward = one.rollout.completion.text, one.rollout.reward
            even = sum(d in "02468" for d in text) / len(text) if text else 0
            parts = {part.name: part for part in reward.parts}
            self.assertAlmostEqual(parts["even"].score, even)
            if text.startswith("9"):
                self.assertIn("exact: ValueError: no nines", reward.error)
            else:
                exact = 0.25 + (text.strip() == one.answer)
                self.assertAlmostEqual(reward.reward, exact + even)

    def test_what_is_wrong_is_told_before_it_serves(self):
        def refusal(*arguments):
            run = subprocess.run([sys.executable, "-m", "rein.serve", *map(str, arguments)], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(run.returncode, 0)
            return run.stderr
        trl = self.folder / "trl_rewards.py"
        self.assertIn("nothing.py does not exist", refusal("--verl", "nothing.py"))
        self.assertIn("names no function", refusal("--trl", trl))
        self.assertIn("has no function odd; it has: even_digits, length, wrong_count", refusal("--trl", f"{trl}:odd"))
        self.assertIn("--set has no effect without --verl", refusal("--trl", f"{trl}:length", "--set", "a=1"))
        self.assertIn("--text have no effect without --trl", refusal("--verl", trl, "--text"))
        self.assertIn("is not of this machine alone", refusal("--trl", f"{trl}:length", "--address", "0.0.0.0:0"))
        self.assertIn("required", refusal())


if __name__ == "__main__":
    unittest.main(argv=["python_scorer_test.py"])
