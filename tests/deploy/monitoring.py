"""Dashboards, rules and a Prometheus of one's own, for the tests of deploy/prometheus and deploy/grafana."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from ports import free_port  # noqa: E402

GRAFANA = ROOT / "deploy/grafana"
PROMETHEUS = ROOT / "deploy/prometheus"
SKIPPED = 77
NAME = re.compile(r"(?<![\w:.\"$])((?:rein|grpc|process|rl_job|rl_job_phase|reward|scrape|DCGM)[\w:]*)(?=[{\[ )]|$)", re.MULTILINE)
WORDS = {"rl_job", "reward", "grpc_method", "grpc_code", "grpc_service"}


def skip_without(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        print(f"SKIPPED: monitoring was NOT checked: {' and '.join(missing)} missing (apt-get install prometheus)", file=sys.stderr)
        sys.exit(SKIPPED)


def dashboards():
    return {path.stem: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))}


def queries(dashboard):
    """(panel title, expression) of every target."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def filled(expression):
    """An expression as Grafana would send it."""
    expression = expression.replace("$__rate_interval", "30s")
    return re.sub(r"\$\{?(rl_job|actor)\}?", ".*", expression)


def rule_expressions():
    import yaml
    for path in sorted((PROMETHEUS / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]


def names_in(expression):
    """Metric names, without the suffixes of histograms."""
    text = re.sub(r"by \([^)]*\)|on \([^)]*\)|group_left \([^)]*\)", " ", expression)
    text = re.sub(r'\{__name__=~"([^"]*)"\}', lambda m: " ".join(expanded(m[1])), text)
    text = re.sub(r"\{[^}]*\}", "{}", text)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text) if name not in WORDS}


def expanded(pattern):
    """The names that "a_(b|c)_d" stands for."""
    found = re.fullmatch(r"(\w*)\(([\w|]*)\)(\w*)", pattern)
    return [found[1] + part + found[3] for part in found[2].split("|")] if found else [pattern]


class Prometheus:
    """A real server that scrapes what a controller names, with the rules of deploy/prometheus."""

    def __init__(self, folder, admin, headers=""):
        self.address = f"127.0.0.1:{free_port()}"
        config = (PROMETHEUS / "prometheus.yml").read_text()
        config = config.replace("http://127.0.0.1:7080/api/targets", f"http://{admin}/api/targets")
        config = config.replace("10s", "1s").replace("rules/*.yaml", f"{PROMETHEUS}/rules/*.yaml")
        (folder / "prometheus.yml").write_text(config)
        self.log = open(folder / "prometheus.log", "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address={self.address}"], stdout=self.log, stderr=self.log)
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2).read()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise AssertionError((folder / "prometheus.log").read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)
        self.log.close()

    def api(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def has_data(self, expression, start):
        """Whether a range query over the run gives a point that is a number."""
        answer = self.api("query_range", query=expression, start=start, end=time.time(), step="1s")
        return any(value != "NaN" for series in answer["result"] for _, value in series["values"])
