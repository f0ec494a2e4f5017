#!/usr/bin/env python3
"""Kills and freezes real services in the middle of a job, and compares it with the same job undisturbed.

    faults_test.py BIN_FOLDER

Asserted: the disturbed job succeeds by itself, its ledger is exact, no stored rollout was generated twice, its
final weights are those of the undisturbed job bit for bit, and `rein down` leaves no process behind.
"""
import os
import signal
import time

from stack import DISTURBED_GRPO, DISTURBED_SFT, Stack, alive, check_ledger, weights

LEASE_SECONDS = 2
UPDATES, PROMPTS, SIBLINGS = 120, 8, 4  # so many that the last fault hits a job that runs, on a fast machine too
GRPO = DISTURBED_GRPO % (UPDATES, PROMPTS, SIBLINGS)


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


def main():
    box = Stack("--lease-seconds", str(LEASE_SECONDS))
    try:
        box.end_of(DISTURBED_SFT, code=0)
        for name in ("calm", "disturbed"):
            box.submit(GRPO, "name=" + name)
            if name == "disturbed":
                print(disturb(box, name), "services were hit", flush=True)
            box.rein("wait", name, "--timeout", "200")
            check_ledger(box, name, UPDATES * PROMPTS, SIBLINGS)
        assert weights(box.job("calm")) == weights(box.job("disturbed")), "other weights after the faults"
    finally:
        box.down()
    print("the ledger is exact and the weights are equal")


main()
