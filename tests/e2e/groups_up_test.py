#!/usr/bin/env python3
"""`rein up --groups 2`: one command starts two groups of services, and tends both.

    groups_up_test.py BIN_FOLDER

Asserted: each group has every role, the names are told apart, and two jobs run at once; the second group's trainer is killed and comes
back into its group, where its job goes on; devices that cannot be dealt evenly are refused, and each service gets those of its group.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

from stack import BIN, DISTURBED_SFT, Stack, environment

ROLES = ("trainer", "rollout", "reference", "reward")


def up(*flags):
    """`rein up` that is refused, or checks what it would start."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([BIN / "rein", "up", *flags], env=environment(pathlib.Path(folder)), capture_output=True, text=True, timeout=120)


def check_devices():
    """Programs that only write down how they are started: the GPUs of two groups, of which this machine has none."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy2(BIN / "rein", folder / "rein")
        for role in ("controller", *ROLES):
            (folder / f"rein-{role}").write_text(f'#!/bin/sh\necho "$*" >>{folder}/started\n')
            (folder / f"rein-{role}").chmod(0o755)
        flags = ["--device", "gpu:0,gpu:1,gpu:2,gpu:3", "--trainers", "2", "--rollout-device", "gpu:4", "--rollout-device", "gpu:5", "--reference-device", "gpu:6"]
        subprocess.run([folder / "rein", "up", "--groups", "2", *flags, "--check"], env=environment(folder), check=True, capture_output=True)
        started = (folder / "started").read_text()
    found = set(re.findall(r"--name (\S+) .*--device (\S+) --group (\S+)", started))
    wanted = {"trainer-0": ("gpu:0", "gpu:2"), "trainer-1": ("gpu:1", "gpu:3"), "rollout-0": ("gpu:4", "gpu:5"), "reference-0": ("gpu:6", "gpu:6")}
    assert found == {(f"{'group-2-' * second}{name}", devices[second], ("default", "group-2")[second])
                     for name, devices in wanted.items() for second in (0, 1)}, started


def flag(box, service, name):
    """What a service was started with."""
    arguments = pathlib.Path(f"/proc/{box.pid(service)}/cmdline").read_text().split("\0")
    return arguments[arguments.index(name) + 1]


def check_refusals():
    for flags, devices in ((["--device", "cpu,cpu,cpu"], "--device names 3"), (["--trainer-device", "cpu,cpu,cpu"], "--trainer-device names 3"),
                           (["--rollout-device", "cpu"] * 3, "--rollout-device names 3")):
        run = up("--groups", "2", *flags)
        wanted = f"{devices} devices, which cannot be dealt evenly to 2 groups: give a multiple of 2, or one that all share"
        assert run.returncode == 3 and wanted in run.stderr, run
    run = up("--groups", "0")
    assert run.returncode == 2 and "--groups" in run.stderr, run


def main():
    check_refusals()
    check_devices()
    box = Stack("--groups", "2", "--rollouts", "2", "--trainer-device", "cpu,cpu,cpu,cpu", "--lease-seconds", "2", "--threads", "1")
    try:
        actors = json.loads(box.rein("get", "actors", "-o", "json"))["actors"]
        names = {"default": {"trainer-0", "trainer-1", "rollout-0", "rollout-1", "reference-0", "reward-0"}}
        names["group-2"] = {f"group-2-{name}" for name in names["default"]}
        for group, wanted in names.items():
            assert {actor["name"] for actor in actors if actor["group"] == group} == wanted, actors
        assert len(actors) == 12, actors
        assert flag(box, "group-2-trainer-1", "--rank") == "1" and flag(box, "group-2-trainer-1", "--group") == "group-2"
        assert flag(box, "group-2-trainer-0", "--peers") == (box.folder / "home/run/group-2-trainer-1.address").read_text().split()[0]

        for name in ("one", "two"):
            box.submit(DISTURBED_SFT, f"name={name}", "sft.updates=200")
        for name in ("one", "two"):
            box.wait_for_update(name, 3)
        assert [box.job(name)["group"] for name in ("one", "two")] == ["default", "group-2"]
        before, killed = box.pid("trainer-0"), box.pid("group-2-trainer-0")
        os.kill(killed, signal.SIGKILL)
        for name in ("one", "two"):
            box.rein("wait", name, "--timeout", "200")
        assert box.pid("group-2-trainer-0") != killed and box.pid("trainer-0") == before
        assert int(box.job("two")["update"]) == 200
        assert len(box.pids()) == 13, box.pids()  # with the controller
    finally:
        box.down()
    print("two groups by one command, two jobs at once, and a trainer that came back into its group")


main()
