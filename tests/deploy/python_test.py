#!/usr/bin/env python3
"""Installs deploy/python into a fresh environment and runs a job with it: its client, its reward, what both refuse.

    python_test.py BIN_FOLDER
"""
import os
import pathlib
import unittest

from python_environment import ROOT, start_again

start_again()  # this file, where the package is

import grpc

import rein
from stack import MODEL, Stack

calls = []


@rein.reward
def shortest(prompt, completion, answer, columns):
    """Few characters are good."""
    calls.append((prompt[-1]["content"], completion, answer))
    if completion.startswith("9"):
        raise ValueError("no nines")
    return 1.0 / (1 + len(completion))


class PythonTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack("--references", "0")
        cls.addClassCleanup(cls.stack.down)
        os.environ["REIN_HOME"] = cls.stack.environment["REIN_HOME"]
        os.environ.pop("REIN_SERVER", None)
        cls.client = rein.connect()
        port = shortest.start("127.0.0.1:0")
        cls.addClassCleanup(shortest.stop)
        cls.job = cls.client.submit({
            "name": "python", "model": {"config": str(MODEL)}, "data": {"train": str(cls.stack.folder / "data/train.jsonl")},
            "grpo": {"updates": 3, "prompts": 4, "group_size": 4, "max_completion_tokens": 3},
            "rewards": [{"remote": f"127.0.0.1:{port}", "name": "short"}], "seed": 5}, "trainer.learning_rate=0.001")
        cls.seen = [row["update"] for row in cls.client.metrics("python", follow=True)]

    def test_the_package_is_small_and_typed(self):
        folder = pathlib.Path(rein.__file__).parent
        self.assertTrue((folder / "py.typed").exists() and (folder / "v1/controller_pb2.pyi").exists())
        self.assertFalse(pathlib.Path(folder).is_relative_to(ROOT), folder)

    def test_a_job_from_submit_to_its_figures(self):
        self.assertEqual(self.job.name, "python")
        self.assertEqual(self.seen, [1, 2, 3])
        job = self.client.get("python")
        self.assertEqual(job.state, 5)
        self.assertEqual([j.name for j in self.client.jobs()], ["python"])
        rows = list(self.client.metrics("python"))
        self.assertIn("reward/short", rows[0])
        self.assertIn("learning_rate: 0.001", job.config_yaml)
        self.assertTrue(any("msg=registered" in line for line in self.client.logs("trainer-0")))

    def test_the_reward_was_asked_and_its_errors_stay_its_own(self):
        self.assertEqual(shortest([{"role": "user", "content": ""}], "ab", "", {}), 1 / 3)
        self.assertEqual(shortest.__doc__, "Few characters are good.")
        self.assertGreaterEqual(len(calls), 48)
        stored = list(self.client.rollouts("python", update=1))
        self.assertTrue(stored)
        for one in stored:
            text = one.rollout.completion.text
            if one.rollout.reward.error:
                self.assertTrue(text.startswith("9"), text)
                self.assertIn("no nines", one.rollout.reward.error)
            else:
                self.assertAlmostEqual(one.rollout.reward.reward, 1 / (1 + len(text)))
        self.assertTrue(all(len(r.rollout.completion.text) <= 1 for r in self.client.rollouts("python", update=1, min_reward=0.5)))

    def test_what_is_wrong_is_told(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.submit({"name": "x", "grpo": {"groupsize": 1}})
        self.assertIn("did you mean group_size?", caught.exception.details())
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.get("nothing")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main(argv=["python_test.py"])
