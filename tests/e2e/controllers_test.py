#!/usr/bin/env python3
"""Two controllers on a real PostgreSQL server: the one that leads is killed, and another time frozen, in the middle of a job.

    controllers_test.py BIN_FOLDER

Asserted: the one that waits names the leader and serves nothing; it takes over, and the job ends with an exact ledger and
the weights of the same job undisturbed, bit for bit; the frozen one, let go on, changes nothing and ends; the password
stands in no process list and no log.
"""
import os
import pathlib
import signal
import sys
import time
import urllib.error
import urllib.request

from stack import DISTURBED_GRPO, DISTURBED_SFT, ROOT, Stack, alive, check_ledger, weights

sys.path.insert(0, str(ROOT / "tests/fakes"))
from postgres_server import PASSWORD, PostgresServer  # noqa: E402

LEASE_SECONDS = 2
UPDATES, PROMPTS, SIBLINGS = 40, 8, 4
GRPO = DISTURBED_GRPO % (UPDATES, PROMPTS, SIBLINGS)


class Controllers:
    def __init__(self, box, server):
        self.box, self.server = box, server

    def leader(self):
        return self.server.sql("SELECT holder FROM controller_lease")

    def epoch(self):
        return int(self.server.sql("SELECT epoch FROM controller_leader"))

    def waits_for(self, condition, what, patience=30):
        deadline = time.time() + patience
        while not condition():
            assert time.time() < deadline, f"not within {patience} s: {what}"
            time.sleep(0.05)

    def addresses(self, name):
        return (self.box.folder / f"home/run/{name}.address").read_text().split()

    def check_the_waiting_one(self):
        leader = self.leader()
        waiting = {"controller": "controller-1", "controller-1": "controller"}[leader]
        self.waits_for(lambda: self.server.sql("SELECT address FROM controller_lease") == self.addresses(leader)[0],
                       "the leader's address in the store")
        address, admin = self.addresses(waiting)
        run = self.box.run("--server", address, "get", "jobs")
        assert run.returncode == 7 and "NOT_LEADER" in run.stderr, run.stderr
        assert f"the leader is {leader} at {self.addresses(leader)[0]}" in run.stderr, run.stderr
        ready = {}
        for name, port in ((waiting, admin), (leader, self.addresses(leader)[1])):
            try:
                ready[name] = urllib.request.urlopen(f"http://{port}/readyz").status
            except urllib.error.HTTPError as error:
                ready[name] = error.code
            assert urllib.request.urlopen(f"http://{port}/healthz").status == 200
        assert ready == {waiting: 503, leader: 200}, ready
        both = self.box.rein("--server", f"{address},{self.addresses(leader)[0]}", "get", "jobs", "-o", "json")
        assert "start" in both, both

    def kill(self, name):
        leader, epoch = self.leader(), self.epoch()
        update = self.box.wait_for_update(name, 6)
        os.kill(self.box.pid(leader), signal.SIGKILL)
        # rein up starts it again at once: then two wait, and either may be the first.
        self.waits_for(lambda: self.epoch() == epoch + 1, "another process leads")
        self.box.wait_for_update(name, update + 4)

    def freeze(self, name):
        leader, epoch = self.leader(), self.epoch()
        update = self.box.wait_for_update(name, 6)
        frozen = self.box.pid(leader)
        os.kill(frozen, signal.SIGSTOP)
        self.waits_for(lambda: self.leader() != leader and self.epoch() == epoch + 1, "another leads")
        self.box.wait_for_update(name, update + 6)
        os.kill(frozen, signal.SIGCONT)
        self.waits_for(lambda: not alive(frozen), "the stale controller ends")
        log = (self.box.folder / f"home/logs/{leader}.log").read_text()
        assert "NOT_LEADER" in log, log[-2000:]
        assert self.epoch() == epoch + 1, "the stale controller took the lease"


def check_secrets(controllers):
    box = controllers.box
    # A controller that lost its lease has ended, and rein up starts it again after a while.
    controllers.waits_for(lambda: all(map(alive, box.pids())), "every service runs")
    for pid in box.pids():
        assert PASSWORD.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes(), "the password is an argument"
    for path in box.folder.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), f"the password stands in {path}"


def main():
    try:
        server = PostgresServer()
    except RuntimeError as why:
        print("SKIPPED:", why, file=sys.stderr)
        sys.exit(77)
    try:
        box = Stack("--lease-seconds", str(LEASE_SECONDS), "--controllers", "2", "--store", server.tcp_url,
                    "--store-password-file", str(server.password_file))
        try:
            controllers, wanted = Controllers(box, server), 1
            box.end_of(DISTURBED_SFT, code=0)
            controllers.check_the_waiting_one()
            check_secrets(controllers)
            for name, disturb in (("calm", None), ("killed", controllers.kill), ("frozen", controllers.freeze)):
                box.submit(GRPO, "name=" + name)
                if disturb:
                    disturb(name)
                box.rein("wait", name, "--timeout", "200")
                check_ledger(box, name, UPDATES * PROMPTS, SIBLINGS)
                assert weights(box.job(name)) == weights(box.job("calm")), f"other weights: {name}"
                wanted += disturb is not None
                assert controllers.epoch() == wanted, f"{name}: epoch {controllers.epoch()}, wanted {wanted}: somebody else died"
                print(name, "has an exact ledger", flush=True)
            for log in (box.folder / "home").glob("audit-*.jsonl"):
                box.rein("audit", "verify", str(log))
            check_secrets(controllers)
        finally:
            box.down()
    finally:
        server.close()


main()
