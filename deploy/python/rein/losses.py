"""A function as a loss: given the log-probs of a batch, it gives the derivative of its loss by each of them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import grpc

from rein.service import Service
from rein.v1 import loss_pb2 as pb, loss_pb2_grpc, trainer_pb2


@dataclass
class Trained:
    """One sequence of a minibatch. Lists have one entry for each target: a token that the policy wrote."""

    id: str
    group: int  # equal for siblings
    token_ids: list[int]
    loss_mask: list[int]
    logprobs: Any  # of the weights being trained; a torch.Tensor for rein.torch_loss
    behaviour_logprobs: Any  # of the policy that sampled
    reference_logprobs: Any  # empty without a KL term
    entropies: Any  # empty unless asked for
    advantages: Any
    reward: float
    reward_parts: list[float]
    truncated: bool


@dataclass
class Batch:
    """One minibatch."""

    job: str
    update: int
    step: int
    kl_coefficient: float
    sequences: list[Trained]


class Loss(Service, loss_pb2_grpc.LossServiceServicer):
    """A loss as a service; calling it calls the function."""

    _add = staticmethod(loss_pb2_grpc.add_LossServiceServicer_to_server)
    _threads = 2

    def __init__(self, function: Callable[..., Any], evaluate: Callable[[Batch], Any]) -> None:
        self._function, self._evaluate, self.__doc__ = function, evaluate, function.__doc__

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._function(*arguments, **keywords)

    def Evaluate(self, request: pb.LossRequest, context: grpc.ServicerContext) -> pb.LossReply:
        sequences = [Trained(s.id, s.group, list(s.token_ids), list(s.loss_mask), list(s.policy_logprobs), list(s.behaviour_logprobs),
                               list(s.reference_logprobs), list(s.entropies), list(s.advantages), s.reward, list(s.reward_parts), s.truncated)
                     for s in request.sequences]
        try:
            loss, by_logprob, *rest = self._evaluate(Batch(request.job, request.update, request.step, request.kl_coefficient, sequences))
            metrics: dict[str, float] = rest[0] if rest and isinstance(rest[0], dict) else rest[1] if len(rest) > 1 else {}
            by_entropy: Sequence[Sequence[float]] = rest[0] if rest and not isinstance(rest[0], dict) else [[]] * len(by_logprob)
            return pb.LossReply(loss=float(loss), gradients=[pb.LossGradient(logprobs=g, entropies=h) for g, h in zip(by_logprob, by_entropy, strict=True)],
                                metrics=[trainer_pb2.Metric(name=name, value=float(value)) for name, value in metrics.items()])
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def loss(function: Callable[[Batch], Any]) -> Loss:
    """Turns f(batch) -> (loss, gradients[, entropy gradients][, metrics]) into a service; gradients: a list for each sequence of
    d loss / d logprob for each target; metrics: a dict. A job names it as custom: {service: HOST:PORT}."""
    return Loss(function, function)


def torch_loss(function: Callable[[Batch], Any]) -> Loss:
    """The same for f(batch) -> loss, or (loss, metrics), a scalar torch.Tensor: the lists of the batch are tensors (float64), and
    PyTorch finds the derivatives by logprobs and entropies."""
    def evaluate(batch: Batch) -> Any:
        import torch

        for s in batch.sequences:
            for name in ("logprobs", "behaviour_logprobs", "reference_logprobs", "entropies", "advantages"):
                setattr(s, name, torch.tensor(getattr(s, name), dtype=torch.float64))
            s.logprobs.requires_grad_()
            s.entropies.requires_grad_()
        result = function(batch)
        value, metrics = result if isinstance(result, tuple) else (result, {})
        value.backward()
        zero = [torch.zeros(len(s.logprobs)) for s in batch.sequences]
        by_logprob = [(s.logprobs.grad if s.logprobs.grad is not None else z).tolist() for s, z in zip(batch.sequences, zero)]
        by_entropy = [[] if s.entropies.grad is None else s.entropies.grad.tolist() for s in batch.sequences]
        return value.item(), by_logprob, by_entropy, {name: float(figure) for name, figure in metrics.items()}

    return Loss(function, evaluate)
