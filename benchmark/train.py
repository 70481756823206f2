"""Meta-training: learn an optimizer's meta-parameters over many tasks, and keep the best by meta-validation.

Everything random is a function of (spec, iteration): tasks by their index, per-task noise by seed and index, the
learning rate by iteration. A checkpoint is therefore small — meta-parameters, the meta-optimizer's moments, the best so
far — and a run that was killed goes on to the same numbers, bit by bit on CPU. Nor do the workers matter there: the
gradients of single tasks are added in the order of the tasks, whoever computed them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmark import data
from benchmark.engine.execution import PLAIN, Execution
from benchmark.engine.shutdown import Interrupted
from benchmark.evaluate import EvaluationProtocol, measure
from benchmark.meta_optimizer import create_meta_optimizer, learning_rate
from benchmark.metagrad import choose, meta_gradient
from benchmark.spec import RunSpec
from benchmark.statistics import task_interval
from benchmark.tasks import TaskStream
from benchmark.training_state import Progress, restore, snapshot
from optimizers.base import InnerOptimizer


class Diverged(Exception):
    """NaN or Inf in a meta-step's loss or gradient, or at meta-validation."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What meta-training tells its caller, and what it asks."""

    save: Callable[[dict[str, Any], Progress], None] = lambda payload, progress: None
    """Called with (payload, progress) before and after every validation, every `save_every_s` seconds, when asked to
    stop, and when the run diverges."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked by every process of the group at once, which all get one answer, after each meta-step and each chunk of a
    validation; when true, :class:`Interrupted` is raised with everything saved but an unfinished validation."""
    on_step: Callable[[Progress], None] = lambda progress: None
    save_every_s: float = 30.0


SILENT = Hooks()


def train(
    optimizer: InnerOptimizer,
    dataset: data.Dataset,
    spec: RunSpec,
    execution: Execution = PLAIN,
    *,
    checkpoint: dict[str, Any] | None = None,
    hooks: Hooks = SILENT,
) -> Progress:
    """Run `spec.iterations` meta-steps and leave the best meta-parameters in `optimizer`.

    One meta-step: θ ← MetaOpt(θ, mean over the meta-batch of ∇_θ objective). Best is by validation accuracy (by nll
    for regression), the earlier one on a tie; those with a validation task whose loss is not finite are not compared,
    and without any that can be the last ones stay.

    Parameters
    ----------
    execution: where and how; the optimizer is on its device and in its precision.
    checkpoint: what ``hooks.save`` got last; training goes on from there.

    Raises
    ------
    Diverged: with the iteration, when a meta-step is not finite and the spec does not say to skip.
    UserError: when `checkpoint` does not fit.
    """
    meta_optimizer = create_meta_optimizer(optimizer, spec)
    stream = TaskStream.of(spec, dataset, "train")
    progress = Progress()
    if checkpoint is not None:
        progress = restore(checkpoint, optimizer, meta_optimizer)
    saved = time.monotonic()

    def save_now() -> None:
        nonlocal saved
        hooks.save(snapshot(progress, optimizer, meta_optimizer), progress)
        saved = time.monotonic()

    while True:
        try:
            if _validation_is_due(progress, spec):
                save_now()
                started = time.monotonic()
                _validate(optimizer, dataset, spec, progress, execution, hooks.should_stop)
                progress.validate_s += time.monotonic() - started
                save_now()
            if progress.iteration == spec.iterations:
                break
            started = time.monotonic()
            loss = _meta_step(optimizer, meta_optimizer, stream, spec, progress, execution)
        except Diverged:
            save_now()
            raise
        progress.train_s += time.monotonic() - started
        progress.iteration += 1
        progress.losses.append(loss)
        hooks.on_step(progress)
        stop = hooks.should_stop()
        if stop or execution.group.any_(time.monotonic() - saved > hooks.save_every_s):
            save_now()
        if stop:
            raise Interrupted(f"interrupted at iteration {progress.iteration}")
    if progress.best is not None:
        optimizer.load_state_dict(progress.best)
    return progress


def _validation_is_due(progress: Progress, spec: RunSpec) -> bool:
    """Whether these meta-parameters are to be validated and were not yet."""
    at = progress.iteration
    if at == 0 or (at % spec.validate_every and at != spec.iterations):
        return False
    return not progress.validations or progress.validations[-1]["iteration"] != at


def _meta_step(
    optimizer: InnerOptimizer,
    meta_optimizer: torch.optim.Optimizer,
    stream: TaskStream,
    spec: RunSpec,
    progress: Progress,
    execution: Execution,
) -> float:
    first = progress.iteration * spec.meta_batch
    indices = range(first, first + spec.meta_batch)
    mean = _batch_gradient(optimizer, stream, spec, indices, execution)
    value, finite = torch.stack([mean[0], mean.isfinite().all().to(mean.dtype)]).tolist()  # the step's one look
    if not finite:
        if spec.on_nonfinite == "stop":
            raise Diverged(f"meta-step {progress.iteration + 1}: loss or meta-gradient is not finite (loss {value:g})")
        progress.skipped += 1
        return value
    if spec.clip:
        mean = mean.clamp(-spec.clip, spec.clip)
    parameters = list(optimizer.parameters())
    parts = mean[1:].split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    for settings in meta_optimizer.param_groups:
        settings["lr"] = learning_rate(spec, progress.iteration) * settings.get("factor", 1.0)
    meta_optimizer.step()
    meta_optimizer.zero_grad(set_to_none=True)
    return value


def _batch_gradient(
    optimizer: InnerOptimizer, stream: TaskStream, spec: RunSpec, indices: range, execution: Execution
) -> Tensor:
    """Mean loss and meta-gradient of the tasks `indices` as one vector, computed by all ranks together.

    Entry 0 is the loss, the others are the meta-gradient in the order of ``optimizer.parameters()``.

    In a loop over tasks (CPU) the result is the same bit by bit whatever the number of ranks.
    """
    group, strategy = execution.group, execution.strategy
    mine = [indices[i] for i in group.share(len(indices))]
    batch = stream.batch(mine, execution)
    noise = stream.noise(optimizer, mine, execution)
    iteration = indices.start // spec.meta_batch
    estimator = "first-order" if iteration < spec.first_order_for else spec.estimator
    progress = iteration / spec.iterations

    def flat(rows: slice) -> Tensor:  # [1 + P]
        part = type(batch)(*(column[rows] for column in batch))
        drawn = None if noise is None else noise[rows]
        loss, gradients = meta_gradient(
            optimizer, part, spec.steps, strategy, execution.recompute, estimator, drawn, progress
        )
        return torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients.values())])

    if choose(strategy, batch) == "loop":
        size = sum(parameter.numel() for parameter in optimizer.parameters())
        rows = batch.query_x.new_zeros(len(mine), 1 + size)
        for i in range(len(mine)):
            rows[i] = flat(slice(i, i + 1))
        first, *others = group.gather(rows, len(indices)).unbind(0)
        total = first.clone()
        for row in others:
            total += row
        return total / len(indices)
    return group.sum_(flat(slice(None)) * (len(mine) / len(indices)))


def _validate(
    optimizer: InnerOptimizer,
    dataset: data.Dataset,
    spec: RunSpec,
    progress: Progress,
    execution: Execution,
    should_stop: Callable[[], bool],
) -> None:
    """Measure on the validation classes and keep the meta-parameters if they are the best so far."""

    def on_chunk(table: pd.DataFrame) -> None:
        if should_stop():
            raise Interrupted(f"interrupted in the meta-validation after iteration {progress.iteration}")

    stream = TaskStream.of(spec, dataset, "val")
    protocol = EvaluationProtocol(tasks=spec.validation_tasks, steps=spec.eval_steps, trace_steps=spec.eval_steps)
    table = measure(optimizer, stream, protocol, execution, on_chunk=on_chunk)
    accuracy, nll = task_interval(table["accuracy"]), task_interval(table["nll"])
    progress.validations.append(
        {"iteration": progress.iteration, "accuracy": accuracy.mean, "accuracy_ci95": accuracy.half, "nll": nll.mean}
    )
    if nll.count == 0:
        raise Diverged(f"meta-validation after meta-step {progress.iteration}: no task has a finite loss")
    if nll.excluded:  # counted in neither mean, so these meta-parameters cannot be compared with others
        return
    score = accuracy.mean if accuracy.count else -nll.mean
    if score > progress.best_score:
        progress.best_score, progress.best_iteration = score, progress.iteration
        progress.best = {key: value.detach().clone() for key, value in optimizer.state_dict().items()}
