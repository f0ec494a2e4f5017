#!/usr/bin/env python3
"""A job with rewards that go by the dataset of a prompt, a sandbox, gates and clipping, through the real services.

    rewards_test.py BIN_FOLDER
"""
import json
import unittest

from stack import MODEL, Stack

JOB = """name: routed
model: {config: %s}
data: {train: data/mixed.jsonl}
grpo: {updates: 3, prompts: 8, group_size: 4, max_completion_tokens: 3}
rewards:
  - {math: whole, when: {column: extra.source, is: [sums]}, range: {min: 0, max: 1}}
  - {code: {}, when: {column: extra.source, is: [programs]}, timeout_seconds: 60}
  - {format: '[0-9]*', weight: 0, gate: {at_least: 1, otherwise: -0.75}}
  - {repetition: {ngram: 1, unit: tokens}, weight: 0.5, clip: {min: -0.25}}
reward_clip: {max: 0.9}
trainer: {learning_rate: 1e-3}
""" % MODEL


class RewardsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack("--references", "0")
        cls.addClassCleanup(cls.stack.down)
        lines = (cls.stack.folder / "data/train.jsonl").read_text().splitlines()
        with open(cls.stack.folder / "data/mixed.jsonl", "w") as file:
            for i, line in enumerate(lines):
                row = json.loads(line)
                row["extra"] = {"source": "programs" if i % 2 else "sums"}
                row["tests"] = [{"input": "", "output": ""}]  # a number alone is a program that prints nothing
                file.write(json.dumps(row) + "\n")
        cls.stack.end_of(JOB, code=0)
        cls.rollouts = []
        for update in (1, 2, 3):
            text = cls.stack.rein("rollouts", "routed", "--update", str(update), "--limit", "1000", "-o", "json")
            cls.rollouts += json.loads(text)["rollouts"]

    def test_each_prompt_has_the_rewards_of_its_dataset(self):
        kinds = set()
        for one in self.rollouts:
            rollout = one["rollout"]
            source = "code" if int(rollout["group"].get("prompt", 0)) % 2 else "math"
            names = [part["name"] for part in rollout["reward"]["parts"]]
            self.assertEqual(names, [source, "format", "repetition"])
            kinds.add(source)
        self.assertEqual(kinds, {"code", "math"})

    def test_rewards_are_what_the_job_says(self):
        gated = 0
        for one in self.rollouts:
            rollout, reward = one["rollout"], one["rollout"]["reward"]
            text, ids = rollout["completion"].get("text", ""), rollout["completion"]["token_ids"]
            score, _, repetition = (part.get("score", 0) for part in reward["parts"])
            self.assertAlmostEqual(repetition, max(-0.25, len(set(ids)) / len(ids) - 1))
            if not text.strip().isdigit() and text.strip():
                self.assertEqual((reward["reward"], reward["gated_by"]), (-0.75, "format"))
                gated += 1
                continue
            if reward["parts"][0]["name"] == "math":
                right = text.strip().isdigit() and int(text) == int(one["answer"])
            else:  # a number with leading zeros is no Python
                right = text.strip() in ("", "0") or not text.strip().startswith("0") or set(text.strip()) == {"0"}
                if not right:
                    self.assertIn("test 1 of 1: exit status 1: SyntaxError", reward["parts"][0]["note"])
            self.assertEqual(score, float(right), text)
            self.assertAlmostEqual(reward.get("reward", 0), min(0.9, score + 0.5 * repetition))
        self.assertGreater(gated, 0)
        self.assertLess(gated, len(self.rollouts))

    def test_means_are_over_the_prompts_that_a_reward_is_for(self):
        for metrics in self.stack.metrics("routed"):
            update = [one for one in self.rollouts if int(one["update"]) == metrics["update"]]
            for name in ("math", "code"):
                scores = [part.get("score", 0) for one in update for part in one["rollout"]["reward"]["parts"] if part["name"] == name]
                if scores:
                    self.assertAlmostEqual(metrics[f"reward/{name}"], sum(scores) / len(scores))

    def test_a_person_can_read_why(self):
        text = self.stack.rein("rollouts", "routed", "--limit", "1000")
        self.assertIn("failed the gate of format", text)


if __name__ == "__main__":
    unittest.main(argv=["rewards_test.py"])
