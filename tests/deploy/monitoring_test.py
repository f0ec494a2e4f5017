#!/usr/bin/env python3
"""Checks rules, alerts and dashboards by themselves: no service runs.

    monitoring_test.py BIN_FOLDER
"""
import copy
import re
import subprocess
import sys
import tempfile
import unittest

import monitoring
from monitoring import GRAFANA, PROMETHEUS, dashboards, names_in, queries, rule_expressions

monitoring.skip_without("promtool")
import yaml  # noqa: E402

UNITS = {"short", "percentunit", "percent", "s", "bytes", "Bps", "reqps", "decmbytes", "watt", "celsius"}


def problems_of(dashboard):
    """What Grafana's own linter would say, and a little more."""
    for key in ("id", "__inputs", "__requires"):
        if key in dashboard:
            yield f"has {key}"
    if not re.fullmatch(r"[a-z-]{3,40}", dashboard.get("uid", "")):
        yield "has no fixed uid"
    if dashboard.get("schemaVersion", 0) < 39 or dashboard.get("graphTooltip") != 1 or dashboard.get("editable"):
        yield "schemaVersion, graphTooltip or editable"
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        yield "has no variable for the data source"
    if any(v.get("refresh") != 2 for n, v in variables.items() if n != "datasource"):
        yield "a variable does not follow the time range"
    ids, places = [], []
    for panel in dashboard["panels"]:
        where = panel["title"]
        ids.append(panel["id"])
        grid = panel["gridPos"]
        places += [(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])]
        if grid["x"] + grid["w"] > 24:
            yield f"{where}: wider than the page"
        if panel["type"] == "row":
            continue
        if not panel.get("description", "").endswith("."):
            yield f"{where}: no description"
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield f"{where}: no unit"
        if panel["options"]["legend"]["calcs"] != ["lastNotNull", "max"]:
            yield f"{where}: no figures in the legend"
        for target in panel["targets"]:
            if target["datasource"]["uid"] != "${datasource}":
                yield f"{where}: a fixed data source"
            if re.search(r"(rate|increase)\([^[]*\[(?!\$__rate_interval|15m|2h)", target["expr"]):
                yield f"{where}: a rate without $__rate_interval"
            for name in re.findall(r"\$\{?(\w+)", target["expr"]):
                if name not in variables and name != "__rate_interval":
                    yield f"{where}: no variable {name}"
            if "{{" not in target["legendFormat"] and len(panel["targets"]) == 1 and " by (" in target["expr"] and "le" not in target["expr"]:
                yield f"{where}: a legend that does not tell series apart"
    if len(ids) != len(set(ids)):
        yield "two panels with one id"
    if len(places) != len(set(places)):
        yield "panels lie over each other"


class MonitoringTest(unittest.TestCase):
    def tool(self, *arguments, code=0, **options):
        run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, **options)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run.stdout + run.stderr

    def test_configs_and_rules_are_valid(self):
        self.tool("check", "config", PROMETHEUS / "prometheus.yml")
        rules = sorted((PROMETHEUS / "rules").glob("*.yaml"))
        self.assertEqual(len(rules), 2)
        self.tool("check", "rules", *rules)

    def test_the_config_for_kubernetes(self):
        """Debian's Prometheus is built without Kubernetes discovery: another one stands in its place here."""
        config = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())
        scrape = config["scrape_configs"][0]
        self.assertEqual(scrape.pop("kubernetes_sd_configs"), [{"role": "pod", "namespaces": {"names": ["rein"]}}])
        scrape["file_sd_configs"] = [{"files": ["pods.json"]}]
        with tempfile.TemporaryDirectory() as folder:
            for name in ("ca.crt", "tls.crt", "tls.key"):
                open(f"{folder}/{name}", "w").close()
            text = yaml.safe_dump(config).replace("/etc/prometheus/rein-tls", folder).replace("rules/", f"{PROMETHEUS}/rules/")
            path = f"{folder}/config.yml"
            with open(path, "w") as file:
                file.write(text)
            self.tool("check", "config", "--syntax-only", path)

    def test_every_alert_fires_and_does_not(self):
        self.tool("test", "rules", PROMETHEUS / "rules/tests/alerts_test.yaml")
        tests = yaml.safe_load((PROMETHEUS / "rules/tests/alerts_test.yaml").read_text())["tests"]
        fired = {check["alertname"] for test in tests for check in test["alert_rule_test"] if check["exp_alerts"]}
        alerts = {name for name, _ in rule_expressions() if ":" not in name}
        self.assertEqual(fired, alerts)
        for test in tests:  # and something in each test does not
            for check in test["alert_rule_test"]:
                self.assertTrue(len(test["input_series"]) > len(check["exp_alerts"]), test["name"])

    def test_every_alert_has_labels_and_a_runbook(self):
        readme = (PROMETHEUS / "README.md").read_text()
        sections = {line[4:].strip() for line in readme.splitlines() if line.startswith("### ")}
        alerts = yaml.safe_load((PROMETHEUS / "rules/alerts.yaml").read_text())["groups"][0]["rules"]
        self.assertGreaterEqual(len(alerts), 18)
        self.assertEqual(sections, {alert["alert"] for alert in alerts})
        for alert in alerts:
            self.assertIn(alert["labels"]["severity"], ("warning", "critical"))
            self.assertEqual(alert["annotations"]["runbook_url"], f"deploy/prometheus/README.md#{alert['alert'].lower()}")
            self.assertTrue(alert["annotations"]["summary"] and alert["annotations"]["description"].endswith("."))

    def test_recorded_names_say_level_metric_and_operation(self):
        for name, _ in rule_expressions():
            if ":" in name:
                self.assertRegex(name, r"^[a-z_]+:[a-z_]+:[a-z0-9]+$")

    def test_generated_files_are_what_their_sources_say(self):
        for script in (GRAFANA / "make_dashboards", PROMETHEUS / "make_rule_object"):
            run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)

    def test_dashboards_are_clean(self):
        found = dashboards()
        self.assertEqual(sorted(found), ["host", "rollout", "services", "training"])
        for name, dashboard in found.items():
            self.assertEqual(list(problems_of(dashboard)), [], name)
        self.assertEqual(len({d["uid"] for d in found.values()}), 4)

    def test_the_linter_finds_what_it_is_for(self):
        def broken(change):
            dashboard = copy.deepcopy(dashboards()["training"])
            change(dashboard)
            return list(problems_of(dashboard))

        panel = lambda d: d["panels"][1]
        for change in (lambda d: d.update(id=3), lambda d: d.pop("uid"), lambda d: d.update(editable=True),
                       lambda d: d["templating"]["list"].pop(0), lambda d: panel(d).update(description=""),
                       lambda d: panel(d)["fieldConfig"]["defaults"].pop("unit"),
                       lambda d: panel(d)["targets"][0]["datasource"].update(uid="abc"),
                       lambda d: panel(d)["targets"][0].update(expr="rate(rein_x_total[5m])"),
                       lambda d: panel(d)["targets"][0].update(expr='rein_x{a="$nothing"}'),
                       lambda d: panel(d)["gridPos"].update(x=20), lambda d: panel(d).update(id=1)):
            self.assertNotEqual(broken(change), [])

    def test_every_query_is_promql(self):
        """promtool reads each query as if it were a rule."""
        rules = [{"record": "x:y:z", "expr": monitoring.filled(expression)}
                 for dashboard in dashboards().values() for _, expression in queries(dashboard)]
        self.assertGreater(len(rules), 70)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            # Each in a group of its own: equal names are no error then.
            yaml.safe_dump({"groups": [{"name": f"q{i}", "rules": [rule]} for i, rule in enumerate(rules)]}, file)
            file.flush()
            self.tool("check", "rules", "--lint=none", file.name)

    def test_names_are_found_in_expressions(self):
        self.assertEqual(names_in('sum by (rl_job) (rate(rein_a_total{rl_job="b"}[5m])) / rein_c_seconds_sum'),
                         {"rein_a_total", "rein_c_seconds"})
        self.assertEqual(names_in('increase({__name__=~"rein_(a|b)_total"}[15m]) > 0'), {"rein_a_total", "rein_b_total"})


if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    unittest.main()
