#!/usr/bin/env python3
"""Kills and freezes real services in the middle of a job, and compares it with the same job undisturbed.

    faults_test.py BIN_FOLDER

Asserted: the disturbed job succeeds by itself, its ledger is exact, no stored rollout was generated twice, its
final weights are those of the undisturbed job bit for bit, and `rein down` leaves no process behind.
"""
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(sys.argv[1]).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
LEASE_SECONDS = 2
UPDATES, PROMPTS, SIBLINGS = 60, 8, 4
COMMON = """
data: {train: DATA/FILE.jsonl}
trainer: {learning_rate: 1e-3}
"""
SFT = "name: start\nmodel: {config: MODEL}\nsft: {updates: 40, sequences: 32}" + COMMON
GRPO = """name: NAME
model: {job: start}
grpo:
  updates: %d
  prompts: %d
  group_size: %d
  max_completion_tokens: 4
  kl: {coefficient: 0.01}
rewards: [{exact_match: {}}]
checkpoint: {every: 7}""" % (UPDATES, PROMPTS, SIBLINGS) + COMMON


class Box:
    """The services of this test, in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, REIN_HOME=str(folder / "home"))
        self.environment.pop("REIN_SERVER", None)

    def rein(self, *arguments, expect=0):
        run = subprocess.run([BIN / "rein", *arguments], env=self.environment, capture_output=True, text=True, timeout=280)
        assert run.returncode == expect, f"rein {' '.join(arguments)}: {run.returncode}\n{run.stdout}{run.stderr}"
        return run.stdout

    def submit(self, yaml, **values):
        for key, value in values.items():
            yaml = yaml.replace(key, str(value))
        path = self.folder / "job.yaml"
        path.write_text(yaml)
        self.rein("submit", "-f", str(path))

    def job(self, name):
        for _ in range(100):  # the controller may be the one that was killed
            run = subprocess.run([BIN / "rein", "get", "job", name, "-o", "json"], env=self.environment,
                                 capture_output=True, text=True, timeout=60)
            if run.returncode != 7:
                break
            time.sleep(0.1)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def pid(self, service):
        return int((self.folder / f"home/run/{service}.pid").read_text())

    def wait_for_update(self, name, update):
        deadline = time.time() + 120
        while True:
            job = self.job(name)
            done = int(job.get("update", 0))
            if done >= update:
                return done
            assert job["state"] not in ("JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED"), job
            assert time.time() < deadline, f"{name} stands at update {done}: {job.get('message')}"
            time.sleep(0.05)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def weights(job):
    files = sorted(pathlib.Path(job["output"], "model").glob("*.safetensors"))
    assert files, f"no weights in {job['output']}/model"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def disturb(box, name):
    """Returns how many services were hit."""
    hits, update = 0, 3
    for service in ("rollout-0", "trainer-0", "reward-0", "reference-0", "controller", "trainer-0"):
        update = box.wait_for_update(name, update) + 4
        os.kill(box.pid(service), signal.SIGKILL)
        hits += 1
    for service in ("rollout-0", "trainer-0"):  # hang for three leases, then go on
        update = box.wait_for_update(name, update) + 4
        frozen = box.pid(service)
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(3 * LEASE_SECONDS)
        if alive(frozen):
            os.kill(frozen, signal.SIGCONT)
        hits += 1
    return hits


def check_ledger(box, name):
    text = box.rein("describe", name)
    ledger = {key: int(value) for key, value in re.findall(r"(consumed|dropped|in flight|rollouts stored) (\d+)", text)}
    assert ledger["consumed"] == UPDATES * PROMPTS, text
    assert ledger["dropped"] == 0 and ledger["in flight"] == 0, text
    assert ledger["rollouts stored"] == UPDATES * PROMPTS * SIBLINGS, text
    assert "ALARM" not in text, text


def main():
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        data = folder / "data"
        subprocess.run([ROOT / "deploy/make_digits", data], check=True)
        box = Box(folder)
        box.rein("up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lease-seconds", str(LEASE_SECONDS))
        try:
            box.submit(SFT, MODEL=ROOT / "configs/models/digits", DATA=data, FILE="sft")
            box.rein("wait", "start", "--timeout", "120")
            for name in ("calm", "disturbed"):
                box.submit(GRPO, NAME=name, DATA=data, FILE="train")
                if name == "disturbed":
                    print(disturb(box, name), "services were hit", flush=True)
                box.rein("wait", name, "--timeout", "200")
                check_ledger(box, name)
            assert weights(box.job("calm")) == weights(box.job("disturbed")), "other weights after the faults"
            pids = [box.pid(path.stem) for path in (folder / "home/run").glob("*.pid")]
        finally:
            box.rein("down")
        left = [pid for pid in pids if alive(pid)]
        assert not left, f"still alive after rein down: {left}"
    print("the ledger is exact and the weights are equal")


main()
