#!/usr/bin/env python3
"""A volume that is full, for real: a small one, filled to its last byte while a job runs. The error names the path, what is
free and the next step; nothing is lost; once there is room the job goes on.

    full_disk_test.py BIN_FOLDER

Mounts a tmpfs, which wants root; skipped, and said so, without.
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from stack import BIN, MODEL, Stack, check_ledger

UPDATES, PROMPTS, SIBLINGS = 60, 8, 4
GRPO = """name: %%s
model: {config: %s}
data: {train: data/train.jsonl}
grpo: {updates: %d, prompts: %d, group_size: %d, max_completion_tokens: 4}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
checkpoint: {every: 2, keep: 2}
""" % (MODEL, UPDATES, PROMPTS, SIBLINGS)


def mounted(folder, mib):
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder], capture_output=True).returncode == 0


class FullDiskTest(unittest.TestCase):
    def start(self, small):
        """A stack whose folder `small` is a volume of 64 MiB."""
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.state = pathlib.Path(temporary.name) / "state"
        self.volume = self.state / small
        if not mounted(self.volume, 64):
            print("SKIPPED: no disk was filled: mounting one wants root", file=sys.stderr)
            sys.exit(77)
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.volume])
        self.stack = Stack("--state", str(self.state), "--references", "0")
        self.addCleanup(self.stack.down)

    def stopped(self, name):
        """What `rein wait` says about a job whose volume is filled in the midst of it."""
        self.stack.submit(GRPO % name)
        self.stack.wait_for_update(name, 4)
        with open(self.volume / "filler", "wb", buffering=0) as filler:
            while self.stack.job(name)["state"] == "JOB_STATE_RUNNING":  # what an old checkpoint leaves is filled too
                for size in (1 << 20, 1 << 12, 1):
                    try:
                        while filler.write(b"x" * size) == size:
                            pass
                    except OSError:
                        pass
        return self.stack.rein("wait", name, "--timeout", "240", code=1)

    def check_error(self, text, names):
        self.assertRegex(text, names)
        self.assertRegex(text, r"its disk has 0\.\d MiB of 64\.0 MiB free")
        self.assertIn("rein gc --dry-run", text)

    def go_on(self, name):
        """With room again the job goes on from where it was, and every prompt is trained on once."""
        (self.volume / "filler").unlink()
        self.stack.rein("resume", name)
        self.stack.rein("wait", name, "--timeout", "200")
        check_ledger(self.stack, name, UPDATES * PROMPTS, SIBLINGS)
        self.assertEqual([line["update"] for line in self.stack.metrics(name)][-1], UPDATES)

    def test_of_the_controllers_state(self):
        self.start(".")
        text = self.stopped("stored")
        self.check_error(text, rf"FAILED  stored at update \d+: .*{self.volume.resolve()}/")
        self.assertRegex(text, r"checkpoint \d+ \(update \d+\) is intact")
        self.assertIn("rein resume stored", text)
        self.assertIn("FAILED", self.stack.rein("get", "jobs"))
        for service in ("trainer-0", "rollout-0", "reward-0"):
            self.assertIn("READY", self.stack.rein("get", "actors", service), "nothing died of it")
        self.go_on("stored")
        self.assertIn("hold together", self.stack.rein("audit", "verify", str(self.state / "audit.jsonl")))

    def test_of_the_checkpoints(self):
        self.start("jobs")
        text = self.stopped("saved")
        self.check_error(text, r"trainer cannot write checkpoint \d+ \(checkpoint \d+ is intact\): cannot (write|create|flush) \S+")
        self.go_on("saved")
        self.assertNotIn("", [line for line in (pathlib.Path(self.stack.job("saved")["output"]) / "metrics.jsonl").read_text().splitlines()])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
