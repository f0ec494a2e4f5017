#!/usr/bin/env python3
"""What operating costs, on this machine: JSON lines.

    operate_bench.py BIN_FOLDER [scrape] [jobs] [paint] [tls] [flood]

scrape  GET /metrics of a controller with 200 actors                            (wants deploy/python installed)
jobs    `rein get jobs`, and the page's list, with 10,000 jobs in the store
paint   the first paint of the page, list and job, in Chromium, with those jobs (wants python3-selenium and Chromium)
tls     processor time of a generator and the controller for the same job, over mutual TLS and without: rollouts of 3 and of 40 tokens
flood   how long one tenant's calls take (over HTTPS) by themselves, and while another tenant calls without end
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from shapes import ROOT, report

JOB = """name: %s
model: {config: %s}
data: {train: %s/data/train.jsonl}
grpo: {updates: %d, prompts: 32, group_size: 8, max_completion_tokens: %d}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
"""
MODEL = ROOT / "configs/models/digits"
PAINT = """
import json, sys
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
options = webdriver.ChromeOptions()
for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"): options.add_argument(flag)
options.binary_location = "/usr/bin/chromium"
browser = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
paints = []
for _ in range(int(sys.argv[2])):
    browser.get("about:blank")
    browser.get(sys.argv[1])
    while not (entries := browser.execute_script("return performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)")): pass
    while browser.execute_script("return document.getElementById('main').textContent") == "Loading": pass
    paints.append([entries[0], browser.execute_script("return performance.now()")])
browser.quit()
print(json.dumps(paints))
"""


def figures(name, seconds, **more):
    ordered = sorted(seconds)
    report(bench=name, cores=os.cpu_count(), load=round(os.getloadavg()[0], 1), times=len(ordered), least_ms=1000 * ordered[0],
           median_ms=1000 * statistics.median(ordered), most_ms=1000 * ordered[-1], **more)


def timed(call, times):
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


class Controller:
    """A controller by itself, over the state in `folder`."""

    def __init__(self, binaries, folder, *flags):
        self.binaries, self.folder = binaries, folder
        addresses = folder / "address"
        addresses.unlink(missing_ok=True)
        self.process = subprocess.Popen([binaries / "rein-controller", "--state", folder / "state", "--address-file", addresses, "--log-file",
                                         folder / "controller.log", *flags])
        while not (addresses.exists() and addresses.read_text().strip()):
            assert self.process.poll() is None, (folder / "controller.log").read_text()[-2000:]
            time.sleep(0.02)
        self.address, self.admin = addresses.read_text().split()
        self.environment = dict(os.environ, REIN_SERVER=self.address, REIN_HOME=str(folder / "home"))

    def rein(self, *command):
        run = subprocess.run([self.binaries / "rein", *command], env=self.environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}") as answer:
            return answer.read()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def scrape(binaries, folder):
    import grpc
    from rein.v1 import controller_pb2 as pb, controller_pb2_grpc

    controller = Controller(binaries, folder, "--lease-seconds", "3600")
    with grpc.insecure_channel(controller.address) as channel:
        stub = controller_pb2_grpc.ControllerServiceStub(channel)
        for i in range(200):
            role = ("rollout", "reference", "reward", "trainer")[min(3, i // 60)]
            stub.Register(pb.RegisterRequest(role=role, name=f"{role}-{i}", address=f"127.0.0.1:{20000 + i}", device="gpu:0", incarnation=str(i),
                                             admin_address=f"127.0.0.1:{30000 + i}"), timeout=10)
    assert len(json.loads(controller.rein("get", "actors", "-o", "json"))["actors"]) == 200
    size = len(controller.get("/metrics"))
    figures("scrape_200_actors", timed(lambda: controller.get("/metrics"), 200), bytes=size)
    figures("page_actors_200", timed(lambda: controller.get("/api/actors"), 100))
    controller.stop()


def many_jobs(binaries, folder, count=10_000):
    """A store in which one job that ended stands so many times."""
    subprocess.run([ROOT / "deploy/make_digits", folder / "data"], check=True)
    (folder / "job.yaml").write_text(JOB % ("digits", MODEL, folder, 60, 3))
    controller = Controller(binaries, folder)
    controller.rein("submit", "-f", folder / "job.yaml")
    controller.rein("cancel", "digits")
    controller.stop()
    with contextlib.closing(sqlite3.connect(folder / "state/controller.db")) as store:
        columns = [row[1] for row in store.execute("PRAGMA table_info(jobs)") if row[1] not in ("id", "name")]
        names = ", ".join(columns)
        store.execute(f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1}) "
                      f"INSERT INTO jobs (name, {names}) SELECT CAST('digits-' || i AS BLOB), {names} FROM jobs, n")
        store.commit()
    return Controller(binaries, folder)


def jobs(binaries, folder, paint):
    controller = many_jobs(binaries, folder)
    lines = controller.rein("get", "jobs", "-o", "name").count("\n")
    assert lines == 10_000, lines
    before = processor_seconds(controller.process.pid), sum(os.times()[2:4])
    walls = timed(lambda: controller.rein("get", "jobs"), 20)
    figures("get_jobs_10000", walls, listed=lines, controller_cpu_ms=1000 * (processor_seconds(controller.process.pid) - before[0]) / len(walls),
            command_cpu_ms=1000 * (sum(os.times()[2:4]) - before[1]) / len(walls))
    figures("page_list_10000", timed(lambda: controller.get("/api/jobs?limit=100"), 50))
    if paint:
        for what in ("#/", "#/job/digits"):
            run = subprocess.run(["/usr/bin/python3", "-c", PAINT, f"http://{controller.admin}/{what}", "10"], capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            paints = json.loads(run.stdout)
            figures("first_paint", [first / 1000 for first, _ in paints], page=what, content_ms=statistics.median(done for _, done in paints))
    controller.stop()


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tls(binaries, folder):
    for tokens, updates in ((3, 60), (40, 12)):
        mutual_tls(binaries, folder, tokens, updates)


def mutual_tls(binaries, folder, tokens, updates):
    subprocess.run([ROOT / "deploy/make_digits", folder / "data"], check=True)
    environment = dict(os.environ, REIN_HOME=str(folder / "home"))
    environment.pop("REIN_SERVER", None)

    def rein(*command):
        run = subprocess.run([binaries / "rein", *command], env=environment, cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"

    if not (folder / "certs").exists():
        rein("certs", "init", "--dir", "certs")
    used = {}
    for turn in range(3):
        for kind, flags in (("plain", []), ("mtls", ["--tls", "certs"])):
            rein("up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--references", "0", *flags)
            pids = {name: int((folder / f"home/run/{name}.pid").read_text()) for name in ("controller", "rollout-0")}
            name = f"{kind}-{tokens}-{turn}"
            (folder / "job.yaml").write_text(JOB % (name, MODEL, folder, updates, tokens))
            before = {role: processor_seconds(pid) for role, pid in pids.items()}
            rein("submit", "-f", "job.yaml")
            rein("wait", name, "--timeout", "500")
            for role, pid in pids.items():
                used.setdefault((kind, role), []).append(processor_seconds(pid) - before[role])
            rein("down")
    for role in ("controller", "rollout-0"):
        plain, mutual = (min(used[kind, role]) for kind in ("plain", "mtls"))
        report(bench="mtls", role=role, rollouts=updates * 256, tokens=tokens, plain_cpu_seconds=used["plain", role], mtls_cpu_seconds=used["mtls", role],
               cost_percent=100 * (mutual / plain - 1))


FLOOD = """
import http.client, ssl, sys
host, ca, token = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
while True:
    line = http.client.HTTPSConnection(host, context=context)
    try:
        for _ in range(1000):
            line.request("GET", "/api/jobs?limit=100", headers={"Authorization": "Bearer " + token})
            line.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass
"""


def flood(binaries, folder):
    def rein(*command):
        return subprocess.run([binaries / "rein", *command], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    rein("certs", "init", "--dir", "certs")
    tokens = {user: rein("token", "add", user, "--role", "viewer", "--tenant", user, "--file", "tokens.json") for user in ("ada", "bob")}
    controller = Controller(binaries, folder, "--tls", folder / "certs/controller", "--tokens", folder / "tokens.json")
    ca = folder / "certs/ca.crt"
    line = http.client.HTTPSConnection(controller.admin, context=ssl.create_default_context(cafile=ca))

    def call():
        line.request("GET", "/api/jobs?limit=100", headers={"Authorization": "Bearer " + tokens["ada"]})
        answer = line.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        time.sleep(0.02)

    for flooders in (0, 2):
        others = [subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", FLOOD, controller.admin, ca, tokens["bob"]]) for _ in range(flooders)]
        time.sleep(2)
        before = processor_seconds(controller.process.pid)
        seconds = [one - 0.02 for one in timed(call, 500)]
        used = processor_seconds(controller.process.pid) - before
        for other in others:
            other.kill()
            other.wait()
        figures("one_tenant_beside_a_flood" if flooders else "one_tenant_alone", seconds, p99_ms=1000 * sorted(seconds)[len(seconds) * 99 // 100],
                controller_cpu_seconds=used)
    controller.stop()


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("bin", type=pathlib.Path)
    flags.add_argument("parts", nargs="*", default=["scrape", "jobs", "paint", "tls", "flood"],
                       choices=["scrape", "jobs", "paint", "tls", "flood", []])
    args = flags.parse_args()
    binaries = args.bin.resolve()
    for part, call in (("scrape", scrape), ("jobs", lambda b, f: jobs(b, f, "paint" in args.parts)), ("tls", tls), ("flood", flood)):
        if part in args.parts or (part == "jobs" and "paint" in args.parts):
            with tempfile.TemporaryDirectory() as folder:
                call(binaries, pathlib.Path(folder))


main()
