"""How far each estimator is from the exact meta-gradient g, at the checkpoint of a run and the run's own K.

For the mean gradient ĝ of two test tasks, all meta-parameters together, in float64: the cosine ⟨ĝ, g⟩ / (‖ĝ‖ ‖g‖) and
the relative error ‖ĝ − g‖ / ‖g‖. Nothing passes or fails: it is what an approximation costs in this place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from benchmark.metagrad import meta_gradient
from benchmark.verify.checkpoint import Checkpoint


@dataclass(frozen=True)
class Distance:
    """An estimator against exact."""

    estimator: str
    cosine: float
    """nan where one of the two gradients is zero."""
    error: float
    """‖ĝ − g‖ / ‖g‖."""


def distances(checkpoint: Checkpoint) -> list[Distance]:
    """Of exact, first-order and truncated:1 … truncated:K−1."""
    steps = checkpoint.spec.steps
    names = ["exact", "first-order", *(f"truncated:{last}" for last in range(1, steps))]

    def gradient(estimator: str) -> Tensor:
        found = meta_gradient(
            checkpoint.optimizer, checkpoint.batch, steps, "loop", estimator=estimator, noise=checkpoint.noise
        )[1]
        return torch.cat([g.flatten() for g in found.values()])

    exact = gradient("exact")
    return [distance(name, exact if name == "exact" else gradient(name), exact) for name in names]


def distance(name: str, found: Tensor, exact: Tensor) -> Distance:
    """Between two gradients [P]."""
    cosine = (found @ exact) / (found.norm() * exact.norm())
    return Distance(name, float(cosine), float((found - exact).norm() / exact.norm()))


def title(checkpoint: Checkpoint) -> str:
    """What stands above :func:`table`, which is narrower than a run's name."""
    return f"estimators of the meta-gradient at {checkpoint.name}, K = {checkpoint.spec.steps}, two test tasks"


def table(rows: list[Distance]) -> Table:
    shown = Table("estimator", "cos(ĝ, g)", "‖ĝ − g‖ / ‖g‖", box=None)
    for row in rows:
        shown.add_row(row.estimator, f"{row.cosine:.4f}", f"{row.error:.2e}")
    return shown
