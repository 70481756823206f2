"""How long runs will take: from runs that were measured, else from operations counted.

A meta-step takes what the finished and begun runs of the same work took by their own clocks, shared out among the
workers there are now; runs made on this kind of device, where there are any, and else all. Work that was not met yet is
counted in floating-point operations of convolutions and matrix products, and takes their number times the seconds per
operation of the runs that are there, or of :data:`FLOPS` before there are any. A validation or test task takes its
share of a training task. All this is the time of one process that has its cores to itself.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmark import data
from benchmark.engine.counting import flops
from benchmark.engine.execution import Execution
from benchmark.errors import UserError
from benchmark.metagrad import meta_gradient
from benchmark.recipes import BASELINE
from benchmark.runs import environment, store
from benchmark.runs.assembly import build
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream

FLOPS = 5.5e10
"""Operations per second and worker before anything was measured: a quiet core of a server, 32 × 32 images."""

VALIDATION_SHARE, TEST_SHARE = 0.4, 0.6
"""Time of a task validated or tested (which records a longer trace), in training tasks, as in results/reference."""

EXAMPLES = 3
"""Runs of other methods from which the speed of one that was not met yet is taken."""

WORK = (
    "method", "dataset", "ways", "shots", "network", "channels", "norm", "steps", "estimator", "first_order_for",
    "query_train", "meta_batch", "precision",
)  # fmt: skip
"""Knobs that decide what a meta-step costs; options are left out."""


class Costs:
    """Seconds of meta-steps by `workers` on `device`, learned from the runs below some folders."""

    def __init__(
        self, folders: Iterable[Path], *, workers: int, device: torch.device, data_root: Path | None = None
    ) -> None:
        self.workers, self.data_root = workers, data_root
        here = environment.described(device)
        found: dict[tuple, list[tuple[bool, float, RunSpec]]] = {}
        for folder in folders:
            if not folder.is_dir():
                continue
            for run in store.load_runs(folder, lambda text: None):
                wall, done = run.status.get("wall_s", {}).get("train", 0.0), run.status.get("iteration", 0)
                if wall > 0 and done:
                    spec = RunSpec.from_dict(run.spec)
                    alike = run.environment.get("device") == here and store.CONTINUED not in run.environment
                    step_s = wall / done * run.environment.get("workers", 1) / workers
                    found.setdefault(_work(spec), []).append((alike, step_s, spec))
        self.step_s: dict[tuple, float] = {}
        for work, runs in found.items():
            on_this_kind = [step_s for alike, step_s, _ in runs if alike]
            self.step_s[work] = statistics.median(on_this_kind or [step_s for _, step_s, _ in runs])
        examples = [max(runs, key=lambda run: run[0]) for runs in found.values()]  # one on this kind of device, if any
        if any(alike for alike, _, _ in examples):
            examples = [example for example in examples if example[0]]
        self._examples = [spec for _, _, spec in examples]
        self._counted: dict[tuple, int] = {}

    def left(self, spec: RunSpec, status: dict | None) -> float:
        """Seconds until a run with this status.json (None: not begun) has its result; 0 for the baseline."""
        if spec.method == BASELINE:
            return 0.0
        at = (status or {}).get("iteration", 0)
        checks = spec.iterations // spec.validate_every + bool(spec.iterations % spec.validate_every)
        checks_left = max(0, checks - at // spec.validate_every)
        per_step = self.of_step(spec)
        tasks = VALIDATION_SHARE * checks_left * spec.validation_tasks + TEST_SHARE * spec.tasks
        return per_step * (spec.iterations - at + tasks / spec.meta_batch)

    def of_step(self, spec: RunSpec) -> float:
        """Seconds of one meta-step."""
        work = _work(spec)
        if work not in self.step_s:
            self.step_s[work] = self._operations(spec) * self._seconds_per_operation(spec.method)
        return self.step_s[work]

    def _seconds_per_operation(self, method: str) -> float:
        """Of the runs of this method, else of a few others, else by default.

        A run on images that are not on this machine, so that its work cannot be counted, is no example.
        """
        examples = [spec for spec in self._examples if spec.method == method] or self._examples[:EXAMPLES]
        rates = []
        for spec in examples:
            with contextlib.suppress(UserError):
                rates.append(self.step_s[_work(spec)] / self._operations(spec))
        return statistics.median(rates) if rates else 1.0 / (FLOPS * self.workers)

    def _operations(self, spec: RunSpec) -> int:
        return self._count(spec) * spec.meta_batch

    def _count(self, spec: RunSpec) -> int:
        """Operations of the meta-gradient of one training task."""
        work = _work(spec)
        if work not in self._counted:
            execution = Execution(precision=spec.precision)
            dataset = data.load(spec.dataset, self.data_root)
            optimizer = build(spec, dataset.image_shape)
            stream = TaskStream.of(spec, dataset, "train")
            batch, noise = stream.batch([0], execution), stream.noise(optimizer, [0])
            self._counted[work] = flops(
                lambda: meta_gradient(optimizer, batch, spec.steps, "loop", estimator=spec.estimator, noise=noise)
            )
        return self._counted[work]


def _work(spec: RunSpec) -> tuple:
    return tuple(getattr(spec, name) for name in WORK)


def roughly(seconds: float) -> str:
    """:func:`in_words` in a sentence: ``about 12 min``."""
    words = in_words(seconds)
    if math.isnan(seconds):
        return "an unknown time"
    return f"about {words}" if words[0].isdigit() else words


def in_words(seconds: float) -> str:
    """``3 h 05 min``, ``12 min``, ``less than a minute``; ``–`` for none; ``unknown`` for nan."""
    if math.isnan(seconds):
        return "unknown"
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute" if seconds else "–"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
