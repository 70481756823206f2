"""Meta-training: learn an optimizer's meta-parameters over many tasks, and keep the best by meta-validation.

Everything random is a function of (spec, iteration): tasks by their index, per-task noise by seed and index, the
learning rate by iteration. A checkpoint is therefore small — meta-parameters, the meta-optimizer's moments, the best so
far — and a run that was killed goes on to the same numbers, bit by bit on CPU. Nor do the workers matter there: the
gradients of single tasks are added in the order of the tasks, whoever computed them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Parameter

from benchmark import data
from benchmark.engine.parallel import Group
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.evaluate import draw_noise, draw_tasks, measure
from benchmark.metagrad import choose, meta_gradient
from benchmark.spec import RunSpec
from benchmark.statistics import task_interval
from optimizers.base import InnerOptimizer


class Diverged(Exception):
    """NaN or Inf in a meta-step's loss or gradient, or at meta-validation."""


@dataclass
class Progress:
    """Where meta-training stands: all that a checkpoint holds besides the meta-optimizer's moments."""

    iteration: int = 0
    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    validations: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_iteration: int = 0
    best_score: float = -math.inf
    """Validation accuracy, or for regression minus the loss."""
    train_s: float = 0.0
    """Wall time of the meta-steps."""
    validate_s: float = 0.0
    """Wall time of the validations that ended."""

    def training_table(self) -> pd.DataFrame:
        return pd.DataFrame({"iteration": np.arange(1, len(self.losses) + 1), "loss": self.losses})

    def validation_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.validations, columns=["iteration", "accuracy", "accuracy_ci95", "nll"])


def train(
    optimizer: InnerOptimizer,
    dataset: data.Dataset,
    spec: RunSpec,
    *,
    group: Group,
    device: torch.device,
    strategy: str = "auto",
    recompute: bool = False,
    checkpoint: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any], Progress], None] = lambda payload, progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Progress], None] = lambda progress: None,
    save_every_s: float = 30.0,
) -> Progress:
    """Run `spec.iterations` meta-steps and leave the best meta-parameters in `optimizer`.

    One meta-step: θ ← MetaOpt(θ, mean over the meta-batch of ∇_θ objective). Best is by validation accuracy (by nll
    for regression), the earlier one on a tie.

    Parameters
    ----------
    strategy, recompute: how meta-gradients are computed, see :func:`benchmark.metagrad.meta_gradient`.
    checkpoint: what `save` got last; training goes on from there.
    save: called with (payload, progress) before and after every validation, every `save_every_s` seconds, when asked to
        stop, and when the run diverges.
    should_stop: polled after each meta-step and each chunk of a validation; when true, :class:`Interrupted` is raised
        with everything saved but an unfinished validation.

    Raises
    ------
    Diverged: with the iteration, when a meta-step is not finite and the spec does not say to skip.
    UserError: when `checkpoint` does not fit.
    """
    meta_optimizer = create_meta_optimizer(optimizer, spec)
    progress = Progress()
    if checkpoint is not None:
        progress = restore(checkpoint, optimizer, meta_optimizer)
    saved = time.monotonic()

    def save_now() -> None:
        nonlocal saved
        save(snapshot(progress, optimizer, meta_optimizer), progress)
        saved = time.monotonic()

    while True:
        try:
            if _validation_is_due(progress, spec):
                save_now()
                started = time.monotonic()
                _validate(optimizer, dataset, spec, progress, group, device, strategy, should_stop)
                progress.validate_s += time.monotonic() - started
                save_now()
            if progress.iteration == spec.iterations:
                break
            started = time.monotonic()
            loss = _meta_step(optimizer, meta_optimizer, dataset, spec, progress, group, device, strategy, recompute)
        except Diverged:
            save_now()
            raise
        progress.train_s += time.monotonic() - started
        progress.iteration += 1
        progress.losses.append(loss)
        on_step(progress)
        stop = group.any_(should_stop())
        if stop or group.any_(time.monotonic() - saved > save_every_s):
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


def create_meta_optimizer(optimizer: InnerOptimizer, spec: RunSpec) -> torch.optim.Optimizer:
    """The optimizer of θ that `spec` names; the geometry is a group with a ``factor`` of its own where it has one."""
    parameters: list[Any] = list(optimizer.parameters())
    start, geometry = split_start(optimizer)
    if spec.geometry_lr != 1 and start and geometry:
        parameters = [{"params": start}, {"params": geometry, "factor": spec.geometry_lr}]
    if spec.meta_optimizer == "adam":
        return torch.optim.Adam(parameters, lr=spec.meta_lr, weight_decay=spec.weight_decay)
    return torch.optim.SGD(
        parameters, lr=spec.meta_lr, momentum=spec.momentum, nesterov=spec.momentum > 0, weight_decay=spec.weight_decay
    )


def split_start(optimizer: InnerOptimizer) -> tuple[list[Parameter], list[Parameter]]:
    """The meta-parameters in two parts, the start and the geometry, each in the order of ``parameters()``.

    The start is what the method was given: the parameters of its network (φ_0, for mirror descent z_0), adapted or
    not. The geometry is all that the method brought along: rates, factors, masks, maps, and the layers that it
    inserted into the network, ``network.inserted.*``.
    """
    start: list[Parameter] = []
    geometry: list[Parameter] = []
    for name, parameter in optimizer.named_parameters():
        given = name.startswith("network.") and not name.startswith("network.inserted.")
        (start if given else geometry).append(parameter)
    return start, geometry


def learning_rate(spec: RunSpec, iteration: int) -> float:
    """η_i = meta_lr · γ^⌊i / lr_step⌋ for the meta-step that follows `iteration` completed ones."""
    return spec.meta_lr * spec.lr_gamma ** (iteration // spec.lr_step) if spec.lr_step else spec.meta_lr


def _meta_step(
    optimizer: InnerOptimizer,
    meta_optimizer: torch.optim.Optimizer,
    dataset: data.Dataset,
    spec: RunSpec,
    progress: Progress,
    group: Group,
    device: torch.device,
    strategy: str,
    recompute: bool,
) -> float:
    first = progress.iteration * spec.meta_batch
    indices = range(first, first + spec.meta_batch)
    mean = _batch_gradient(optimizer, dataset, spec, indices, group, device, strategy, recompute)
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
    optimizer: InnerOptimizer,
    dataset: data.Dataset,
    spec: RunSpec,
    indices: range,
    group: Group,
    device: torch.device,
    strategy: str,
    recompute: bool = False,
) -> Tensor:
    """Mean loss and meta-gradient of the training tasks `indices`, computed by all ranks together, as one vector.

    Entry 0 is the loss, the others are the meta-gradient in the order of ``optimizer.parameters()``.

    In a loop over tasks (CPU) the result is the same bit by bit whatever the number of ranks.
    """
    mine = [indices[i] for i in group.share(len(indices))]
    batch = draw_tasks(dataset, "train", spec, spec.query_train, mine, device)
    noise = draw_noise(optimizer, spec, "train", mine, device)

    def flat(rows: slice) -> Tensor:  # [1 + P]
        part = type(batch)(*(column[rows] for column in batch))
        drawn = None if noise is None else noise[rows]
        loss, gradients = meta_gradient(optimizer, part, spec.steps, strategy, recompute, spec.estimator, drawn)
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
    group: Group,
    device: torch.device,
    strategy: str,
    should_stop: Callable[[], bool],
) -> None:
    """Measure on the validation classes and keep the meta-parameters if they are the best so far."""

    def on_chunk(table: pd.DataFrame) -> None:
        if group.any_(should_stop()):
            raise Interrupted(f"interrupted in the meta-validation after iteration {progress.iteration}")

    table = measure(
        optimizer,
        dataset,
        spec,
        "val",
        spec.validation_tasks,
        steps=spec.eval_steps,
        trace_steps=spec.eval_steps,
        group=group,
        device=device,
        strategy=strategy,
        on_chunk=on_chunk,
    )
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


# Checkpoints


def snapshot(progress: Progress, optimizer: InnerOptimizer, meta_optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Plain values and CPU tensors from which :func:`restore` goes on bit by bit."""
    on_cpu = {key: value.detach().cpu().clone() for key, value in optimizer.state_dict().items()}
    best = None if progress.best is None else {key: value.cpu() for key, value in progress.best.items()}
    return {
        "iteration": progress.iteration,
        "meta_parameters": on_cpu,
        "meta_optimizer": meta_optimizer.state_dict(),
        "losses": torch.tensor(progress.losses, dtype=torch.float64),
        "skipped": progress.skipped,
        "validations": progress.validations,
        "best": best,
        "best_iteration": progress.best_iteration,
        "best_score": progress.best_score,
        "train_s": progress.train_s,
        "validate_s": progress.validate_s,
    }


def restore(
    payload: dict[str, Any], optimizer: InnerOptimizer, meta_optimizer: torch.optim.Optimizer | None = None
) -> Progress:
    """Load a :func:`snapshot` into `optimizer` (and `meta_optimizer`) and return where training stood."""
    try:
        optimizer.load_state_dict(payload["meta_parameters"])
        if meta_optimizer is not None:
            meta_optimizer.load_state_dict(payload["meta_optimizer"])
        return Progress(
            iteration=payload["iteration"],
            losses=payload["losses"].tolist(),
            skipped=payload["skipped"],
            validations=list(payload["validations"]),
            best=payload["best"],
            best_iteration=payload["best_iteration"],
            best_score=payload["best_score"],
            train_s=payload["train_s"],
            validate_s=payload["validate_s"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"the checkpoint does not fit this run ({str(error).splitlines()[0]})") from error
