#!/usr/bin/env python3
"""A real Prometheus scrapes a real job: every panel's query is evaluated on it, and every exported metric has a use.

    monitoring_run_test.py BIN_FOLDER
"""
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import monitoring  # noqa: E402
from monitoring import dashboards, filled, names_in, queries, rule_expressions  # noqa: E402

monitoring.skip_without("prometheus", "promtool")
from stack import MODEL, Stack  # noqa: E402

JOB = """name: watched
model: {config: %s}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 40}}
grpo: {updates: 100000, prompts: 16, group_size: 4, max_completion_tokens: 3, kl: {coefficient: 0.01}}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
eval: {every: 10}
checkpoint: {every: 5}
""" % MODEL

# What has no data here, with the reason.
EMPTY = {
    "host": {"Utilisation", "Tensor cores", "Memory", "Power", "Temperature", "XID errors"},  # no DCGM exporter
    "services": {"Calls refused to their caller", "Jobs that ended"},  # nobody is refused, none has ended
}
EMPTY_QUERIES = ("rein_trainer_token_loss",  # of SFT
                 "rein_reference_weight_sync_duration_seconds_bucket",  # its weights came once, before the first scrape
                 'grpc_code!="OK"')  # nothing failed
NOT_HERE = ("rein_trainer_token_loss", "DCGM_", "scrape_", "rein_rpc_refused_total", "rein_trainer_skipped_updates_total",
            "rein_controller_jobs_total")
UNUSED = {line.split()[0] for line in
          (pathlib.Path(__file__).parent / "unused_metrics.txt").read_text().splitlines() if line and line[0] != "#"}


class MonitoringRunTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        cls.addClassCleanup(cls.stack.down)
        cls.admin = json.loads((cls.stack.folder / "home/context.json").read_text())["admin"]
        cls.started = time.time()
        cls.prometheus = monitoring.Prometheus(cls.stack.folder, cls.admin)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.stack.submit(JOB)
        cls.stack.wait_for_update("watched", 25)
        time.sleep(3)  # a few scrapes more

    def get(self, address, path="/metrics"):
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.read().decode()

    def targets(self):
        return {t["labels"]["actor"]: t["targets"][0] for t in json.loads(self.get(self.admin, "/api/targets"))}

    def families(self):
        found = set()
        for address in self.targets().values():
            found |= {line.split()[2] for line in self.get(address).splitlines() if line.startswith("# TYPE")}
        return found

    def test_every_service_is_scraped_and_well_formed(self):
        self.assertEqual(sorted(self.targets()), ["controller", "reference-0", "reward-0", "rollout-0", "trainer-0"])
        # Of some scrape: one may take longer than its second on a busy machine.
        up = self.prometheus.api("query", query='max_over_time(up{job="rein"}[1m])')["result"]
        self.assertEqual({(s["metric"]["actor"], s["value"][1]) for s in up}, {(a, "1") for a in self.targets()})
        for actor, address in self.targets().items():
            run = subprocess.run(["promtool", "check", "metrics"], input=self.get(address), capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, f"{actor}: {run.stdout}{run.stderr}")

    def test_a_scrape_is_quick(self):
        slowest = self.prometheus.api("query", query='max(min_over_time(scrape_duration_seconds{job="rein"}[1m]))')
        self.assertLess(float(slowest["result"][0]["value"][1]), 0.25)

    def test_every_panel_has_data(self):
        empty = {}
        for name, dashboard in dashboards().items():
            for title, expression in queries(dashboard):
                there = self.prometheus.has_data(filled(expression), self.started)
                if not there and title not in EMPTY.get(name, ()) and not any(q in expression for q in EMPTY_QUERIES):
                    empty.setdefault(name, []).append(f"{title}: {expression}")
        self.assertEqual(empty, {})

    def test_every_name_that_is_asked_for_exists(self):
        recorded = {name for name, _ in rule_expressions()}
        known = self.families() | recorded
        asked = {n for d in dashboards().values() for _, e in queries(d) for n in names_in(e)}
        asked |= {n for _, e in rule_expressions() for n in names_in(e)}
        self.assertEqual({n for n in asked - known if not n.startswith(NOT_HERE)}, set())

    def test_every_exported_metric_is_used_or_listed_as_unused(self):
        asked = {n for d in dashboards().values() for _, e in queries(d) for n in names_in(e)}
        asked |= {n for _, e in rule_expressions() for n in names_in(e)}
        self.assertEqual(self.families() - asked - UNUSED, set(), "used nowhere, and not in unused_metrics.txt")
        self.assertEqual(UNUSED & asked, set(), "in unused_metrics.txt, but used")

    def test_a_lost_service_is_alerted(self):
        rules = self.prometheus.api("rules")
        broken = [r["name"] for g in rules["groups"] for r in g["rules"] if r["health"] == "err"]
        self.assertEqual(broken, [])
        firing = [a["labels"]["alertname"] for a in self.prometheus.api("alerts")["alerts"] if a["state"] == "firing"]
        self.assertNotIn("ReinTargetDown", firing)


if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    unittest.main()
