"""Reward functions as services: of Rein's own form, those written for verl, TRL and reasoning-gym, unchanged, and judges."""
from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
import urllib.error
import urllib.request
from concurrent import futures
from typing import Any, Callable, Sequence

import grpc
from google.protobuf.json_format import MessageToDict

from rein.service import Service
from rein.v1 import policy_pb2, reward_pb2, reward_pb2_grpc

_NOTE_BYTES = 512
Item = reward_pb2.RewardItem
# Scores of some items in order, each a float, (float, note) or the exception that cost this item its score; one that is
# raised costs all of them theirs.
Batch = Callable[[Sequence[Item]], Sequence[Any]]


def messages(item: Item) -> list[dict[str, str]]:
    """The prompt as [{role, content}, ...]."""
    return [{"role": m.role, "content": m.content} for m in item.prompt]


def columns(item: Any) -> dict[str, Any]:
    """The dataset's columns, with `answer`; whole numbers are int, which their carrier does not tell from float."""
    def plain(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, list) else value
    return {**({"answer": item.answer} if item.answer else {}), **plain(MessageToDict(item.columns))}


def _call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    result = function(*arguments, **keywords)
    return asyncio.run(result) if inspect.isawaitable(result) else result


class Reward(Service, reward_pb2_grpc.RewardServiceServicer):
    """A scorer as a service. Its errors are those of the completion that caused them; calling it calls the function."""

    _add = staticmethod(reward_pb2_grpc.add_RewardServiceServicer_to_server)

    def __init__(self, function: Callable[..., Any], batch: Batch) -> None:
        self._function, self._batch, self.__doc__ = function, batch, function.__doc__

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._function(*arguments, **keywords)

    def Score(self, request: reward_pb2.ScoreRewardsRequest, context: grpc.ServicerContext) -> reward_pb2.ScoreRewardsReply:
        return reward_pb2.ScoreRewardsReply(results=self._results(request.items))

    def _results(self, items: Sequence[Item]) -> list[policy_pb2.RewardResult]:
        try:
            scores = self._batch(items)
            if len(scores) != len(items):
                raise ValueError(f"gave {len(scores)} scores for {len(items)} completions")
            return [self._result(score) for score in scores]
        except Exception as error:  # one bad completion must not fail the others: each is asked for alone
            if len(items) > 1:
                return [result for item in items for result in self._results([item])]
            return [policy_pb2.RewardResult(error=f"{type(error).__name__}: {error}")]

    @staticmethod
    def _result(score: Any) -> policy_pb2.RewardResult:
        if isinstance(score, Exception):
            return policy_pb2.RewardResult(error=f"{type(score).__name__}: {score}")
        value, note = score if isinstance(score, tuple) else (score, "")
        note = note.encode()[:_NOTE_BYTES].decode(errors="ignore")
        return policy_pb2.RewardResult(reward=float(value), parts=[policy_pb2.RewardPart(score=float(value), weight=1, note=note)])


def reward(function: Callable[[list[dict[str, str]], str, str, dict[str, Any]], float]) -> Reward:
    """Turns f(prompt, completion, answer, columns) -> float into a service; prompt is a list of {role, content}."""
    return Reward(function, lambda items: [_call(function, messages(i), i.completion.text, i.answer, columns(i)) for i in items])


def verl(function: Callable[..., Any], **keywords: Any) -> Reward:
    """A verl compute_score(data_source, solution_str, ground_truth, extra_info, **keywords) -> float or {"score": ...}.

    ground_truth: reward_model.ground_truth of the dataset, else the job's answer column. Other keys of a dict become the
    score's note. keywords: verl's reward_kwargs. The batched form (solution_strs, ...) is known by its parameters; a function
    that has no parameter data_source or extra_info, as those of verl's reward_score folder, is not given it."""
    parameters = inspect.signature(function).parameters
    batched = "solution_strs" in parameters
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    optional = ("data_sources", "extra_infos") if batched else ("data_source", "extra_info")
    left_out = set() if takes_all else set(optional) - set(parameters)

    def call(**given: Any) -> Any:
        return _call(function, **{name: value for name, value in given.items() if name not in left_out}, **keywords)

    def arguments(item: Item) -> tuple[Any, str, Any, Any]:
        row = columns(item)
        model = row.get("reward_model")
        truth = model["ground_truth"] if isinstance(model, dict) and "ground_truth" in model else item.answer
        return row.get("data_source", ""), item.completion.text, truth, row.get("extra_info", {})

    def score(result: Any) -> Any:
        if not isinstance(result, dict):
            return result
        rest = {key: value for key, value in result.items() if key != "score"}
        return result["score"], json.dumps(rest, default=str) if rest else ""

    def batch(items: Sequence[Item]) -> list[Any]:
        rows = [arguments(item) for item in items]
        if batched:
            lists = zip(("data_sources", "solution_strs", "ground_truths", "extra_infos"), map(list, zip(*rows)))
            return [score(one) for one in call(**dict(lists))]
        one = ("data_source", "solution_str", "ground_truth", "extra_info")
        return [score(call(**dict(zip(one, row)))) for row in rows]

    return Reward(function, batch)


def trl(function: Callable[..., Sequence[float | None]], conversational: bool | None = None) -> Reward:
    """A TRL reward_func(prompts, completions, completion_ids, **columns) -> list of float or None, which counts as 0.

    conversational: messages, else text, as TRL gives them by the dataset; by default text where column `prompt` is one.
    trainer_state is None; what log_extra and log_metric are told becomes the scores' notes."""
    def batch(items: Sequence[Item]) -> list[Any]:
        rows = [columns(item) for item in items]
        chat = conversational if conversational is not None else not isinstance(rows[0].get("prompt"), str)
        if chat:
            prompts, completions = [messages(i) for i in items], [[{"role": "assistant", "content": i.completion.text}] for i in items]
        else:
            prompts, completions = ["".join(m.content for m in i.prompt) for i in items], [i.completion.text for i in items]
        names = dict.fromkeys(key for row in rows for key in row if key not in ("prompt", "completion", "completion_ids"))
        given = {name: [row.get(name) for row in rows] for name in names}
        notes: list[dict[str, Any]] = [{} for _ in items]

        def log_extra(column: str, values: Sequence[Any]) -> None:
            for note, value in zip(notes, values):
                note[column] = value

        scores = _call(function, prompts=prompts, completions=completions, **given, completion_ids=[list(i.completion.token_ids) for i in items],
                       trainer_state=None, log_extra=log_extra, log_metric=lambda name, value: log_extra(name, [value] * len(items)))
        if len(scores) != len(items):
            raise ValueError(f"gave {len(scores)} scores for {len(items)} completions")
        for note, score in zip(notes, scores):
            note.update({"score": None} if score is None else {})
        return [(score or 0.0, json.dumps(note, default=str) if note else "") for score, note in zip(scores, notes)]

    return Reward(function, batch)


def reasoning_gym() -> Reward:
    """The verifiers of reasoning-gym, each chosen by metadata.source_dataset of the prompt; the entry's columns are the dataset's."""
    import reasoning_gym as gym

    def score(item: Item) -> float:
        entry = columns(item)
        entry.setdefault("answer", item.answer)
        if isinstance(entry.get("metadata"), str):
            entry["metadata"] = json.loads(entry["metadata"])
        return gym.get_score_answer_fn(entry["metadata"]["source_dataset"])(item.completion.text.strip(), entry)

    return Reward(score, lambda items: [score(item) for item in items])


JUDGE_PROMPT = """Judge how well the answer serves the request. Think briefly, then end with a line "Score: N", N from 0 (useless) to 10 (perfect).

<request>
{prompt}
</request>
<reference>
{answer}
</reference>
<answer>
{completion}
</answer>"""


def judge(url: str, model: str, prompt: str = JUDGE_PROMPT, pattern: str = r"(?i)score\W*(-?\d+(?:\.\d+)?)", low: float = 0, high: float = 10,
          key: str | None = None, tries: int = 4, timeout: float = 60, threads: int = 16, **settings: Any) -> Reward:
    """A model behind an OpenAI-compatible endpoint (url up to /v1) as the scorer; scores from low..high become 0..1.

    prompt: {prompt}, {completion}, {answer} are put in. pattern: its last match in the reply holds the score as group 1. A
    reply without one, or outside low..high, is an error of its completion; 429 and 5xx are asked again, `tries` times in
    all. settings: further keys of the request, such as max_tokens. A completion can talk to the judge: keep rules beside it."""
    if not low < high:
        raise ValueError(f"the judge's range {low}..{high} is empty")
    if re.compile(pattern).groups < 1:
        raise ValueError(f"the judge's pattern {pattern} has no group for the score")

    def ask(text: str) -> str:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **settings}).encode()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        for attempt in range(tries):
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{url.rstrip('/')}/chat/completions", body, headers), timeout=timeout) as reply:
                    return json.load(reply)["choices"][0]["message"]["content"] or ""
            except urllib.error.HTTPError as error:
                if attempt + 1 == tries or error.code not in (408, 429, 500, 502, 503, 504):
                    raise RuntimeError(f"the judge at {url} answers {error.code}: {error.read(300).decode(errors='replace')}") from None
            except (urllib.error.URLError, TimeoutError) as error:
                if attempt + 1 == tries:
                    raise RuntimeError(f"the judge at {url} cannot be reached: {error}") from None
            except (ValueError, KeyError, IndexError, TypeError):
                raise RuntimeError(f"the judge at {url} answers with something else than a chat completion") from None
            time.sleep(0.5 * 2 ** attempt)
        raise RuntimeError("the judge was not asked")

    def score(item: Item) -> Any:
        parts = {"prompt": "\n".join(f"{m.role}: {m.content}" for m in item.prompt), "completion": item.completion.text, "answer": item.answer}
        try:
            reply = ask(re.sub(r"\{(prompt|completion|answer)\}", lambda found: parts[found[1]], prompt))
            found = re.findall(pattern, reply)
            if not found:
                raise ValueError(f"the judge gave no score: {reply[-200:]!r}")
            value = float(found[-1][0] if isinstance(found[-1], tuple) else found[-1])
            if not low <= value <= high:
                raise ValueError(f"the judge gave {value}, outside {low}..{high}")
            return (value - low) / (high - low), reply[-_NOTE_BYTES:]
        except Exception as error:
            return error

    def batch(items: Sequence[Item]) -> list[Any]:
        with futures.ThreadPoolExecutor(min(threads, max(1, len(items)))) as pool:
            return list(pool.map(score, items))

    return Reward(score, batch)
