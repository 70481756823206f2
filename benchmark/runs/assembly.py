"""A run put together from its spec: the optimizer, untrained or as it was learned, and whether it can run at all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import optimizers
from benchmark import data, networks
from benchmark.data import episodes
from benchmark.errors import UserError
from benchmark.recipes import BASELINE
from benchmark.runs import checkpoints, store
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream
from benchmark.training_state import restore
from optimizers.base import InnerOptimizer


def build(spec: RunSpec, image_shape: Sequence[int], device: torch.device | None = None) -> InnerOptimizer:
    """The untrained optimizer of a run, on the CPU unless a device is named.

    Its start is a function of seed, network and method alone. A method with an option ``horizon`` (how many inner steps
    are its own) gets the run's steps.
    """
    torch.manual_seed(spec.seed)
    channels, height, width = (*image_shape, 1, 1)[:3]
    network = networks.create(spec.network, spec.ways, (channels, height, width), spec.channels, spec.norm)
    own = {"horizon": spec.steps} if "horizon" in optimizers.options(spec.method) else {}
    optimizer = optimizers.create(spec.method, network, alpha=spec.alpha, **own | spec.options)
    return optimizer.to(device or torch.device("cpu"), torch.float64 if spec.precision == "float64" else torch.float32)


def check(spec: RunSpec, dataset: data.Dataset) -> None:
    """Raise :class:`UserError` now for what would fail in the middle of a run."""
    splits = [*(["test"] if spec.tasks else []), *(["train", "val"] if spec.method != BASELINE else [])]
    for split in splits:
        episodes.check(TaskStream.of(spec, dataset, split))
    if spec.method == BASELINE:
        return
    try:
        optimizer = build(spec, dataset.image_shape)
    except ValueError as error:
        raise UserError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{spec.method} on {spec.network} does not fit into memory; lower --channels") from error
    regression = dataset.kind == "regression"
    if regression != optimizer.is_regression:
        kind = "regression" if regression else "classification"
        raise UserError(f"{spec.dataset} is {kind}, network {spec.network} is not; choose another --network")
    if not regression and spec.ways < 2:
        raise UserError(f"ways must be at least 2 to classify, got {spec.ways}")


def shown_card(spec: RunSpec) -> dict[str, Any] | None:
    """What a report says of the method beside its results; None for the baseline, which is none."""
    if spec.method == BASELINE:
        return None
    card = optimizers.card(spec.method)
    return {"title": card.title, "reconstructed": card.reconstructed}


def load_trained(run: store.Run, data_root: Path | None = None) -> InnerOptimizer:
    """The optimizer of a run with its best meta-parameters, on the CPU.

    Errors: :class:`UserError` where it has no checkpoint, or a damaged one before which others were the best.
    """
    spec = RunSpec.from_dict(run.spec)
    optimizer = build(spec, data.load(spec.dataset, data_root).image_shape)
    checkpoint, remark = checkpoints.read_latest_checkpoint(run.path / "checkpoint.pt")
    if checkpoint is None:
        raise UserError(f"{run.path}: has no checkpoint.pt; it stays on the machine that trains, so run it here first")
    progress = restore(checkpoint, optimizer)
    best = run.status.get("best_iteration", progress.best_iteration)
    if remark and progress.best_iteration != best:
        raise UserError(
            f"{remark.partition('; going on')[0]}, and the one before has the meta-parameters of iteration "
            f"{progress.best_iteration:,}, not of {best:,}, the best; make the run again in another folder (--results)"
        )
    if remark:
        warnings.warn(remark.replace("going on from", "taking"), stacklevel=2)
    if progress.best is not None:
        optimizer.load_state_dict(progress.best)
    return optimizer


OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's and for the CPU allocator's out of memory, and for nothing else."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )
