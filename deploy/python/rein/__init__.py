"""A client of Rein's controller, and rewards, environments and losses written in Python.

    import rein
    lab = rein.connect()                                  # as the rein command: environment, or rein up on this machine
    job = lab.submit("job.yaml", "grpo.group_size=8")
    for update in lab.metrics(job.name, follow=True): print(update["update"], update["reward"])

    @rein.reward
    def short(prompt, completion, answer, columns): return -len(completion) / 100
    short.serve("127.0.0.1:7500")                         # rewards: [{remote: "127.0.0.1:7500"}]

    rein.verl(compute_score).serve(...)                   # functions written for verl and for TRL, unchanged;
    rein.trl(reward_func).serve(...)                      # from a shell: python -m rein.serve --trl FILE.py:reward_func

    @rein.environment
    class Game:                                           # environment: {remote: "127.0.0.1:7600"}
        def reset(self, seed): return "Your move."
        def step(self, text): return "Again.", 0.0, False # what is shown next, reward, done

    @rein.loss                                            # custom: {service: "127.0.0.1:7700"}; rein.torch_loss: by autograd
    def mine(batch): return loss, [[derivative, ...] for sequence in batch.sequences]
"""
from __future__ import annotations

import json
import os
import pathlib
import uuid
from typing import Any, Iterator

import grpc

from rein.environments import Environment, environment
from rein.losses import Batch, Loss, Trained, loss, torch_loss
from rein.scoring import Reward, judge, reasoning_gym, reward, trl, verl
from rein.service import CLIENT_OPTIONS as _OPTIONS, read as _read
from rein.v1 import controller_pb2 as pb, controller_pb2_grpc

__all__ = ["Batch", "Client", "Environment", "Loss", "Reward", "Trained", "connect", "environment", "judge", "loss", "reasoning_gym", "reward",
           "torch_loss", "trl", "verl"]


class Client:
    """Calls one controller. `ca`, and `token` or `tls` (a folder with tls.crt and tls.key), where it is another machine."""

    def __init__(self, server: str, ca: str | None = None, token: str | None = None, tls: str | None = None, timeout: float = 30) -> None:
        self.timeout, self._metadata = timeout, [("authorization", f"Bearer {token}")] if token else []
        ca = ca or (f"{tls}/ca.crt" if tls else None)
        pair = (_read(f"{tls}/tls.key"), _read(f"{tls}/tls.crt")) if tls else (None, None)
        self._channel = grpc.secure_channel(server, grpc.ssl_channel_credentials(_read(ca), *pair), _OPTIONS) if ca \
            else grpc.insecure_channel(server, _OPTIONS)
        self._stub = controller_pb2_grpc.ControllerServiceStub(self._channel)

    def _call(self, method: str, request: Any, timeout: float | None = None) -> Any:
        return getattr(self._stub, method)(request, timeout=timeout or self.timeout, metadata=self._metadata)

    def submit(self, job: str | os.PathLike[str] | dict[str, Any], *overrides: str, name: str | None = None) -> pb.Job:
        """Submits a YAML file, or a dict of the same shape; overrides are "key.sub=value"."""
        path = None if isinstance(job, dict) else pathlib.Path(job)
        text = json.dumps(job) if path is None else path.read_text()
        more = [*overrides, *([f"name={name}"] if name else [])]
        return self._call("Submit", pb.SubmitRequest(request_id=f"python-{uuid.uuid4()}", yaml=text, overrides=more, file_name=path.name if path else "job",
                                                     base_folder=str((path.parent if path else pathlib.Path()).resolve())), timeout=300).job

    def jobs(self) -> list[pb.Job]:
        return list(self._call("ListJobs", pb.ListJobsRequest()).jobs)

    def get(self, job: str) -> pb.Job:
        return self._call("GetJob", pb.GetJobRequest(name=job))

    def cancel(self, job: str) -> pb.Job:
        return self._call("Cancel", pb.JobCommand(request_id=f"python-{uuid.uuid4()}", name=job))

    def watch(self, job: str, after: int = 0, follow: bool = True) -> Iterator[pb.JobEvent]:
        """What happened to a job, then what happens, until it ends."""
        yield from self._stub.Watch(pb.WatchRequest(name=job, after=after, no_follow=not follow), metadata=self._metadata)

    def logs(self, name: str, follow: bool = False, tail: int = 0) -> Iterator[str]:
        yield from (line.text for line in self._stub.Logs(pb.LogsRequest(name=name, follow=follow, tail=tail), metadata=self._metadata))

    def metrics(self, job: str, follow: bool = False, frame: bool = False) -> Any:
        """The figures of each update as dicts, or as a pandas frame."""
        def rows() -> Iterator[dict[str, float]]:
            records = (e.update for e in self.watch(job) if e.HasField("update")) if follow \
                else self._call("ListUpdates", pb.ListUpdatesRequest(name=job)).updates
            yield from ({"update": r.update, **{m.name: m.value for m in r.metrics}} for r in records)
        if not frame:
            return rows()
        import pandas
        return pandas.DataFrame(rows()).set_index("update")

    def rollouts(self, job: str, update: int = 0, limit: int = 1000, tokens: bool = False, **filters: Any) -> Iterator[pb.StoredRollout]:
        """Rollouts of an update, the newest by default; filters: prompt sibling contains min_reward max_reward sort."""
        yield from self._call("ListRollouts", pb.ListRolloutsRequest(name=job, update=update, limit=limit, tokens=tokens, **filters)).rollouts


def connect() -> Client:
    """As the rein command finds its server: REIN_SERVER, REIN_CA, REIN_TLS, REIN_TOKEN_FILE, else rein up on this machine."""
    env = os.environ.get
    token = _read(env("REIN_TOKEN_FILE", "")).decode().split("\n")[0] if env("REIN_TOKEN_FILE") else None
    if env("REIN_SERVER"):
        return Client(env("REIN_SERVER", ""), env("REIN_CA"), token, env("REIN_TLS"))
    up = json.loads(_read(pathlib.Path(env("REIN_HOME", str(pathlib.Path.home() / ".local/share/rein"))) / "context.json"))
    return Client(up["controller"], tls=f"{up['tls']}/user/admin" if up.get("tls") else None)
