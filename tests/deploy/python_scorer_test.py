#!/usr/bin/env python3
"""Scorers in Python behind the real services: the example, and functions written for verl, TRL and reasoning-gym as they stand.

    python_scorer_test.py BIN_FOLDER

reasoning-gym is tried where it is installed beside the package, and skipped loudly else.
"""
import http.server
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import unittest

from python_environment import ROOT, start_again

start_again()  # this file, where the package is

import grpc
from google.protobuf import struct_pb2

import rein
from rein.v1 import policy_pb2, reward_pb2, reward_pb2_grpc
from ports import free_port, wait_for_listener
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


class FakeJudge(http.server.BaseHTTPRequestHandler):
    """Says what the answer tells it to: "say X", "fail N CODE", "garbage"."""
    asked = []
    failures = 0

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        FakeJudge.asked.append((self.path, self.headers["Authorization"], request))
        text = request["messages"][0]["content"].split("<answer>\n")[1].split("\n</answer>")[0]
        code, body = 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text.removeprefix("say ")}}]})
        if text == "busy" and FakeJudge.failures < 2:
            FakeJudge.failures += 1
            code, body = 503, "try later"
        elif text == "busy":
            body = body.replace("busy", "Score: 10")
        elif text == "forbidden":
            code, body = 401, "no such key"
        elif text == "garbage":
            body = "<html>"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class JudgeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeJudge)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)
        cls.url = f"http://127.0.0.1:{cls.server.server_port}/v1/"

    def test_scores_and_what_is_none(self):
        judge = rein.judge(self.url, "m", key="k", max_tokens=64)
        results = score(judge, item("say fine. Score: 7"), item("say Score: 2, no, **Score:** 5.5"), item("say nothing"), item("say Score: 11"),
                        item("busy"), item("forbidden"), item("garbage"), item("say Score: 0", "{completion}"))
        self.assertEqual([r.reward for r in results], [0.7, 0.55, 0, 0, 1, 0, 0, 0])
        self.assertEqual(results[0].parts[0].note, "fine. Score: 7")
        self.assertEqual([r.error.partition(": ")[2] for r in results[2:4]], ["the judge gave no score: 'nothing'", "the judge gave 11.0, outside 0..10"])
        self.assertEqual(results[4].error, "")
        self.assertIn("answers 401: no such key", results[5].error)
        self.assertIn("something else than a chat completion", results[6].error)
        path, key, request = next(one for one in FakeJudge.asked if "Score: 0" in one[2]["messages"][0]["content"])
        self.assertEqual((path, key, request["model"], request["temperature"], request["max_tokens"]), ("/v1/chat/completions", "Bearer k", "m", 0, 64))
        self.assertIn("user: 1 + 1 =", request["messages"][0]["content"])
        self.assertIn("<reference>\n{completion}\n", request["messages"][0]["content"])  # what was put in is not read again

    def test_it_is_served_from_a_shell(self):
        with tempfile.NamedTemporaryFile("w") as prompt, tempfile.NamedTemporaryFile("w") as key:
            prompt.write("<answer>\n{completion}\n</answer>")
            prompt.flush()
            key.write("secret\n")
            key.flush()
            address = serve(self, "--judge", self.url, "--model", "m", "--prompt-file", prompt.name, "--key-file", key.name, "--set", "high=5")
        with grpc.insecure_channel(address) as channel:
            reply = reward_pb2_grpc.RewardServiceStub(channel).Score(reward_pb2.ScoreRewardsRequest(items=[item("say score 4")]), timeout=30)
        self.assertEqual(reply.results[0].reward, 0.8)
        self.assertEqual(FakeJudge.asked[-1][1], "Bearer secret")

    def test_wrong_settings_and_an_absent_judge(self):
        with self.assertRaisesRegex(ValueError, "range 1..1 is empty"):
            rein.judge(self.url, "m", low=1, high=1)
        with self.assertRaisesRegex(ValueError, "has no group"):
            rein.judge(self.url, "m", pattern="score")
        self.assertIn("cannot be reached", score(rein.judge("http://127.0.0.1:1/v1", "m", tries=1), item("x"))[0].error)


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
        self.stack.rein("wait", name, "--timeout", "240")
        os.environ["REIN_HOME"] = self.stack.environment["REIN_HOME"]
        return list(rein.connect().rollouts(name, update=1))

    def test_the_example_scores_a_job(self):
        self.assertLess(len(EXAMPLE.read_text().splitlines()), 25)
        port = free_port()
        process = subprocess.Popen([sys.executable, EXAMPLE, f"127.0.0.1:{port}"])
        self.addCleanup(lambda: (process.kill(), process.wait()))
        wait_for_listener(port, process)
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
        self.assertIn("--judge wants --model", refusal("--judge", "http://127.0.0.1:1/v1"))
        self.assertIn("--model, --prompt-file and --key-file have no effect without --judge", refusal("--trl", f"{trl}:length", "--model", "m"))
        self.assertIn("--set has no effect without --verl", refusal("--trl", f"{trl}:length", "--set", "a=1"))
        self.assertIn("--text have no effect without --trl", refusal("--verl", trl, "--text"))
        self.assertIn("is not of this machine alone", refusal("--trl", f"{trl}:length", "--address", "0.0.0.0:0"))
        self.assertIn("required", refusal())


if __name__ == "__main__":
    unittest.main(argv=["python_scorer_test.py"])
