#!/usr/bin/env python3
"""Carries figures to a real MLflow server on loopback and to W&B's offline files: once each, after restarts and crashes too.

    sinks_test.py BIN_FOLDER
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from python_environment import ROOT, start_again  # noqa: F401

start_again("sinks", "mlflow==3.17.2", "wandb==0.31.0")  # this file, where they are

from mlflow import MlflowClient  # noqa: E402

from rein import sinks  # noqa: E402
from ports import free_port  # noqa: E402
from stack import MODEL, Stack  # noqa: E402

OFFLINE = dict(os.environ, WANDB_SILENT="true", MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", DO_NOT_TRACK="true", PYTHONWARNINGS="ignore")


def run(*arguments, code=0):
    done = subprocess.run([sys.executable, "-m", "rein.sinks", *map(str, arguments)], capture_output=True, text=True, env=OFFLINE, timeout=200)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def update(number, **figures):
    return json.dumps({"update": number, "time": 1700000000 + number, **figures}) + "\n"


class FilesTest(unittest.TestCase):
    """What is read of a job's files."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name) / "job"
        self.folder.mkdir()

    def write(self, file, text):
        with (self.folder / file).open("a") as out:
            out.write(text)

    def test_only_whole_lines_are_read_and_each_once(self):
        source = sinks.Source(str(self.folder))
        self.assertIsNone(source.run_key())
        self.assertEqual(source.after(sinks.Places()), [])
        self.write("metrics.jsonl", update(1, reward=0.5, loss=None, note="x", ok=True) + '{"update": 2, "ti')
        (first,) = source.after(sinks.Places())
        self.assertEqual((first.update, first.figures), (1, {"reward": 0.5}))
        self.write("metrics.jsonl", 'me": 1700000002, "reward": 1}\n')
        (second,) = source.after(sinks.Places().behind(first))
        self.assertEqual((second.update, second.figures), (2, {"reward": 1.0}))
        self.assertEqual(source.after(sinks.Places().behind(first).behind(second)), [])

    def test_held_out_figures_have_tensorboards_names(self):
        self.write("evals.jsonl", json.dumps({"update": 0, "time": 1, "prompts": 20, "accuracy": 0.25, "standard_error": 0.1, "parts": {"exact": 0.25},
                                              "slices": [{"dataset": "eval", "setting": "", "prompts": 20, "samples": 2, "pass_at_2": 0.5, "confidence": [0, 1]},
                                                         {"dataset": "hard", "setting": "hot", "prompts": 5, "samples": 1, "accuracy": 0.1}]}) + "\n")
        (line,) = sinks.Source(str(self.folder)).after(sinks.Places())
        self.assertEqual(line.figures, {"eval/accuracy": 0.25, "eval/standard_error": 0.1, "eval/exact": 0.25, "eval/pass_at_2": 0.5,
                                        "eval/hard/hot/accuracy": 0.1})

    def test_files_are_merged_by_time_and_a_run_has_one_name(self):
        source = sinks.Source(str(self.folder))
        self.write("evals.jsonl", json.dumps({"update": 0, "time": 1700000000.5, "accuracy": 0.1}) + "\n")
        key = source.run_key()
        self.write("metrics.jsonl", update(1, reward=1) + update(2, reward=2))
        self.write("evals.jsonl", json.dumps({"update": 1, "time": 1700000001.5, "accuracy": 0.2}) + "\n")
        self.assertEqual([(line.file, line.update) for line in source.after(sinks.Places())], [("evals", 0), ("metrics", 1), ("evals", 1), ("metrics", 2)])
        self.assertEqual(source.run_key(), key)
        (self.folder / "evals.jsonl").unlink()
        self.assertNotEqual(source.run_key(), key, "begun another time")

    def test_a_config_becomes_names_and_values(self):
        self.assertEqual(sinks.flat({"grpo": {"kl": {"coefficient": 0.1}, "empty": {}}, "rewards": [{"a": 1}]}),
                         {"grpo.kl.coefficient": 0.1, "grpo.empty": {}, "rewards": [{"a": 1}]})
        self.assertEqual(sinks.flat({}), {})

    def test_a_job_that_is_not_there_is_told(self):
        said = run("mlflow", self.folder / "nothing", "--uri", f"sqlite:///{self.folder}/x.db", "--once", code=1)
        self.assertIn("is no folder, and no job that can be asked for", said)


class MlflowTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        port = free_port()
        cls.uri = f"http://127.0.0.1:{port}"
        log = (cls.folder / "server.log").open("w")
        cls.addClassCleanup(log.close)
        server = subprocess.Popen([sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri",
                                   f"sqlite:///{cls.folder}/mlflow.db", "--default-artifact-root", str(cls.folder / "artifacts")],
                                  stdout=log, stderr=log, env=OFFLINE, start_new_session=True)
        cls.addClassCleanup(lambda: (os.killpg(server.pid, signal.SIGKILL), server.wait()))
        deadline = time.time() + 120
        while True:
            try:
                urllib.request.urlopen(cls.uri + "/health", timeout=2).read()
                break
            except OSError:
                assert time.time() < deadline and server.poll() is None, (cls.folder / "server.log").read_text()[-2000:]
                time.sleep(0.3)
        cls.client = MlflowClient(cls.uri)

    def run_of(self, job):
        (found,) = self.runs_of(job)
        return found

    def runs_of(self, job):
        experiment = self.client.get_experiment_by_name("rein")
        return self.client.search_runs([experiment.experiment_id], f"tags.`rein.job` = '{job}'") if experiment else []

    def history(self, job, figure):
        return [(m.step, m.value) for m in self.client.get_metric_history(self.run_of(job).info.run_id, figure)]

    def test_lines_come_once_however_often_it_is_started(self):
        job = self.folder / "lines"
        job.mkdir()
        (job / "metrics.jsonl").write_text("".join(update(u, **{"reward/a b": u / 10}) for u in range(1, 4)) + '{"upd')
        run("mlflow", job, "--uri", self.uri, "--once")
        run("mlflow", job, "--uri", self.uri, "--once")
        self.assertEqual(self.history("lines", "reward/a b"), [(1, 0.1), (2, 0.2), (3, 0.3)])
        with (job / "metrics.jsonl").open("a") as out:
            out.write('ate": 4, "time": 1700000004, "reward/a b": 0.4}\n')
        # As after a crash between the figures and the place.
        self.client.set_tag(self.run_of("lines").info.run_id, "rein.sinks.metrics", "0")
        run("mlflow", job, "--uri", self.uri, "--once")
        self.assertEqual(self.history("lines", "reward/a b"), [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)])
        # Trained on again after a restore: a new line is a new point.
        with (job / "metrics.jsonl").open("a") as out:
            out.write(json.dumps({"update": 4, "time": 1700000009, "reward/a b": 0.45}) + "\n")
        run("mlflow", job, "--uri", self.uri, "--once")
        self.assertEqual(self.history("lines", "reward/a b")[-2:], [(4, 0.4), (4, 0.45)])
        # Deleted, and submitted again under the name.
        (job / "metrics.jsonl").write_text(json.dumps({"update": 1, "time": 1800000000, "reward/a b": 7}) + "\n")
        run("mlflow", job, "--uri", self.uri, "--once")
        self.assertEqual(sorted(r.data.metrics["reward/a b"] for r in self.runs_of("lines")), [0.45, 7])

    def test_a_long_file_and_one_that_is_killed(self):
        job = self.folder / "long"
        job.mkdir()
        (job / "metrics.jsonl").write_text("".join(update(u, **{f"figure_{i}": u + i / 8 for i in range(8)}) for u in range(1, 501)))
        command = [sys.executable, "-m", "rein.sinks", "mlflow", str(job), "--uri", self.uri, "--poll-seconds", "0.1"]
        def start():
            process = subprocess.Popen(command, env=OFFLINE, stdout=subprocess.DEVNULL)
            self.addCleanup(lambda: (process.kill(), process.wait()))
            return process

        first = start()
        deadline = time.time() + 60
        while time.time() < deadline and not (self.runs_of("long") and self.history("long", "figure_0")):
            time.sleep(0.02)  # in the midst of it, as far as that can be met
        first.kill()
        first.wait()
        second = start()
        with (job / "metrics.jsonl").open("a") as out:
            out.write(update(501, figure_0=501))
        while time.time() < deadline + 60 and len(self.history("long", "figure_0")) < 501:
            time.sleep(0.2)
        second.terminate()
        self.assertEqual(second.wait(30), 0)
        self.assertEqual(self.history("long", "figure_0"), [(u, u) for u in range(1, 502)])
        self.assertEqual(len(self.history("long", "figure_7")), 500)
        self.assertEqual(self.run_of("long").info.status, "FINISHED")

    def test_a_real_job_from_its_beginning_to_its_end(self):
        stack = Stack("--references", "0")
        self.addCleanup(stack.down)
        job = """name: carried
model: {config: %s}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 20}}
grpo: {updates: 6, prompts: 8, group_size: 4, max_completion_tokens: 3}
rewards: [{exact_match: {}}]
eval: {every: 3}
""" % MODEL
        stack.submit(job)
        done = subprocess.run([sys.executable, "-m", "rein.sinks", "mlflow", "carried", "--uri", self.uri, "--poll-seconds", "0.2"], capture_output=True,
                              text=True, timeout=200, env=dict(OFFLINE, REIN_HOME=stack.environment["REIN_HOME"]))
        self.assertEqual(done.returncode, 0, done.stderr)
        found = self.run_of("carried")
        self.assertEqual((found.info.status, found.info.run_name, found.data.params["grpo.group_size"]), ("FINISHED", "carried", "4"))
        lines = stack.metrics("carried")
        self.assertEqual(len(lines), 6)
        for figure in ("reward", "entropy", "grad_norm", "train_seconds"):
            self.assertEqual(self.history("carried", figure), [(line["update"], line[figure]) for line in lines], figure)
        evals = [json.loads(line) for line in (pathlib.Path(stack.job("carried")["output"]) / "evals.jsonl").read_text().splitlines()]
        self.assertEqual(self.history("carried", "eval/accuracy"), [(e["update"], e["accuracy"]) for e in evals])
        self.assertEqual([e["update"] for e in evals], [0, 3, 6])


def records_of(data):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format, in blocks of 32 KiB."""
    assert data[:4] == b":W&B", data[:7]
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        part, at = data[at + 7:at + 7 + size], at + 7 + size
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole


class WandbTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.job = self.folder / "lines"
        self.job.mkdir()
        self.state = self.folder / "state"

    def carry(self):
        run("wandb", self.job, "--offline", "--once", "--state", self.state)

    def written(self):
        """(run id, its rows) of every offline run, oldest first."""
        from wandb.proto import wandb_internal_pb2 as pb

        runs = []
        for path in sorted((self.state / "wandb").glob("offline-run-*/run-*.wandb")):
            identity, rows, exits = None, [], []
            for data in records_of(path.read_bytes()):
                record = pb.Record()
                record.ParseFromString(data)
                if record.HasField("run"):
                    identity = (record.run.run_id, record.run.display_name, record.run.project)
                if record.HasField("history"):
                    rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
                if record.HasField("exit"):
                    exits.append(record.exit.exit_code)
            runs.append((identity, rows, exits))
        return runs

    def test_lines_come_once_however_often_it_is_started(self):
        (self.job / "metrics.jsonl").write_text(update(1, reward=0.1) + update(2, reward=0.2) + '{"upd')
        self.carry()
        self.carry()
        with (self.job / "metrics.jsonl").open("a") as out:
            out.write('ate": 3, "time": 1700000003, "reward": 0.3}\n')
        (self.job / "evals.jsonl").write_text(json.dumps({"update": 3, "time": 1700000004, "accuracy": 0.5}) + "\n")
        self.carry()
        runs = self.written()
        self.assertEqual(len(runs), 3)
        self.assertEqual({identity for identity, _, _ in runs}, {(sinks.Source(str(self.job)).run_key(), "lines", "rein")}, "one run, joined by its id")
        rows = [row for _, rows, _ in runs for row in rows]
        self.assertEqual([(r["update"], r.get("reward"), r.get("eval/accuracy")) for r in rows], [(1, 0.1, None), (2, 0.2, None), (3, 0.3, None), (3, None, 0.5)])
        self.assertEqual([r["_timestamp"] for r in rows], [1700000001, 1700000002, 1700000003, 1700000004])
        self.assertEqual([exits for _, _, exits in runs], [[0], [0], [0]])

    def test_another_job_of_the_name_is_another_run(self):
        (self.job / "metrics.jsonl").write_text(update(1, reward=0.1))
        self.carry()
        shutil.rmtree(self.job)
        self.job.mkdir()
        (self.job / "metrics.jsonl").write_text(json.dumps({"update": 1, "time": 1800000000, "reward": 7}) + "\n")
        self.carry()
        (first, rows, _), (second, others, _) = self.written()
        self.assertNotEqual(first[0], second[0])
        self.assertEqual([r["reward"] for r in rows + others], [0.1, 7])

    def test_two_jobs_want_two_processes(self):
        self.assertIn("one run in a process", run("wandb", "a", "b", code=2))


if __name__ == "__main__":
    unittest.main(argv=["sinks_test.py"])
