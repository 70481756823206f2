"""A search for points at which a mirror map is not monotone.

Theorem 1 of the mirror-descent paper says that the inverse mirror map g is strictly monotone: the symmetric part S of
its Jacobian is positive definite at every dual point z and for every θ. One point with a negative eigenvalue refutes
that; points without one prove nothing, so they are looked for on purpose. An eigenvalue λ of S is a function of z, and
its gradient is ∇_z vᵀJ(z)v with the unit eigenvector v held fixed (Hellmann–Feynman): the search goes down the smooth
minimum of the lowest eigenvalues, from the start z₀ of a task, from the points z_K of adapted tasks and from random
points, with trained θ (the checkpoints of runs) and with random ones. It ends where it finds a negative eigenvalue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.table import Table
from torch import Tensor
from torch.func import grad, jacrev, vjp

from benchmark.adapt import adapt
from benchmark.files import merge_rows
from benchmark.metagrad import Task, tasks
from benchmark.report.findings import SEARCH_KEY
from benchmark.verify import geometry
from benchmark.verify.checkpoint import Checkpoint
from benchmark.verify.derivatives import STEPS, Options, random_batch, small
from optimizers.contract import kit
from optimizers.md import DualDescent

SCALES = (0.3, 0.5)
"""Standard deviations of what is added to every parameter of a random θ."""
SEEDS = (1, 2)
FACTORS = (1, 10)
"""Root mean squares of the tensors of a random z, as multiples of those of z₀."""
WIDTH = 4
"""Channels of the network of a random θ: so small that the whole matrix is met at every step."""
RATE = 0.1
"""Length of a first step, as a share of ‖z₀‖; half as much again after a step down, halved where one leads up."""
SMALLEST = 1e-3
"""A share below which the search ends."""
LOWEST = 8
"""So many of the lowest eigenvalues are brought down together."""
SHARPNESS = 20.0
"""β of the smooth minimum of them."""
DENSE = 1000
"""Up to this d the eigenvalues are those of the whole matrix, to rounding."""


@dataclass(frozen=True)
class Found:
    """What one descent met; a line of ``search.csv``."""

    method: str
    run: str
    """The run whose θ it is; empty for a random θ."""
    theta: str
    point: str
    """How the first z was drawn."""
    steps: int
    first: float
    """λ_min(S) where it began."""
    least: float
    """The least that was met."""
    residual: float
    """How far it may be off."""
    distance: float
    """‖z − z₀‖/‖z₀‖ where it was met."""


def search(
    methods: Sequence[str], options: Mapping[str, Options], trained: Sequence[Checkpoint], steps: int
) -> Iterator[Found]:
    """At most `steps` steps down from every point of every θ, for those of `methods` that have a mirror map."""
    for name in methods:
        for scale in SCALES:
            for seed in SEEDS:
                optimizer = small(name, "cnn4", options.get(name), channels=WIDTH)
                if not isinstance(optimizer, DualDescent):
                    continue
                kit.perturb(optimizer, scale, seed)
                theta = f"random θ, scale {scale:g}, seed {seed}"
                yield from _from_points(name, optimizer, tasks(random_batch(1)), STEPS, ("", theta), steps)
    for each in trained:
        if isinstance(each.optimizer, DualDescent):
            known = each.name, "trained θ"
            yield from _from_points(each.spec.method, each.optimizer, tasks(each.batch), each.spec.steps, known, steps)


def _from_points(
    name: str, optimizer: DualDescent, each: Sequence[Task], inner: int, theta: tuple[str, str], steps: int
) -> Iterator[Found]:
    start = {key: value.detach() for key, value in optimizer.init_state()["z"].items()}
    points = {"z₀": start}
    for number, task in enumerate(each):
        state = adapt(optimizer, task.support_x, task.support_y, inner).state
        points[f"z_K of task {number}"] = {key: value.detach() for key, value in state["z"].items()}
    generator = torch.Generator().manual_seed(0)
    for factor in FACTORS:
        points[f"random z, scale {factor}"] = {
            key: factor
            * value.square().mean().sqrt().clamp(min=1e-3)
            * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
            for key, value in start.items()
        }
    for point, z in points.items():
        taken, first, best, distance = descend(optimizer, z, start, steps)
        yield Found(name, *theta, point, taken, first, best.least, best.residual, distance)


def descend(
    optimizer: DualDescent, point: Mapping[str, Tensor], start: Mapping[str, Tensor], steps: int
) -> tuple[int, float, Low, float]:
    """(steps taken, λ_min at `point`, the least met, its distance from `start` as a share of it)."""
    g, z = geometry.flattened(optimizer.g, point)
    origin = geometry.flattened(optimizer.g, start)[1]
    size, rate, taken = float(origin.norm()), RATE, 0
    here = low(g, z)
    first, best, at = here.least, here, z
    while taken < steps and rate >= SMALLEST and not best.negative:
        down = -here.slope(g, z)
        if not 0 < down.norm() < torch.inf:  # an affine piece: the Jacobian is the same all around
            break
        nearby = z + rate * size * down / down.norm()
        there = low(g, nearby)
        taken += 1
        if there.level < here.level:
            z, here, rate = nearby, there, 1.5 * rate
            if here.least < best.least:
                best, at = here, z
        else:
            rate /= 2
    return taken, first, best, float((at - origin).norm()) / size


@dataclass(frozen=True)
class Low:
    """The lowest eigenvalues of the symmetric part of a Jacobian."""

    values: Tensor
    """[m], rising."""
    vectors: Tensor
    """[m, d]"""
    residual: float

    @property
    def least(self) -> float:
        return float(self.values[0])

    @property
    def negative(self) -> bool:
        """Whether the least one is so beyond rounding: a counter-example, and the end of a search."""
        return self.least < -10 * self.residual

    @property
    def level(self) -> float:
        """−log Σ exp(−β λ)/β: below λ_min, and smooth where eigenvalues cross. A map often has a constant smallest one,
        a scale that no z moves; those above it are what can be brought down."""
        return float(-torch.logsumexp(-SHARPNESS * self.values, 0) / SHARPNESS)

    def slope(self, g: geometry.Product, z: Tensor) -> Tensor:
        """Its gradient by z: the mean of the eigenvalues' gradients ∇_z vᵀJ(z)v by their weights."""
        weights = torch.softmax(-SHARPNESS * self.values, 0)

        def quadratic(at: Tensor) -> Tensor:
            pull = vjp(g, at)[1]
            terms = [w * torch.dot(pull(v)[0], v) for w, v in zip(weights, self.vectors, strict=True)]
            return torch.stack(terms).sum()

        return grad(quadratic)(z).detach()


def low(g: geometry.Product, z: Tensor) -> Low:
    """The lowest eigenvalues at z: of the whole matrix where it is small, else as Lanczos' iteration finds them."""
    if len(z) <= DENSE:
        with torch.no_grad():
            matrix = jacrev(g)(z)
            values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        rounding = len(z) * torch.finfo(z.dtype).eps * float(values.abs().max())
        return Low(values[:LOWEST], vectors[:, :LOWEST].mT, rounding)
    linear = geometry.of_map(lambda at: {"z": g(at["z"])}, {"z": z})
    found = geometry.lanczos(linear.symmetric, linear, 60, torch.Generator().manual_seed(0))
    return Low(found.values[:LOWEST].detach(), found.vectors[:, :LOWEST].mT @ found.basis, found.residual)


def write(found: Sequence[Found], path: Path) -> None:
    """The rows in the CSV at `path`; rows of other methods, runs and places are kept."""
    if found:
        merge_rows(path, pd.DataFrame([vars(each) for each in found]), SEARCH_KEY)


def table(found: Sequence[Found]) -> Table:
    """Every descent on a line."""
    title = "search for a point where the map is not monotone: λ_min of the symmetric part of its Jacobian"
    columns = ("method", "θ", "from", "steps", "first", "least", "±", "away")
    shown = Table(*columns, title=title, title_justify="left", box=None)
    for each in found:
        numbers = (f"{each.first:.4f}", f"{each.least:.4f}", f"{each.residual:.0e}", f"{each.distance:.2f}")
        shown.add_row(each.method, each.run or each.theta, each.point, str(each.steps), *numbers)
    return shown
