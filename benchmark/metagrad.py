"""The outer gradient of a batch of tasks, and the measuring of one.

    ∇_θ (1/T) Σ_t objective(task_t, trajectory_t(θ))

How one differentiates is apart from what: the methods know nothing of what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from benchmark.adapt import InnerLoop, inner_step, start_state, unroll
from benchmark.engine import fused
from benchmark.engine.task_gradient import Unrolled, task_gradient
from benchmark.errors import UserError, nearest
from benchmark.estimators import exact_from
from optimizers.base import InnerOptimizer, State, Task, Trajectory

STRATEGIES = ("auto", "loop", "vmap")


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
    estimator: str = "exact",
    noise: Tensor | None = None,
    progress: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean outer loss over the batch, a scalar without graph, and its gradient by meta-parameter name.

    A meta-parameter without a path to the loss gets zeros, and so do all where the batch is empty.

    Parameters
    ----------
    strategy: ``loop`` takes one task after another (best on CPU), ``vmap`` all at once, in as many chunks as GPU memory
        asks for (best on GPU), ``auto`` chooses by the batch's device.
    recompute: keep only the states of the inner loop and repeat each step in the backward pass, so that memory does not
        grow with `steps`.
    estimator: which inner gradients are differentiated, ``exact``, ``first-order`` or ``truncated:L``, see
        :mod:`benchmark.estimators`.
    noise: what the method draws per task, [T, ...], or None.
    progress: share of the meta-training that is done, for objectives that change with it.

    Raises
    ------
    UserError: a strategy or an estimator that there is none of.
    """
    strategy = choose(strategy, batch)
    loop = InnerLoop(steps, create_graph=True, exact_from=exact_from(estimator, steps), trace=False, progress=progress)
    named = dict(optimizer.named_parameters())
    mean = torch.zeros((), dtype=batch.query_x.dtype, device=batch.query_x.device)
    totals: dict[str, Tensor] = {}
    for loss, found, share in _gradients(optimizer, batch, loop, strategy, recompute, noise):
        mean += loss * share
        for name, gradient in found.items():
            scaled = gradient if share == 1 else gradient * share
            totals[name] = totals[name] + scaled if name in totals else scaled
    return mean, {name: totals[name] if name in totals else torch.zeros_like(p) for name, p in named.items()}


def _gradients(
    optimizer: InnerOptimizer,
    batch: Batch,
    loop: InnerLoop,
    strategy: str,
    recompute: bool,
    noise: Tensor | None,
) -> Iterator[tuple[Tensor, dict[str, Tensor], float]]:
    """(loss, gradient, share of the batch) of each part of the batch."""
    wanted = {name: p for name, p in optimizer.named_parameters() if p.requires_grad}
    total = len(batch.support_x)
    if strategy == "loop" and not recompute:
        for t, task in enumerate(tasks(batch)):
            drawn = None if noise is None else noise[t]
            loss = optimizer.objective(task, unroll(optimizer, task.support_x, task.support_y, loop, drawn))
            found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
            named = {name: g for name, g in zip(wanted, found, strict=True) if g is not None}
            yield loss.detach(), named, 1 / total
        return
    one = task_gradient(optimizer, _unrolled(loop), recompute=recompute)
    theta = {name: p.detach() for name, p in wanted.items()}
    if strategy == "vmap":  # which knows no other layout in torch 2.10
        theta = {name: p.contiguous() for name, p in theta.items()}
    else:
        for t, task in enumerate(tasks(batch)):
            yield *one(theta, task, None if noise is None else noise[t]), 1 / total
        return

    def part(rows: slice) -> tuple[Tensor, dict[str, Tensor], float]:
        drawn = None if noise is None else noise[rows]
        losses, found = over_tasks(lambda task, mine: one(theta, task, mine), batch, rows, drawn, recompute=recompute)
        return losses.mean(), {name: g.mean(0) for name, g in found.items()}, len(losses) / total

    yield from in_chunks(part, total, _fitted(optimizer, f"meta-gradient of {loop.steps} steps"))


def _unrolled(loop: InnerLoop) -> Unrolled:
    """:func:`benchmark.adapt.unroll` and the objective, piece by piece, for function transforms."""
    functional = replace(loop, functional=True)

    def step(optimizer: InnerOptimizer, state: State, k: int, task: Task) -> State:
        return inner_step(optimizer, state, k, task.support_x, task.support_y, functional)[0]

    def objective(optimizer: InnerOptimizer, visited: tuple[State, ...], task: Task) -> Tensor:
        walked = Trajectory(visited[-1], optimizer.params(visited[-1]), visited=visited, progress=loop.progress)
        return optimizer.objective(task, walked)

    return Unrolled(loop.steps, start_state, step, objective)


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

    Raises
    ------
    UserError: a strategy that there is none of.
    """
    loop = InnerLoop(steps, functional=choose(strategy, batch) == "vmap", trace_steps=trace_steps)
    total = len(batch.support_x)
    if total == 0:
        return Evaluation(*torch.zeros(2, 0), *torch.zeros(2, 0, 1 + (trace_steps or steps)))

    def measure(task: Task, drawn: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        walked = unroll(optimizer, task.support_x, task.support_y, loop, drawn)
        outputs = optimizer.predict_query(walked.params, task)
        return (*score(optimizer, outputs, task.query_y), walked.nll, walked.grad_norm)

    with torch.no_grad():
        if loop.functional:
            parts = in_chunks(
                lambda rows: over_tasks(measure, batch, rows, None if noise is None else noise[rows]),
                total,
                _fitted(optimizer, f"evaluation of {loop.trace_steps or steps} steps"),
            )
            columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        else:
            rows = [measure(task, None if noise is None else noise[t]) for t, task in enumerate(tasks(batch))]
            columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return Evaluation(*(column.cpu() for column in columns))


def over_tasks(
    one: Callable[[Task, Tensor | None], Any],
    batch: Batch,
    rows: slice,
    noise: Tensor | None,
    *,
    recompute: bool = False,
) -> Any:
    """``one(task, noise)`` for the tasks `rows` of the batch at once, by vmap; results have a leading [T]."""
    columns = [c[rows] for c in (batch.support_x, batch.support_y, batch.query_x, batch.query_y)]

    def unpacked(*row: Tensor) -> Any:
        return one(Task(*row[:4]), None if noise is None else row[4])

    with fused.disabled(primitives=recompute):
        return torch.func.vmap(unpacked)(*columns, *([] if noise is None else [noise]))


_FITTED: WeakKeyDictionary[InnerOptimizer, dict[str, dict[int, int]]] = WeakKeyDictionary()


def _fitted(optimizer: InnerOptimizer, work: str) -> dict[int, int]:
    """What :func:`in_chunks` learned of this work of this optimizer."""
    return _FITTED.setdefault(optimizer, {}).setdefault(work, {})


def in_chunks(part: Callable[[slice], Any], total: int, fitted: dict[int, int]) -> Iterator[Any]:
    """``part(rows)`` over all of 0 … `total` in chunks that fit in GPU memory, halved whenever one does not.

    By `total`, `fitted` keeps the size that did fit: the next batch begins with it.
    """
    start, size = 0, fitted.get(total, total)
    while start < total:
        try:
            yield part(slice(start, start + size))
            start += size
            continue
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        torch.cuda.empty_cache()
        size = fitted[total] = (size + 1) // 2


def score(optimizer: InnerOptimizer, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy (nan for regression) and mean loss of network outputs [Q, ways], both scalars."""
    loss = optimizer.output_loss(outputs, targets)
    if optimizer.is_regression:
        return outputs.new_full((), float("nan")), loss
    return (outputs.argmax(-1) == targets).to(outputs.dtype).mean(), loss


def choose(strategy: str, batch: Batch) -> str:
    """``loop`` or ``vmap``, ``auto`` resolved by the batch's device."""
    if strategy not in STRATEGIES:
        raise UserError(
            f"no strategy {strategy!r}{nearest(strategy, STRATEGIES)}; expected one of {', '.join(STRATEGIES)}"
        )
    if strategy != "auto":
        return strategy
    return "vmap" if batch.query_x.device.type == "cuda" else "loop"
