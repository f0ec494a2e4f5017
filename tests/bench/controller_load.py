#!/usr/bin/env python3
"""A real controller beside actors that compute nothing, over gRPC on loopback: one JSON line.

    controller_load.py BIN_FOLDER IDLE_ACTORS [--rollouts 10000] [--updates 4] [--seconds 2] [--tokens 256]

BIN_FOLDER has rein and rein-controller; IDLE_ACTORS is build/dev/tests/bench/idle_actors.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

from shapes import ROOT, report

GROUP_SIZE = 8


def wait_for(path):
    for _ in range(200):
        if path.exists() and path.read_text().strip():
            return path.read_text().split()[0]
        time.sleep(0.05)
    raise RuntimeError(f"{path} did not come")


def controller_use(pid):
    """Peak memory in MB, and processor seconds."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024
    return peak, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("bin", type=pathlib.Path)
    flags.add_argument("idle_actors", type=pathlib.Path)
    flags.add_argument("--rollouts", type=int, default=10000)
    flags.add_argument("--updates", type=int, default=4)
    flags.add_argument("--seconds", type=float, default=2)
    flags.add_argument("--tokens", type=int, default=256)
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        prompts = args.rollouts // GROUP_SIZE
        row = json.dumps({"prompt": [{"role": "user", "content": "max(1,2,3,4,5)"}], "answer": "5"})
        (folder / "train.jsonl").write_text((row + "\n") * prompts)
        (folder / "job.yaml").write_text(
            f"name: load\nmodel: {{config: {ROOT / 'configs/models/digits'}}}\ndata: {{train: train.jsonl}}\n"
            f"grpo: {{updates: {args.updates}, prompts: {prompts}, group_size: {GROUP_SIZE}, max_completion_tokens: 8}}\n"
            "rewards: [{exact_match: {}}]\n")
        controller = subprocess.Popen([args.bin / "rein-controller", "--state", folder / "state", "--address-file",
                                       folder / "address", "--log-file", folder / "controller.log"])
        address = wait_for(folder / "address")
        actors = subprocess.Popen([args.idle_actors, "--controller", address, "--seconds", str(args.seconds), "--tokens",
                                   str(args.tokens)], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        environment = dict(os.environ, REIN_SERVER=address, REIN_HOME=str(folder / "home"))
        began = time.time()
        try:
            for command in (["submit", "-f", folder / "job.yaml"], ["wait", "load", "--timeout", "900"]):
                run = subprocess.run([args.bin / "rein", *command], env=environment, capture_output=True, text=True)
                assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}{(folder / 'controller.log').read_text()[-2000:]}"
            seconds = time.time() - began
            peak, computed = controller_use(controller.pid)
        finally:
            actors.terminate()
            figures, _ = actors.communicate(timeout=30)
            controller.terminate()
            controller.wait(30)
    figures = json.loads(figures)
    report(bench="controller_load", cores=os.cpu_count(), load=os.getloadavg()[0], completion_tokens=args.tokens, updates=args.updates,
           **figures, seconds=seconds, controller_cpu_ms_per_rollout=1000 * computed / figures["rollouts"],
           controller_peak_rss_mb=peak)


main()
