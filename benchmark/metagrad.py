"""The outer gradient of a batch of tasks, and the measuring of one.

    ∇_θ (1/T) Σ_t objective(task_t, trajectory_t(θ))

How one differentiates is apart from what: the methods know nothing of what is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from benchmark.adapt import adapt
from benchmark.errors import UserError, nearest
from optimizers.base import InnerOptimizer

STRATEGIES = ("auto", "loop", "vmap")


@dataclass
class Task:
    """One task: support [S, ...] and query [Q, ...]; as a batch, every tensor has a leading [T]."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


class Batch(Protocol):
    """Anything with the four tensors of a batch of T tasks."""

    @property
    def support_x(self) -> Tensor: ...
    @property
    def support_y(self) -> Tensor: ...
    @property
    def query_x(self) -> Tensor: ...
    @property
    def query_y(self) -> Tensor: ...


class Evaluation(NamedTuple):
    """What T tasks measured, on the CPU and without a graph."""

    accuracy: Tensor
    """Share of query examples classified rightly, [T]; nan for regression."""
    nll: Tensor
    """Query loss at φ_K, [T]."""
    support_nll: Tensor
    """Support loss at k = 0 … K, [T, K+1]."""
    grad_norm: Tensor
    """‖∇_φ L_S‖₂ at k = 0 … K, [T, K+1]."""


def tasks(batch: Batch) -> list[Task]:
    """The tasks of a batch, as views."""
    columns = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return [Task(*row) for row in zip(*(c.unbind(0) for c in columns), strict=True)]


def meta_gradient(
    optimizer: InnerOptimizer,
    batch: Batch,
    steps: int = 5,
    strategy: str = "auto",
    recompute: bool = False,
    noise: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean outer loss over the batch, a scalar without graph, and its gradient by meta-parameter name.

    A meta-parameter without a path to the loss gets zeros. `noise` is [T, ...] or None.
    """
    _check(strategy)
    named = dict(optimizer.named_parameters())
    wanted = {name: p for name, p in named.items() if p.requires_grad}
    totals: dict[str, Tensor] = {}
    each = tasks(batch)
    mean = torch.zeros((), dtype=batch.query_x.dtype, device=batch.query_x.device)
    for t, task in enumerate(each):
        drawn = None if noise is None else noise[t]
        walked = adapt(optimizer, task.support_x, task.support_y, steps, create_graph=True, noise=drawn, trace=False)
        loss = optimizer.objective(task, walked) / len(each)
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        mean += loss.detach()
        for name, g in zip(wanted, found, strict=True):
            if g is not None:
                totals[name] = totals[name] + g if name in totals else g
    return mean, {name: totals[name] if name in totals else torch.zeros_like(p) for name, p in named.items()}


def evaluate_batch(
    optimizer: InnerOptimizer,
    batch: Batch,
    steps: int,
    strategy: str = "auto",
    noise: Tensor | None = None,
    trace_steps: int | None = None,
) -> Evaluation:
    """Adapt to every task of the batch and measure it on its query set; no graph, no meta-parameter changes.

    `trace_steps` ≥ `steps`: how far the trace goes on, with accuracy and query loss still those after `steps`.
    """
    _check(strategy)
    rows: list[tuple[Tensor, ...]] = []
    for t, task in enumerate(tasks(batch)):
        drawn = None if noise is None else noise[t]
        walked = adapt(optimizer, task.support_x, task.support_y, steps, noise=drawn, trace_steps=trace_steps)
        with torch.no_grad():
            outputs = optimizer.predict(walked.params, task.query_x)
            rows.append((*score(optimizer, outputs, task.query_y), walked.nll, walked.grad_norm))
    return Evaluation(*(torch.stack(column).cpu() for column in zip(*rows, strict=True)))


def score(optimizer: InnerOptimizer, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy (nan for regression) and mean loss of network outputs [Q, ways], both scalars."""
    own_loss = getattr(optimizer.network, "loss", None)
    if own_loss is not None:
        return outputs.new_full((), float("nan")), own_loss(outputs, targets)
    accuracy = (outputs.argmax(-1) == targets).to(outputs.dtype).mean()
    return accuracy, torch.nn.functional.cross_entropy(outputs, targets)


def _check(strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise UserError(
            f"no strategy {strategy!r}{nearest(strategy, STRATEGIES)}; expected one of {', '.join(STRATEGIES)}"
        )
