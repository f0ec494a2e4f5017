"""The services, as a user starts them, in a folder of their own."""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from folders import temporary_folder

BIN = pathlib.Path(sys.argv[1]).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "configs/models/digits"

CHECKPOINT_EVERY = 7
# Jobs that are disturbed while they run, and compared with the same one undisturbed.
DISTURBED_SFT = """name: start
model: {config: %s}
data: {train: data/sft.jsonl}
sft: {updates: 40, sequences: 32}
trainer: {learning_rate: 1e-3}
""" % MODEL
DISTURBED_GRPO = """name: calm
model: {job: start}
data: {train: data/train.jsonl}
grpo:
  updates: %d
  prompts: %d
  group_size: %d
  max_completion_tokens: 4
  kl: {coefficient: 0.01}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
""" + "checkpoint: {every: %d}\n" % CHECKPOINT_EVERY


def environment(folder):
    """Of a user who has nothing but what lies there."""
    known = {name: value for name, value in os.environ.items()
             if name not in ("REIN_SERVER", "REIN_TLS", "REIN_CA", "REIN_TOKEN_FILE", "REIN_CONTEXT")}
    return dict(known, REIN_HOME=str(folder / "home"), XDG_CONFIG_HOME=str(folder / "config"))


class Stack:
    """`rein up` with the given flags; the digits task lies in data/."""

    def __init__(self, *flags):
        self.temporary = temporary_folder()
        self.folder = pathlib.Path(self.temporary.name)
        self.environment = environment(self.folder)
        subprocess.run([ROOT / "deploy/make_digits", self.folder / "data"], check=True)
        self.rein("up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *flags)

    def down(self):
        pids = self.pids()
        self.rein("down")
        self.temporary.cleanup()
        left = [pid for pid in pids if alive(pid)]
        assert not left, f"still alive after rein down: {left}"

    def rein(self, *arguments, code=0):
        run = self.run(*arguments)
        assert run.returncode == code, f"rein {arguments}: {run.returncode}\n{run.stdout}{run.stderr}"
        return run.stdout + run.stderr

    def run(self, *arguments):
        return subprocess.run([BIN / "rein", *arguments], env=self.environment, cwd=self.folder,
                              capture_output=True, text=True, timeout=280)

    def submit(self, yaml, *overrides, code=0):
        (self.folder / "job.yaml").write_text(yaml)
        return self.rein("submit", "-f", "job.yaml", *overrides, code=code)

    def end_of(self, yaml, *overrides, code=1, patience=240):
        """What `rein wait` says about a job, which ends with `code` within so many seconds."""
        name = self.submit(yaml, *overrides, "-o", "name").splitlines()[0]
        return self.rein("wait", name, "--timeout", str(patience), code=code)

    def job(self, name):
        for _ in range(100):  # the controller may be the one that was killed
            run = self.run("get", "job", name, "-o", "json")
            if run.returncode != 7:
                break
            time.sleep(0.1)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def pid(self, service):
        return int((self.folder / f"home/run/{service}.pid").read_text())

    def pids(self):
        return [self.pid(path.stem) for path in (self.folder / "home/run").glob("*.pid")]

    def wait_for_update(self, name, update):
        deadline = time.time() + 240
        while True:
            job = self.job(name)
            done = int(job.get("update", 0))
            if done >= update:
                return done
            assert job["state"] not in ("JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED"), job
            assert time.time() < deadline, f"{name} stands at update {done}: {job.get('message')}"
            time.sleep(0.05)

    def metrics(self, name):
        """The lines of metrics.jsonl."""
        path = pathlib.Path(self.job(name)["output"]) / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def weights(job):
    """Digest of the weights that a job left."""
    files = sorted(pathlib.Path(job["output"], "model").glob("*.safetensors"))
    assert files, f"no weights in {job['output']}/model"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def check_ledger(box, name, groups, siblings):
    """So many groups were consumed once, none was dropped, and every rollout was stored once."""
    text = box.rein("describe", name)
    ledger = {key: int(value) for key, value in re.findall(r"(consumed|dropped|in flight|rollouts stored) (\d+)", text)}
    assert ledger["consumed"] == groups, text
    assert ledger["dropped"] == 0 and ledger["in flight"] == 0, text
    assert ledger["rollouts stored"] == groups * siblings, text
    assert "ALARM" not in text, text


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
