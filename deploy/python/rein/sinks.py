"""Carries the figures of jobs to MLflow or Weights & Biases: python -m rein.sinks mlflow|wandb JOB...

    python -m rein.sinks mlflow grpo-digits other-job --uri http://127.0.0.1:5000
    python -m rein.sinks wandb grpo-digits --project rein --offline

JOB is the name of a job of the controller that rein.connect() finds, or a folder with metrics.jsonl. A job's run there has its config, the
figures of each update, and those of held-out data as eval/...; it ends with the job (a folder is followed until SIGTERM; --once: to the end of
what is written). Started again, it goes on where it was: with MLflow the place stands in the run's tags, with W&B in STATE/JOB.json beside
W&B's own files (one job for each process). An update that was trained on again after a restore is a new line, and so a new point.
"""
from __future__ import annotations

import argparse
import dataclasses
import hashlib
import heapq
import json
import math
import pathlib
import re
import signal
import sys
import threading
from typing import Any, Iterator, Protocol

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Line:
    """What one line of a file tells."""

    file: str  # metrics or evals
    end: int  # where it ends there
    update: int
    seconds: float  # since 1970
    figures: Figures


@dataclasses.dataclass(frozen=True)
class Places:
    """How many bytes of each file were carried over."""

    metrics: int = 0
    evals: int = 0

    def behind(self, line: Line) -> Places:
        return dataclasses.replace(self, **{line.file: max(line.end, getattr(self, line.file))})


def complete_lines(path: pathlib.Path, begin: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(end, object) of each line from byte `begin` on; a line that is still being written waits."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(begin)
        for line in file:
            if not line.endswith(b"\n"):
                return
            begin += len(line)
            yield begin, json.loads(line)


def numbers(values: dict[str, Any], prefix: str = "") -> Figures:
    """The finite numbers of an object."""
    return {prefix + name: float(value) for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)}


def of_update(row: dict[str, Any]) -> Figures:
    return {k: v for k, v in numbers(row).items() if k not in ("update", "time")}


def of_eval(row: dict[str, Any]) -> Figures:
    """Names are those in TensorBoard: the first slice's without its name."""
    figures = {k: v for k, v in numbers(row, "eval/").items() if k not in ("eval/update", "eval/time", "eval/prompts")}
    figures |= numbers(row.get("parts", {}), "eval/")
    for i, part in enumerate(row.get("slices", [])):
        name = "/".join(filter(None, ["eval", part.get("dataset"), part.get("setting")])) if i else "eval"
        figures |= {k: v for k, v in numbers(part, name + "/").items() if not k.endswith(("/prompts", "/samples", "/tokens"))}
    return figures


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if isinstance(values, dict) and values:
        return {k: v for name, inner in values.items() for k, v in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: values} if prefix else {}


class Sink(Protocol):
    """A job's run elsewhere."""

    places: Places  # of what is there already

    def put(self, lines: list[Line]) -> None:
        """And moves `places` behind them."""

    def end(self, succeeded: bool) -> None: ...


class Source:
    """A job's files; `done()` tells whether it ended, and well: None while it runs."""

    def __init__(self, job: str) -> None:
        self.config: dict[str, Any] = {}
        self._client, self.folder = None, pathlib.Path(job)
        if self.folder.is_dir():
            self.name = self.folder.resolve().name
            return
        import grpc
        from google.protobuf.json_format import MessageToDict

        import rein
        try:
            self._client = rein.connect()
            found = self._client.get(job)
        except (grpc.RpcError, OSError) as error:
            told = error.details() if isinstance(error, grpc.RpcError) else str(error)
            raise SystemExit(f"rein.sinks: {job} is no folder, and no job that can be asked for: {told}") from error
        self.name, self.folder = found.name, pathlib.Path(found.output)
        self.config = MessageToDict(found.config, preserving_proto_field_name=True)

    def done(self) -> bool | None:
        if self._client is None:
            return None
        from rein.v1 import controller_pb2 as pb
        state = self._client.get(self.name).state
        return None if state < pb.JOB_STATE_SUCCEEDED else state == pb.JOB_STATE_SUCCEEDED

    def run_key(self) -> str | None:
        """Names the run: a job of the same name that began another time has another. None before the first line."""
        firsts = [next(complete_lines(self.folder / file, 0), None) for file in ("metrics.jsonl", "evals.jsonl")]
        began = min((row["time"] for _, row in filter(None, firsts)), default=None)
        return None if began is None else hashlib.sha256(f"{self.name} {began}".encode()).hexdigest()[:16]

    def after(self, places: Places) -> list[Line]:
        """What was written since, by time; lines of one file in their order."""
        found: list[list[Line]] = []
        for file, read in (("metrics", of_update), ("evals", of_eval)):
            found.append([Line(file, end, row["update"], row["time"], read(row))
                          for end, row in complete_lines(self.folder / f"{file}.jsonl", getattr(places, file))])
        return list(heapq.merge(*found, key=lambda line: line.seconds))


class MlflowSink:
    """Keeps its place in tags of the run, written with the figures."""

    TAG, MOST_FIGURES, MOST_PARAMS, MOST_TEXT = "rein.sinks.", 900, 100, 500

    def __init__(self, source: Source, key: str, uri: str | None, experiment: str) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(experiment)
        where = found.experiment_id if found else self._client.create_experiment(experiment)
        runs = self._client.search_runs([where], f"tags.`{self.TAG}key` = '{key}'", max_results=1)
        run = runs[0] if runs else self._client.create_run(where, run_name=source.name, tags={self.TAG + "key": key, "rein.job": source.name})
        self._run = run.info.run_id
        self._client.set_terminated(self._run, "RUNNING")
        tags = run.data.tags
        self.places = Places(*(int(tags.get(self.TAG + file, 0)) for file in ("metrics", "evals")))
        params = [Param(k, str(v)[:self.MOST_TEXT]) for k, v in flat(source.config).items() if k not in run.data.params]
        for i in range(0, len(params), self.MOST_PARAMS):
            self._client.log_batch(self._run, params=params[i:i + self.MOST_PARAMS])

    def put(self, lines: list[Line]) -> None:
        from mlflow.entities import Metric, RunTag

        figures = [Metric(re.sub(r"[^\w\-. :/]", "_", name), value, int(line.seconds * 1000), line.update) for line in lines for name, value in line.figures.items()]
        for line in lines:
            self.places = self.places.behind(line)
        # The place comes with the last of them. Ended before it, the same figures are sent once more, and MLflow keeps
        # what is equal in name, value, time and step once.
        tags = [RunTag(self.TAG + file, str(at)) for file, at in dataclasses.asdict(self.places).items()]
        for i in range(0, max(1, len(figures)), self.MOST_FIGURES):
            last = i + self.MOST_FIGURES >= len(figures)
            self._client.log_batch(self._run, metrics=figures[i:i + self.MOST_FIGURES], tags=tags if last else [])

    def end(self, succeeded: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "FAILED")


class WandbSink:
    """Keeps its place in a file, written after each line: ended between the two, that one line is there twice."""

    def __init__(self, source: Source, key: str, project: str, entity: str | None, offline: bool, state: pathlib.Path) -> None:
        import wandb

        state.mkdir(parents=True, exist_ok=True)
        self._file, self._key = state / f"{source.name}.json", key
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.places = Places(**kept["places"]) if kept.get("key") == key else Places()
        self._run = wandb.init(project=project, entity=entity, id=key, name=source.name, resume="allow", dir=str(state), config=source.config,
                               mode="offline" if offline else "online", settings=wandb.Settings(x_disable_stats=True, console="off"))
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")

    def put(self, lines: list[Line]) -> None:
        for line in lines:
            self._run.log({"update": line.update, "_timestamp": line.seconds, **line.figures})
            self.places = self.places.behind(line)
            scratch = self._file.with_suffix(".new")
            scratch.write_text(json.dumps({"key": self._key, "places": dataclasses.asdict(self.places)}))
            scratch.replace(self._file)

    def end(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


def carry(source: Source, sink: Sink, once: bool, stop: threading.Event, poll: float) -> None:
    """Until the job ended, `stop`, or with `once` the end of what is written."""
    while True:
        ended = source.done()  # before the last look: what was written until then is carried over
        if lines := source.after(sink.places):
            sink.put(lines)
        if ended is not None or once or stop.is_set():
            return sink.end(ended is not False)
        stop.wait(poll)


def follow(job: str, open_sink: Any, once: bool, stop: threading.Event, poll: float) -> None:
    source = Source(job)
    while (key := source.run_key()) is None:
        if once or source.done() is not None or stop.wait(poll):
            return print(f"rein.sinks: {job} has no figures", file=sys.stderr)
    carry(source, open_sink(source, key), once, stop, poll)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rein.sinks", description="Carries the figures of jobs to MLflow or Weights & Biases.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    mlflow = kinds.add_parser("mlflow", help="to an MLflow server")
    mlflow.add_argument("--uri", help="of the tracking server (default: MLFLOW_TRACKING_URI)")
    mlflow.add_argument("--experiment", default="rein", help="made if it is missing (default: rein)")
    wandb = kinds.add_parser("wandb", help="to Weights & Biases")
    wandb.add_argument("--project", default="rein", help="(default: rein)")
    wandb.add_argument("--entity", help="user or team (default: the account's)")
    wandb.add_argument("--offline", action="store_true", help="write to STATE/wandb, for `wandb sync` later")
    wandb.add_argument("--state", type=pathlib.Path, default=pathlib.Path("rein-sinks"), help="folder for the places and W&B's files (default: ./rein-sinks)")
    for kind in (mlflow, wandb):
        kind.add_argument("jobs", nargs="+", metavar="JOB", help="name of a job, or folder with its metrics.jsonl")
        kind.add_argument("--once", action="store_true", help="carry over what is written, and end")
        kind.add_argument("--poll-seconds", type=float, default=2.0, help="between looks (default: 2)")
    asked = parser.parse_args()
    try:
        __import__(asked.kind)
    except ImportError as error:
        raise SystemExit(f"rein.sinks: {error}: pip install './deploy/python[{asked.kind}]'") from error

    def open_sink(source: Source, key: str) -> Sink:
        if asked.kind == "mlflow":
            return MlflowSink(source, key, asked.uri, asked.experiment)
        return WandbSink(source, key, asked.project, asked.entity, asked.offline, asked.state)

    if asked.kind == "wandb" and len(asked.jobs) > 1:
        parser.error("wandb has one run in a process: start one for each job")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[BaseException] = []

    def one(job: str) -> None:
        try:
            follow(job, open_sink, asked.once, stop, asked.poll_seconds)
        except BaseException as error:  # noqa: BLE001 - told below, the other jobs go on
            failures.append(error)
            print(f"rein.sinks: {job}: {error}", file=sys.stderr)

    threads = [threading.Thread(target=one, args=(job,)) for job in asked.jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # signals are taken between the waits
            thread.join(0.5)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
