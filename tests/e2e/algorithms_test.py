#!/usr/bin/env python3
"""Every algorithm teaches: from the same start, on the quickstart's task, each raises held-out accuracy.

    algorithms_test.py BIN_FOLDER [NAME...]      only these algorithms; none: all

The start knows what an answer looks like and is right about one time in four.
"""
import json
import sys
import unittest

from stack import MODEL, Stack

START = """name: start
model: {config: %s}
data: {train: data/sft.jsonl, eval: {file: data/eval.jsonl, limit: 200}}
sft: {updates: 120, sequences: 64}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 2e-3}
""" % MODEL
REINFORCE = """name: %s
model: {job: start}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 200}}
%s: {max_completion_tokens: 3, %s}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
rollout: {in_flight: %s}
"""
PREFER = """name: %s
model: {job: start}
data: {train: data/%s.jsonl, eval: {file: data/eval.jsonl, limit: 200}}
%s: {updates: 40, %s}
rewards: [{exact_match: {}}]
trainer: {learning_rate: %s}
eval: {max_completion_tokens: 3}
"""
JUDGED = """name: judged
model: {job: start}
data: {train: {file: data/train.jsonl, answer: none}, eval: {file: data/eval.jsonl, limit: 200}}
ppo: {max_completion_tokens: 3, updates: 8, prompts: 256, critic: {learning_rate: 1e-3}, kl: {coefficient: 0.01}}
rewards: [{model: {job: judge}}, {exact_match: {}, weight: 0}]
eval: {accuracy: exact_match}
trainer: {learning_rate: 1e-3}
"""
STEP_JUDGED = """name: step-judged
model: {job: start}
data: {train: {file: data/train.jsonl, answer: none}, eval: {file: data/eval.jsonl, limit: 200}}
reinforce_pp: {max_completion_tokens: 3, updates: 8, prompts: 256, kl: {coefficient: 0.05}}
rewards: [{model: {job: step-judge, steps: {separator: ',', reduce: mean}}}, {exact_match: {}, weight: 0}]
eval: {accuracy: exact_match}
trainer: {learning_rate: 1e-3}
"""
DISTILLED = """name: distilled
model: {job: start}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 200}}
on_policy_distillation: {max_completion_tokens: 3, updates: 16, prompts: 64, kl: {reference: %s}}
rewards: [{exact_match: {}, weight: 0}]
trainer: {learning_rate: 1e-3}
"""
GROUPS = "updates: 16, prompts: 32, group_size: 8"
SINGLE = "updates: 16, prompts: 256"  # as many rollouts, each of its own prompt
REINFORCED = {"grpo": GROUPS, "dr_grpo": GROUPS, "dapo": "updates: 16, prompts: 16", "gspo": GROUPS, "rloo": GROUPS,
              "ppo": "updates: 6, prompts: 256, critic: {learning_rate: 1e-3}", "reinforce_pp": SINGLE,
              "reinforce_pp_baseline": GROUPS, "remax": SINGLE, "cispo": GROUPS, "sapo": GROUPS, "gmpo": GROUPS,
              "stale_1": GROUPS + ", staleness: 1", "stale_4": GROUPS + ", staleness: 4",
              "stale_drop": GROUPS + ", staleness: 1, when_stale: drop",
              "stale_correct": GROUPS + ", staleness: 2, when_stale: correct"}
# GRPO by rollouts of an older policy, each with another way to change weights under what is being written.
IN_FLIGHT = {"stale_1": "finish", "stale_drop": "recompute"}
PREFERRED = {"dpo": ("pairs", "pairs: 64", "1e-3"), "kto": ("marked", "sequences: 128", "1e-3"),
             "orpo": ("pairs", "pairs: 64", "1e-3"), "simpo": ("pairs", "pairs: 64", "1e-4")}


# On answers that are mostly wrong: what is learned is what the teacher makes of the questions.
DISTILL = """name: %s
model: {job: start}
data: {train: data/sft.jsonl, eval: {file: data/eval.jsonl, limit: 200}}
distill: {teacher: %s, updates: 50, %s}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
eval: {max_completion_tokens: 3}
"""


class AlgorithmsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.addClassCleanup(cls.stack.down)
        cls.write_preferences(cls.stack.folder / "data")
        cls.stack.end_of(START, code=0)

    @staticmethod
    def write_preferences(folder):
        """Pairs and marked answers from the right ones: the wrong answer is another digit of the question."""
        rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        with open(folder / "pairs.jsonl", "w") as pairs, open(folder / "marked.jsonl", "w") as marked, \
                open(folder / "judged.jsonl", "w") as judged, open(folder / "judged_eval.jsonl", "w") as held_out:
            for number, row in enumerate(rows):
                digits = [c for c in row["prompt"] if c.isdigit() and c != row["answer"]] or ["0"]
                wrong = digits[number % len(digits)]
                # What a policy may come to write when a model judges it: any digit, or more than one.
                other = row["answer"] * 2 if number % 5 == 0 else str((int(row["answer"]) + 1 + number % 9) % 10)
                (held_out if number % 11 == 0 else judged).write(
                    json.dumps({"prompt": row["prompt"], "chosen": row["answer"], "rejected": other}) + "\n")
                pairs.write(json.dumps({"prompt": row["prompt"], "chosen": row["answer"], "rejected": wrong}) + "\n")
                good = number % 2 == 0
                marked.write(json.dumps({"prompt": row["prompt"], "answer": row["answer"] if good else wrong,
                                         "label": good}) + "\n")

    def rises(self, yaml, name, least):
        self.stack.end_of(yaml, code=0, patience=270)
        before, after = (result.get("accuracy", 0) for result in self.stack.job(name)["evals"])
        print(f"{name:24} {before:.3f} -> {after:.3f}", flush=True)
        self.assertGreater(after, before + least, name)
        return after

    def test_reinforced(self):
        for algorithm, keys in REINFORCED.items():
            if not wanted(algorithm):
                continue
            name = algorithm.replace("_", "-")
            with self.subTest(algorithm):
                preset = "grpo" if algorithm.startswith("stale") else algorithm
                after = self.rises(REINFORCE % (name, preset, keys, IN_FLIGHT.get(algorithm, "continue")), name, 0.15)
                if preset == algorithm:
                    continue
                self.assertGreater(after, 0.9, "what synchronous updates reach")
                lags = {key for line in self.stack.metrics(name) for key in line if key.startswith("lag/")}
                self.assertGreater(lags, {"lag/0"}, "rollouts of an older policy were trained on")

    def test_preferred(self):
        for algorithm, (data, keys, rate) in PREFERRED.items():
            if not wanted(algorithm):
                continue
            with self.subTest(algorithm):
                self.rises(PREFER % (algorithm, data, algorithm, keys, rate), algorithm, 0.15)

    def test_a_reward_model_tells_right_from_wrong(self):
        if not wanted("reward_model"):
            return
        self.stack.end_of("name: judge\nmodel: {job: start}\ndata: {train: data/judged.jsonl, eval: data/judged_eval.jsonl}\n"
                          "reward_model: {updates: 180}\ntrainer: {learning_rate: 1e-3}\n", code=0)
        before, after = self.stack.job("judge")["evals"]
        print(f"{'reward_model':24} {before.get('accuracy', 0):.3f} -> {after['accuracy']:.3f} of held-out pairs", flush=True)
        self.assertGreater(after["accuracy"], 0.85)
        self.assertLess(after["slices"][0]["loss"], before["slices"][0]["loss"])
        # What it has learned of right and wrong teaches the policy, which never sees a right answer.
        self.rises(JUDGED, "judged", 0.15)
        parts = self.stack.metrics("judged")[-1]
        self.assertIn("reward/model", parts)


    def test_a_process_reward_model_teaches_by_steps(self):
        """Steps are digits of an answer of two, judged one by one; the policy learns from what each earned."""
        if not wanted("reward_model"):
            return
        folder = self.stack.folder / "data"
        rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        with open(folder / "steps.jsonl", "w") as steps, open(folder / "steps_eval.jsonl", "w") as held_out:
            for number, row in enumerate(rows):
                right = row["answer"]
                other = str((int(right) + 1 + number % 9) % 10)
                # A policy that a model judges comes to write what the model has not seen: two digits in one step, say.
                wrong = right * 2 if number % 5 == 0 else right + other if number % 5 == 1 else other
                first, second = (right, wrong)[number // 5 % 2], (right, wrong)[number // 10 % 2]
                line = json.dumps({"prompt": row["prompt"], "steps": [first, second], "label": [first == right, second == right]})
                (held_out if number % 11 == 0 else steps).write(line + "\n")
        self.stack.end_of("name: step-judge\nmodel: {job: start}\n"
                          "data: {train: data/steps.jsonl, eval: {file: data/steps_eval.jsonl, limit: 200}}\n"
                          "reward_model: {updates: 180, objective: steps, separator: ','}\n"
                          "trainer: {learning_rate: 1e-3}\n", code=0)
        before, after = (result.get("accuracy", 0) for result in self.stack.job("step-judge")["evals"])
        print(f"{'process reward model':24} {before:.3f} -> {after:.3f} of held-out steps", flush=True)
        self.assertGreater(after, 0.85)
        refused = self.stack.submit(STEP_JUDGED.replace("separator: ','", "separator: ';'"), code=3)
        self.assertIn('has learned steps that end with', refused)
        self.rises(STEP_JUDGED, "step-judged", 0.15)
        part = json.loads(self.stack.rein("rollouts", "step-judged", "--limit", "1", "-o", "json"))
        self.assertIn('"steps"', json.dumps(part))

    def test_a_teacher_teaches_what_the_policy_writes(self):
        if not wanted("on_policy_distillation") and not wanted("distill"):
            return
        self.stack.end_of("name: teacher\nmodel: {job: start}\ndata: {train: data/train.jsonl}\n"
                          "sft: {updates: 150}\ntrainer: {learning_rate: 1e-3}\n", code=0, patience=270)
        teacher = self.stack.job("teacher")["output"] + "/model"
        if wanted("on_policy_distillation"):
            self.rises(DISTILLED % teacher, "distilled", 0.15)
        if wanted("distill"):
            self.rises(DISTILL % ("distill-top", teacher, "top_k: 4"), "distill-top", 0.15)
            self.rises(DISTILL % ("distill-reverse", teacher, "top_k: 0, divergence: reverse"), "distill-reverse", 0.15)
            losses = [line["loss"] for line in self.stack.metrics("distill-top")]
            self.assertLess(losses[-1], 0.5 * losses[0])
            self.assertGreater(self.stack.metrics("distill-top")[-1]["teacher_agreement"], 0.8)


def wanted(algorithm):
    return not NAMES or algorithm in NAMES


if __name__ == "__main__":
    NAMES = sys.argv[2:]
    unittest.main(argv=sys.argv[:1])
