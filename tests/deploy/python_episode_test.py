#!/usr/bin/env python3
"""Environments and losses in Python behind the real services.

    python_episode_test.py BIN_FOLDER [--learn]

--learn: also that the example environment is learned, which takes minutes (nightly).
"""
import importlib.util
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import unittest

from python_environment import ROOT, start_again

start_again()  # this file, where the package is

import grpc

import rein
from rein.v1 import environment_pb2 as pb, environment_pb2_grpc, job_pb2, loss_pb2, loss_pb2_grpc
from stack import MODEL, Stack

EXAMPLES = ROOT / "deploy/python/examples"
LEARN = "--learn" in sys.argv

# Teaches the form of the game, by players who mostly guess at random.
SFT = f"""
name: form
model: {{config: {MODEL}}}
data: {{train: {{file: form.jsonl}}}}
sft: {{updates: 300, sequences: 64}}
trainer: {{learning_rate: 2e-3}}
"""
GAME = """
name: game
model: {job: form}
data: {train: {file: prompts.jsonl}, eval: {file: held_out.jsonl}}
environment: {remote: "%s", max_turns: 4, step_timeout_seconds: 10}
grpo: {max_completion_tokens: 2, updates: 2, prompts: 8, group_size: 4}
rewards: [{environment: {}}]
trainer: {learning_rate: 1e-3}
seed: 3
"""


def random_game(draw):
    """A conversation in which every other guess is any digit, the others fit what was said."""
    number, low, high = draw.randint(1, 5), 1, 5
    messages = [{"role": "user", "content": "?"}]
    for turn in range(3):
        guess = draw.randint(low, high) if draw.random() < 0.5 else draw.randint(0, 9)
        if guess == number or turn == 2:
            return {"prompt": messages, "answer": str(guess)}
        messages += [{"role": "assistant", "content": str(guess)}, {"role": "user", "content": "+" if guess < number else "-"}]
        low, high = (max(low, min(guess + 1, high)), high) if guess < number else (low, min(high, max(guess - 1, low)))


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def begin(episode="e", answer="4", seed=7):
    return pb.EnvironmentResetRequest(episode=episode, answer=answer, seed=seed, sibling=2)


class EnvironmentTest(unittest.TestCase):
    def test_a_class_is_a_service(self):
        given = {}

        @rein.environment
        class Echo:
            def reset(self, seed, answer, prompt, columns, sibling):
                given.update(seed=seed, answer=answer, prompt=prompt, columns=columns, sibling=sibling)
                return [{"role": "system", "content": "s"}, "u"], ['{"name": "t"}']

            def step(self, text):
                if text == "bad":
                    raise ValueError("no such move")
                return (None, 2, True, "well", "done") if text == "end" else ({"role": "tool", "content": text}, 0.5, False)

        port = Echo.start("127.0.0.1:0")
        self.addCleanup(Echo.stop)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = environment_pb2_grpc.EnvironmentServiceStub(channel)
            reply = stub.Reset(begin(), timeout=10)
            self.assertEqual([(m.role, m.content) for m in reply.messages], [("system", "s"), ("user", "u")])
            self.assertEqual(list(reply.tools), ['{"name": "t"}'])
            self.assertEqual(given, {"seed": 7, "answer": "4", "prompt": [], "columns": {"answer": "4"}, "sibling": 2})
            step = stub.Step(pb.EnvironmentStepRequest(episode="e", text="x"), timeout=10)
            self.assertEqual((step.messages[0].role, step.messages[0].content, step.reward, step.done), ("tool", "x", 0.5, False))
            with self.assertRaises(grpc.RpcError) as raised:
                stub.Step(pb.EnvironmentStepRequest(episode="e", text="bad"), timeout=10)
            self.assertEqual((raised.exception.code(), raised.exception.details()), (grpc.StatusCode.INTERNAL, "ValueError: no such move"))
            step = stub.Step(pb.EnvironmentStepRequest(episode="e", text="end"), timeout=10)
            self.assertEqual((step.reward, step.done, step.note), (2, True, "well; done"))
            with self.assertRaises(grpc.RpcError) as raised:
                stub.Step(pb.EnvironmentStepRequest(episode="e", text="x"), timeout=10)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
            stub.Close(pb.EnvironmentCloseRequest(episode="unknown"), timeout=10)

    def test_the_game(self):
        game = example("my_environment").GuessTheNumber()
        game.reset(seed=1)
        found = next(n for n in range(1, 10) if n == game.number)
        self.assertEqual(game.step("so")[:2], ("?", 0.0))
        self.assertEqual(game.step(str(found + 1))[:2], ("-", 0.0))
        self.assertEqual(game.step(f"it is {found}"), (None, 0.6, True))

    def test_the_examples_are_short(self):
        self.assertLess(len((EXAMPLES / "my_environment.py").read_text().splitlines()), 40)
        self.assertLessEqual(len((EXAMPLES / "my_loss.py").read_text().splitlines()), 25)


class LossTest(unittest.TestCase):
    def request(self):
        return loss_pb2.LossRequest(job="j", update=3, sequences=[
            loss_pb2.LossSequence(id="0/0", token_ids=[1, 2, 3], loss_mask=b"\0\1\1", policy_logprobs=[-1, -2], behaviour_logprobs=[-1, -2.5], advantages=[1, 1]),
            loss_pb2.LossSequence(id="0/1", token_ids=[1, 2], loss_mask=b"\0\1", policy_logprobs=[-1], behaviour_logprobs=[-1], advantages=[-1])])

    def test_a_function_is_a_service(self):
        seen = []

        @rein.loss
        def mine(batch):
            seen.append(batch)
            return 1.5, [[0.5] * len(s.logprobs) for s in batch.sequences], {"figure": 2}

        reply = mine.Evaluate(self.request(), None)
        self.assertEqual((reply.loss, [list(g.logprobs) for g in reply.gradients], reply.metrics[0].name), (1.5, [[0.5, 0.5], [0.5]], "figure"))
        self.assertEqual((seen[0].job, seen[0].update, seen[0].sequences[0].loss_mask, seen[0].sequences[1].advantages), ("j", 3, [0, 1, 1], [-1]))

    @unittest.skipUnless(importlib.util.find_spec("torch"), "NOT tried: torch is not installed beside the package")
    def test_autograd_finds_the_derivatives(self):
        def grpo(batch):
            import torch
            loss = 0
            for s in batch.sequences:
                ratio = torch.exp(s.logprobs - s.behaviour_logprobs)
                loss = loss + torch.maximum(-s.advantages * ratio, -s.advantages * ratio.clamp(0.8, 1.2)).mean() / len(batch.sequences)
            return loss
        by_hand, by_torch = (one.Evaluate(self.request(), None) for one in (example("my_loss").grpo, rein.torch_loss(grpo)))
        self.assertAlmostEqual(by_hand.loss, by_torch.loss, places=6)
        for a, b in zip(by_hand.gradients, by_torch.gradients, strict=True):
            for x, y in zip(a.logprobs, b.logprobs, strict=True):
                self.assertAlmostEqual(x, y, places=6)


class StackTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.addClassCleanup(cls.stack.down)
        draw = random.Random(11)
        lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
        (cls.stack.folder / "form.jsonl").write_text(lines(random_game(draw) for _ in range(20000)))
        (cls.stack.folder / "prompts.jsonl").write_text(lines({"prompt": "?"} for _ in range(2000)))
        (cls.stack.folder / "held_out.jsonl").write_text(lines({"prompt": "?"} for _ in range(32)))
        cls.game = example("my_environment").GuessTheNumber
        cls.address = f"127.0.0.1:{cls.game.start('127.0.0.1:0')}"
        cls.addClassCleanup(cls.game.stop)
        cls.stack.end_of(SFT, *([] if LEARN else ["sft.updates=60"]), code=0)

    def test_a_job_plays_the_game(self):
        said = self.stack.end_of(GAME % self.address, code=0)
        self.assertIn("SUCCEEDED", said)
        text = self.stack.rein("rollouts", "game", "--update", "1", "--limit", "64")
        self.assertRegex(text, r"turns? · done")
        self.assertRegex(text, r"  model +\d")
        self.assertRegex(text, r"  user +[-+?]\n")
        last = self.stack.metrics("game")[-1]
        self.assertGreater(last["turns"], 1)
        self.assertEqual(last["failed_episodes"], 0)
        self.assertLess(last["mismatch_max"], 1e-3)  # turns after the first are computed from remembered prefixes
        self.assertAlmostEqual(sum(value for key, value in last.items() if key.startswith("end/")), 1)
        stored = json.loads(self.stack.rein("rollouts", "game", "--update", "1", "--limit", "1", "--tokens", "-o", "json"))["rollouts"][0]["rollout"]
        tokens = sum(t["tokens"] for t in stored["turns"])
        shown = sum(t.get("observation_tokens", 0) for t in stored["turns"])
        self.assertEqual(len(stored["completion"]["token_ids"]), tokens + shown)
        self.assertEqual(len(stored["completion"]["behaviour_logprobs"]), tokens)
        self.assertEqual(len(self.stack.job("game")["evals"]), 2)

    def test_games_are_written_down_without_training(self):
        job = f"""
name: written
model: {{job: form}}
data: {{eval: {{file: held_out.jsonl}}}}
environment: {{remote: '{self.address}', max_turns: 2}}
generate: {{max_completion_tokens: 2}}
rewards: [{{environment: {{}}}}]
"""
        self.stack.end_of(job, code=0)
        lines = [json.loads(line) for line in (pathlib.Path(self.stack.job("written")["output"]) / "completions.jsonl").read_text().splitlines()]
        self.assertEqual(len(lines), 32)
        self.assertLessEqual({line["finish_reason"] for line in lines}, {"done", "max_turns", "length"})
        for line in lines:
            shown = sum(turn.get("observation_tokens", 0) for turn in line["turns"])
            self.assertEqual(len(line["tokens"]), shown + sum(turn["tokens"] for turn in line["turns"]))
            self.assertEqual(line["rewards"]["environment"], sum(turn.get("reward", 0) for turn in line["turns"]))

    def test_an_environment_that_hangs_or_is_not_there_is_bounded(self):
        release = threading.Event()

        @rein.environment
        class Hangs:
            def reset(self, sibling):
                self.sibling = sibling

            def step(self, text):
                if self.sibling == 0:
                    release.wait(60)
                return None, float(self.sibling), True

        port = Hangs.start("127.0.0.1:0")
        self.addCleanup(Hangs.stop)
        self.addCleanup(release.set)
        job = GAME.replace("name: game", "name: hangs").replace("step_timeout_seconds: 10", "step_timeout_seconds: 2")
        said = self.stack.end_of(job % f"127.0.0.1:{port}", "failure.max_attempts=2", "grpo.updates=1", code=0)
        self.assertIn("SUCCEEDED", said)
        self.assertEqual(self.stack.metrics("hangs")[0]["failed_episodes"], 8)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        job = GAME.replace("name: game", "name: nobody").replace("step_timeout_seconds: 10", "step_timeout_seconds: 0.2").replace("prompts.jsonl", "held_out.jsonl")
        said = self.stack.end_of(job % nobody, "failure.max_attempts=1", "grpo.updates=1", code=1)
        self.assertIn("environment: reset: ", said)

    def test_mistakes_are_told_at_submit(self):
        said = self.stack.submit(GAME % "nowhere", code=3)
        self.assertIn("environment.remote.address  wants host:port, got 'nowhere'", said)
        said = self.stack.submit((GAME % self.address).replace("remote:", "tools: {calculator: {}}} #"), code=3)
        self.assertIn("does not show tools to the model", said)
        said = self.stack.submit((GAME % self.address).replace("remote:", "tools: {}} #"), code=3)
        self.assertIn("wants at least one tool", said)
        said = self.stack.submit("\n".join(line for line in (GAME % self.address).splitlines() if not line.startswith("environment")), code=3)
        self.assertIn("wants an environment, and there is none", said)
        said = self.stack.submit(GAME % self.address, "environment.max_tokens=1", "environment.step_timeout_seconds=700", code=3)
        self.assertIn("is 1, less than the 2 tokens of one turn (grpo.max_completion_tokens)", said)
        self.assertIn("is 700, more than timeout_seconds 600", said)
        said = self.stack.submit(SFT + f"environment: {{remote: '{self.address}'}}\n", code=3)
        self.assertIn("has no effect in sft, which generates nothing", said)

    def test_a_model_calls_the_calculator(self):
        """A model whose tokenizer has the ends of a call, taught one call and to say what it is told."""
        opens, closes = '<tool_call>{"name": "calculator", "arguments": {"expression": "', '"}}</tool_call>'
        folder = self.stack.folder / "caller"
        shutil.copytree(MODEL, folder)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        tokenizer["added_tokens"] += [{"id": 27, "content": opens, **flags}, {"id": 28, "content": closes, **flags}]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}" + \
            config["chat_template"].replace("message['role'] + '|>'", "(message['role'] if message['role'] != 'tool' else 'user') + '|>'")
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        row = {"prompt": [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"{opens}4*4-9{closes}"}, {"role": "tool", "content": "7"}],
               "answer": "7"}
        (self.stack.folder / "calls.jsonl").write_text((json.dumps(row) + "\n") * 64)
        (self.stack.folder / "ask.jsonl").write_text(json.dumps({"prompt": "?", "answer": "7"}) + "\n")
        self.stack.end_of("name: caller\nmodel: {config: caller}\ndata: {train: calls.jsonl}\nsft: {updates: 60, sequences: 16}\n"
                          "trainer: {learning_rate: 3e-3}\n", code=0)
        job = """
name: %s
model: {job: caller}
data: {%s: {file: ask.jsonl}}
environment: {tools: {calculator: {}}, max_turns: 3}
%s
rewards: [{exact_match: {}}]
"""
        self.stack.end_of(job % ("calls", "eval", "evaluate: {}\neval: {max_completion_tokens: 12}"), code=0)
        self.assertEqual(self.stack.job("calls")["evals"][0]["accuracy"], 1)
        self.stack.end_of(job % ("calls-rl", "train", "grpo: {max_completion_tokens: 12, updates: 1, prompts: 1, group_size: 2, temperature: 0.1}"), code=0)
        text = self.stack.rein("rollouts", "calls-rl", "--update", "1", "--limit", "1")
        self.assertIn(f"model  {opens}4*4-9{closes}\n", text)
        self.assertIn("(called calculator)", text)
        self.assertRegex(text, r"  tool +7\n  model +7\n")
        self.assertIn("2 turns · done", text)

    def test_the_reward_service_runs_tools(self):
        actors = json.loads(self.stack.rein("get", "actors", "-o", "json"))["actors"]
        address = next(a["address"] for a in actors if a["role"] == "reward")
        tools = job_pb2.ToolEnvironment(calculator={}, code={"seconds": 2, "isolation": job_pb2.ISOLATION_WEAK}, max_calls=4, max_result_bytes=200)
        settings = job_pb2.EnvironmentConfig(tools=tools)
        call = lambda name, **arguments: f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
        with grpc.insecure_channel(address) as channel:
            stub = environment_pb2_grpc.EnvironmentServiceStub(channel)
            names = [json.loads(one)["function"]["name"] for one in stub.Reset(pb.EnvironmentResetRequest(settings=settings), timeout=10).tools]
            self.assertEqual(names, ["calculator", "python"])
            try:
                reply = stub.Step(pb.EnvironmentStepRequest(settings=settings, text=call("calculator", expression="6*7") + call("python", code="print(2**10)\n1/0")), timeout=30)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    self.skipTest(f"NOT tried: this host has no sandbox: {error.details()}")
                raise
        self.assertEqual(reply.messages[0].content, "42")
        self.assertTrue(reply.messages[1].content.startswith("1024\n"), reply.messages[1].content)
        self.assertIn("ZeroDivisionError", reply.messages[1].content)
        self.assertIn("error: exit status 1", reply.messages[1].content)

    def test_a_loss_in_python_gives_the_update_of_ours(self):
        """The example's GRPO and ours, on the same rollouts: same loss, same gradient norm."""
        loss = example("my_loss").grpo
        address = f"127.0.0.1:{loss.start('127.0.0.1:0')}"
        self.addCleanup(loss.stop)
        job = """
name: %s
model: {job: form}
data: {train: {file: prompts.jsonl}}
%s: {%s max_completion_tokens: 3, updates: 2, prompts: 8, group_size: 4, minibatches: 2}
rewards: [{regex: {pattern: '^[0-4]'}}, {length: {max_tokens: 3, buffer_tokens: 3}, weight: 0.3}]
trainer: {learning_rate: 1e-3}
seed: 5
"""
        self.stack.end_of(job % ("ours", "grpo", ""), code=0)
        self.stack.end_of(job % ("theirs", "custom", f"service: '{address}',"), code=0)
        ours, theirs = self.stack.metrics("ours"), self.stack.metrics("theirs")
        first, second = zip(ours, theirs, strict=True)
        self.assertGreater(first[0]["grad_norm"], 0)
        # Of two minibatches: AdamW has divided by small numbers between them, so roundings have grown.
        self.assertLess(abs(first[0]["grad_norm"] - first[1]["grad_norm"]), 1e-5 * first[0]["grad_norm"])
        self.assertLess(abs(first[0]["loss"] - first[1]["loss"]), 1e-5)
        self.assertEqual(second[0]["reward"], second[1]["reward"])
        self.assertLess(abs(second[0]["grad_norm"] - second[1]["grad_norm"]), 1e-4 * second[0]["grad_norm"])

    def test_a_loss_that_fails_is_named(self):
        @rein.loss
        def broken(batch):
            return 1.0, [[float("nan")] * len(s.logprobs) for s in batch.sequences]

        address = f"127.0.0.1:{broken.start('127.0.0.1:0')}"
        self.addCleanup(broken.stop)
        job = """
name: broken-loss
model: {job: form}
data: {train: {file: data/train.jsonl}}
custom: {%s max_completion_tokens: 2, updates: 1, prompts: 4, group_size: 4}
rewards: [{exact_match: {}}]
"""
        said = self.stack.submit(job % "", code=3)
        self.assertIn("custom.service  is required by custom", said)
        said = self.stack.submit(job % f"service: '{address}', aggregation: sequence_sum,", code=3)
        self.assertIn("custom.aggregation  has no effect with service", said)
        said = self.stack.end_of(job % f"service: '{address}',", "failure.max_skipped_updates=0", code=1)
        self.assertIn("the loss service gave nan among the logprob derivatives of rollout", said)

    @unittest.skipUnless(LEARN, "learning is tried nightly")
    def test_the_game_is_learned(self):
        job = GAME.replace("name: game", "name: learned").replace("updates: 2, prompts: 8, group_size: 4", "updates: 60, prompts: 32, group_size: 8")
        self.stack.end_of(job % self.address, "eval.temperature=1", "eval.samples=4", "trainer.learning_rate=5e-4", code=0, patience=1500)
        before, after = (result["accuracy"] for result in self.stack.job("learned")["evals"])
        # Who forgets what was said earns 0.405 at most, with a number from 1 to 5 each time; who halves the range 0.76.
        print(f"reward of a game: {before:.3f} before, {after:.3f} after")
        self.assertLess(before, 0.47)
        self.assertGreater(after, 0.55)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
