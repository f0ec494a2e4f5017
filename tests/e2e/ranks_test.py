#!/usr/bin/env python3
"""A trainer of two processes learns what one alone does, and survives the loss of either.

    ranks_test.py BIN_FOLDER
"""
import json
import os
import signal
import sys
import time
import unittest

from stack import MODEL, Stack, alive, check_ledger

SFT = """name: start
model: {config: %s}
data: {train: data/sft.jsonl}
sft: {updates: 20, sequences: 32}
trainer: {learning_rate: 1e-3}
checkpoint: {every: 7}
""" % MODEL
GRPO = """name: grow
model: {job: start}
data: {train: data/train.jsonl}
grpo: {updates: 80, prompts: 8, group_size: 4, max_completion_tokens: 3, kl: {coefficient: 0.01}}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
checkpoint: {every: 7}
"""


class RanksTest(unittest.TestCase):
    def up(self, ranks):
        stack = Stack("--trainers", str(ranks))
        self.addCleanup(stack.down)
        return stack

    def test_two_ranks_learn_what_one_does(self):
        lines = {}
        for ranks in (1, 2):
            stack = self.up(ranks)
            stack.end_of(SFT, code=0)
            lines[ranks] = stack.metrics("start")
            stack.rein("down")
        self.assertEqual(len(lines[2]), 20)
        for one, two in zip(lines[1], lines[2]):
            self.assertAlmostEqual(one["loss"], two["loss"], delta=1e-6, msg=f"{one}\n{two}")
            self.assertAlmostEqual(one["grad_norm"], two["grad_norm"], delta=1e-4, msg=f"{one}\n{two}")

    def test_when_a_rank_is_lost_all_start_again_and_the_job_goes_on(self):
        stack = self.up(2)
        stack.end_of(SFT, code=0)
        stack.submit(GRPO)
        update = 3
        for service in ("trainer-1", "trainer-0", "trainer-1"):
            update = stack.wait_for_update("grow", update) + 4
            before = {name: stack.pid(name) for name in ("trainer-0", "trainer-1")}
            epoch = self.epoch(stack)
            os.kill(before[service], signal.SIGKILL)
            update = max(update, stack.wait_for_update("grow", update) + 1)
            for name, pid in before.items():
                self.assertNotEqual(stack.pid(name), pid, f"{name} went on after {service} was lost")
                self.assertFalse(alive(pid))
            self.assertGreater(self.epoch(stack), epoch)
        stack.rein("wait", "grow", "--timeout", "240")
        check_ledger(stack, "grow", 80 * 8, 4)
        self.assertIn("the trainer starts again at update", stack.rein("describe", "grow"))

    def test_a_rank_that_hangs_is_lost_with_its_lease_and_the_job_goes_on(self):
        stack = Stack("--trainers", "2", "--lease-seconds", "2")  # a rank that does not answer is waited for 300 s
        self.addCleanup(stack.down)
        self.assertRegex(stack.rein("get", "actors"), r"trainer \(rank 0\) +trainer-0 +default +– +READY[^\n]*\n"
                                                      r"trainer \(rank 1\) +trainer-1 +default +– +READY")
        stack.end_of(SFT, code=0)
        stack.submit(GRPO)
        update = stack.wait_for_update("grow", 5)
        frozen = stack.pid("trainer-1")
        os.kill(frozen, signal.SIGSTOP)
        begin = time.time()
        while (states := self.states(stack)) != {"trainer-0": "LOST", "trainer-1": "LOST"} and stack.pid("trainer-1") == frozen:
            self.assertLess(time.time() - begin, 20, states)
            time.sleep(0.05)
        stack.wait_for_update("grow", update + 2)
        self.assertLess(time.time() - begin, 60)
        self.assertFalse(alive(frozen))  # rein up put another in its place
        stack.rein("wait", "grow", "--timeout", "240")
        check_ledger(stack, "grow", 80 * 8, 4)

    @staticmethod
    def states(stack):
        actors = json.loads(stack.rein("get", "actors", "-o", "json"))["actors"]
        return {actor["name"]: actor["state"] for actor in actors if actor["role"] == "trainer"}

    @staticmethod
    def epoch(stack):
        actors = json.loads(stack.rein("get", "actors", "-o", "json"))["actors"]
        return int(next(actor["epoch"] for actor in actors if actor["name"] == "trainer-0"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
