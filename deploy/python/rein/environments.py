"""A class as an environment: what answers the policy between its turns."""
from __future__ import annotations

import inspect
import math
import threading
import time
from typing import Any, Callable

import grpc

from rein.scoring import columns
from rein.service import Service
from rein.v1 import environment_pb2 as pb, environment_pb2_grpc, policy_pb2

_IDLE_SECONDS, _MOST_EPISODES = 6 * 3600, 1_000_000


def _messages(shown: Any, role: str = "user") -> list[policy_pb2.Message]:
    """Of None, a text, a {role, content}, or a list of these."""
    if shown is None:
        return []
    if isinstance(shown, str):
        return [policy_pb2.Message(role=role, content=shown)]
    if isinstance(shown, dict):
        return [policy_pb2.Message(role=shown.get("role", role), content=shown["content"])]
    return [message for one in shown for message in _messages(one, role)]


class Environment(Service, environment_pb2_grpc.EnvironmentServiceServicer):
    """A class as a service: one object for each episode. Calling it makes an object, as calling the class does."""

    _add = staticmethod(environment_pb2_grpc.add_EnvironmentServiceServicer_to_server)
    _threads = 64

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self.__doc__ = make, make.__doc__
        self._episodes: dict[str, tuple[Any, float]] = {}  # with the time of the last call, oldest first
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._make(*arguments, **keywords)

    def _keep(self, name: str, episode: Any) -> None:
        now = time.monotonic()
        with self._lock:
            self._episodes.pop(name, None)
            self._episodes[name] = (episode, now)
            while len(self._episodes) > 1:  # those whose caller went away without a word
                oldest = next(iter(self._episodes))
                if len(self._episodes) <= _MOST_EPISODES and now - self._episodes[oldest][1] < _IDLE_SECONDS:
                    break
                del self._episodes[oldest]

    def Reset(self, request: pb.EnvironmentResetRequest, context: grpc.ServicerContext) -> pb.EnvironmentResetReply:
        given = {"seed": request.seed, "answer": request.answer, "columns": columns(request), "sibling": request.sibling,
                 "prompt": [{"role": m.role, "content": m.content} for m in request.prompt]}
        try:
            episode = self._make()
            wanted = inspect.signature(episode.reset).parameters
            every = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in wanted.values())
            shown = episode.reset(**{name: value for name, value in given.items() if every or name in wanted})
            shown, tools = shown if isinstance(shown, tuple) else (shown, [])
            reply = pb.EnvironmentResetReply(messages=_messages(shown), tools=tools)
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        self._keep(request.episode, episode)
        return reply

    def Step(self, request: pb.EnvironmentStepRequest, context: grpc.ServicerContext) -> pb.EnvironmentStepReply:
        with self._lock:
            episode, _ = self._episodes.get(request.episode, (None, 0))
        if episode is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such episode")
        try:
            shown, reward, done, *note = episode.step(request.text)
            reward = float(reward)
            if not math.isfinite(reward):
                raise ValueError(f"step gave the reward {reward}")
            reply = pb.EnvironmentStepReply(messages=_messages(shown), reward=reward, done=bool(done), note="; ".join(map(str, note)))
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        if done:
            self.Close(request, context)
        else:
            self._keep(request.episode, episode)
        return reply

    def Close(self, request: Any, context: grpc.ServicerContext) -> pb.EnvironmentCloseReply:
        with self._lock:
            self._episodes.pop(request.episode, None)
        return pb.EnvironmentCloseReply()


def environment(make: Callable[[], Any]) -> Environment:
    """Turns a class into a service: environment: {remote: HOST:PORT}.

    reset(self, ...) begins an episode and says what follows the prompt: None, a text (of the user), a {role, content} or a
    list of these; with tools, a pair of that and a list of JSON schemas as texts. It is given those of seed, answer, columns,
    prompt and sibling that it has parameters for; siblings of a group have one seed. step(self, text) takes a turn of the
    policy and gives what is shown next, the reward of the turn, whether the episode is over, and a note if it likes."""
    return Environment(make)
