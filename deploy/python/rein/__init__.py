"""A client of Rein's controller, and rewards written in Python.

    import rein
    lab = rein.connect()                                  # as the rein command: environment, or rein up on this machine
    job = lab.submit("job.yaml", "grpo.group_size=8")
    for update in lab.metrics(job.name, follow=True): print(update["update"], update["reward"])

    @rein.reward
    def short(prompt, completion, answer, columns): return -len(completion) / 100
    short.serve("127.0.0.1:7500")                         # rewards: [{remote: "127.0.0.1:7500"}]
"""
from __future__ import annotations

import json
import os
import pathlib
import uuid
from concurrent import futures
from typing import Any, Callable, Iterator

import grpc
from google.protobuf.json_format import MessageToDict

from rein.v1 import controller_pb2 as pb, controller_pb2_grpc, policy_pb2, reward_pb2, reward_pb2_grpc

__all__ = ["Client", "Reward", "connect", "reward"]
_OPTIONS = [("grpc.max_receive_message_length", 256 << 20), ("grpc.max_send_message_length", 256 << 20)]


def _read(path: str | os.PathLike[str]) -> bytes:
    return pathlib.Path(path).read_bytes()


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


class Reward(reward_pb2_grpc.RewardServiceServicer):
    """A function f(prompt, completion, answer, columns) -> float as a service; prompt is a list of {role, content}."""

    def __init__(self, score: Callable[[list[dict[str, str]], str, str, dict[str, Any]], float]) -> None:
        self._score, self.__doc__, self._server = score, score.__doc__, None

    def __call__(self, *arguments: Any) -> float:
        return self._score(*arguments)

    def Score(self, request: reward_pb2.ScoreRewardsRequest, context: grpc.ServicerContext) -> reward_pb2.ScoreRewardsReply:
        reply, rule = reward_pb2.ScoreRewardsReply(), request.rules[0] if request.rules else None
        for item in request.items:
            prompt = [{"role": m.role, "content": m.content} for m in item.prompt]
            try:
                value = float(self._score(prompt, item.completion.text, item.answer, MessageToDict(item.columns)))
                part = policy_pb2.RewardPart(name=rule.name if rule else "", score=value, weight=1)
                reply.results.add(reward=value, parts=[part])
            except Exception as error:  # one bad completion must not fail the others
                reply.results.add(error=f"{type(error).__name__}: {error}")
        return reply

    def start(self, address: str, tls: str | None = None, threads: int = 8) -> int:
        """Serves from here on, in threads; the port that was taken. `tls`: a folder, where other machines call."""
        self._server = grpc.server(futures.ThreadPoolExecutor(threads), options=_OPTIONS)
        reward_pb2_grpc.add_RewardServiceServicer_to_server(self, self._server)
        if tls:
            creds = grpc.ssl_server_credentials([(_read(f"{tls}/tls.key"), _read(f"{tls}/tls.crt"))], _read(f"{tls}/ca.crt"), True)
            port = self._server.add_secure_port(address, creds)
        else:
            port = self._server.add_insecure_port(address)
        self._server.start()
        return port

    def stop(self) -> None:
        self._server.stop(1).wait()

    def serve(self, address: str, tls: str | None = None, threads: int = 8) -> None:
        self.start(address, tls, threads)
        self._server.wait_for_termination()


def reward(score: Callable[[list[dict[str, str]], str, str, dict[str, Any]], float]) -> Reward:
    """Turns a function into a reward service."""
    return Reward(score)
