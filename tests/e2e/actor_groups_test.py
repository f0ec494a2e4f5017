#!/usr/bin/env python3
"""Two groups of actors under one controller: two jobs at once, one group's trainer killed, a third job that waits.

    actor_groups_test.py BIN_FOLDER

Asserted: each job uses the actors of its group alone; the job beside the one whose trainer dies never notices, and both
end with the same weights; a waiting job says what it waits for, and runs on the group that is free first; a restart of
the controller leaves both where they were.
"""
import json
import os
import signal
import subprocess
import time

from stack import BIN, CHECKPOINT_EVERY, DISTURBED_GRPO, DISTURBED_SFT, Stack, check_ledger, weights

UPDATES, PROMPTS, SIBLINGS = 300, 8, 4  # so many that both jobs run until the last look at them, on a fast machine too
GRPO = DISTURBED_GRPO % (UPDATES, PROMPTS, SIBLINGS)
ROLES = ("trainer", "rollout", "reference", "reward")


class SecondGroup:
    """Processes that nobody restarts, with the names that they give themselves."""

    def __init__(self, box):
        self.box = box
        self.controller = json.loads((box.folder / "home/context.json").read_text())["controller"]
        self.processes = {}
        for role in ROLES:
            self.start(role)

    def start(self, role):
        self.processes[role] = subprocess.Popen(
            [BIN / f"rein-{role}", "--controller", self.controller, "--group", "second", "--log-file",
             str(self.box.folder / f"home/logs/second-{role}.log"), *([] if role == "reward" else ["--threads", "1"])],
            env=self.box.environment, cwd=self.box.folder)

    def kill(self, role):
        self.processes[role].kill()
        self.processes[role].wait()

    def kill_trainer_between_checkpoints(self, name):
        """Kills it where an update was made that no checkpoint holds, which is then trained again."""
        trainer = self.processes["trainer"]
        while True:
            trainer.send_signal(signal.SIGSTOP)
            time.sleep(0.3)  # what it had answered is in the ledger; less than its lease
            if int(self.box.job(name)["update"]) % CHECKPOINT_EVERY:
                break
            trainer.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        self.kill("trainer")

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        return [process.wait(30) for process in self.processes.values()]


def until(what, so, patience=60):
    deadline = time.time() + patience
    while not (found := so()):
        assert time.time() < deadline, what
        time.sleep(0.1)
    return found


def actors(box):
    return json.loads(box.rein("get", "actors", "-o", "json"))["actors"]


def events(box, name):
    return box.run("watch", name).stdout


def main():
    wrong = subprocess.run([BIN / "rein-reward", "--group", "a/b"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "wants at most 63 of a-z, 0-9 and -" in wrong.stderr, wrong
    box = Stack("--lease-seconds", "2", "--threads", "1")
    second = None
    try:
        box.end_of(DISTURBED_SFT, code=0)
        box.submit(GRPO, "name=nowhere", "placement.group=third")
        assert box.job("nowhere")["message"] == "waits for a trainer: no trainer of group third is here"
        box.rein("cancel", "nowhere")
        second = SecondGroup(box)
        until("eight actors", lambda: sum(a["state"] == "READY" for a in actors(box)) == 8)
        assert {a["name"] for a in actors(box) if a["group"] == "second"} == {f"second-{role}" for role in ROLES}

        box.submit(GRPO, "name=hit", "placement.group=second")
        box.submit(GRPO, "name=spared")
        box.submit(GRPO, "name=third", "grpo.updates=5")
        for name in ("hit", "spared"):
            box.wait_for_update(name, 3)
        assert (box.job("hit")["group"], box.job("spared")["group"]) == ("second", "default")
        assert box.job("third")["state"] == "JOB_STATE_QUEUED"
        assert box.job("third")["message"] == "waits for a free group: default runs spared, second runs hit", box.job("third")
        for actor in actors(box):
            assert actor["job"] == ("hit" if actor["group"] == "second" else "spared"), actor
        assert "second-trainer    second   hit" in box.rein("get", "actors"), box.rein("get", "actors")
        assert "group      second" in box.rein("describe", "hit")

        second.kill_trainer_between_checkpoints("hit")
        before = int(box.job("spared")["update"])
        until("hit waits", lambda: box.job("hit").get("message") == "waits for a trainer")
        box.wait_for_update("spared", before + 2)
        assert box.job("third")["state"] == "JOB_STATE_QUEUED", "the group of a lost trainer is not free"
        second.start("trainer")
        os.kill(box.pid("controller"), signal.SIGKILL)
        box.wait_for_update("spared", before + 4)
        assert box.job("spared")["group"] == "default"
        until("hit goes on", lambda: box.job("hit")["state"] == "JOB_STATE_RUNNING" and not box.job("hit").get("message"))
        assert box.job("hit")["group"] == "second"

        box.rein("wait", "spared", "--timeout", "270")
        if box.job("hit")["state"] == "JOB_STATE_RUNNING":
            until("third runs", lambda: box.job("third").get("group") or box.job("third")["state"] == "JOB_STATE_SUCCEEDED")
            assert box.job("third").get("group", "default") == "default", "on the group that was free first"
        for name in ("hit", "third"):
            box.rein("wait", name, "--timeout", "270")
        for name in ("hit", "spared"):
            check_ledger(box, name, UPDATES * PROMPTS, SIBLINGS)
        check_ledger(box, "third", 5 * PROMPTS, SIBLINGS)
        assert weights(box.job("hit")) == weights(box.job("spared")), "other weights beside a trainer that died"
        assert "trained again" in events(box, "hit"), events(box, "hit")
        assert "trained again" not in events(box, "spared"), events(box, "spared")
        assert all("job" not in a and a["group"] in ("default", "second") for a in actors(box)), actors(box)
        assert second.stop() == [0, 0, 0, 0]
    finally:
        if second is not None:
            for process in second.processes.values():
                process.kill()
        box.down()
    print("two groups, two jobs at once: the ledgers are exact and the weights are equal")


main()
