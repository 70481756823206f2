"""The verb ``verify``: what was checked of each method, and how far off it was.

Two parts. *Derivatives*, on small networks in float64: the meta-gradient against finite differences, against batch norm
written out from primitives, against vmap, against the library `higher` (for maml); MAML's trajectory where the card
claims it; how many meta-parameters get exactly no gradient; and the rules of the contract. *Geometry* of the learned
update, on CNN4: is it monotone, is it symmetric, how is it
conditioned, does it go downhill; at the start, at random meta-parameters, and at the checkpoints of runs, where the
estimators of the meta-gradient are compared too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import optimizers
from benchmark.adapt import InnerLoop, support_gradient, unroll
from benchmark.errors import UserError
from benchmark.files import keyed_rows, merge_rows
from benchmark.metagrad import Task, tasks
from benchmark.report.findings import GEOMETRY_KEY, TABLES
from benchmark.verify import checkpoint, estimators, geometry, search, spectra
from benchmark.verify.checkpoint import Checkpoint
from benchmark.verify.derivatives import (
    STEPS,
    Options,
    Record,
    contract,
    derivatives,
    random_batch,
    small,
)
from optimizers.base import InnerOptimizer, Params
from optimizers.contract import kit
from optimizers.md import DualDescent

__all__ = ["Record", "verify", "write_geometry"]

KEPT = ("geometry", "spectrum", "search")
"""The tables that :func:`verify` adds to."""

MEASURES = ("least", "greatest", "residual", "asymmetry", "condition")


def verify(
    methods: Sequence[str],
    checkpoints: Sequence[Path] | None = None,
    *,
    console: Console | None = None,
    data_root: Path | None = None,
    results: Path | None = None,
    networks: Sequence[str] = ("cnn4",),
    options: Mapping[str, Options] | None = None,
    search_steps: int = 0,
) -> list[Record]:
    """Check `methods` by name on `networks`, and the geometry at `checkpoints`, the directories of trained runs.

    `options` are those of a method by its name. The geometry of such a variant is shown, and kept nowhere.

    `search_steps`: so many steps down in the search for points where a mirror map is not monotone; 0 for no search.

    Tables go to `console` as they are ready; the geometry to ``geometry.csv``, spectra to ``spectrum.csv`` and the
    search to ``search.csv`` in the folder `results`, where the report finds them. All records are returned; the caller
    asks whether all passed.
    """
    console = console or Console(width=200)
    try:
        names = [optimizers.resolve(name) for name in methods]
    except optimizers.UnknownMethod as error:
        raise UserError(str(error)) from None
    chosen = {name: (options or {}).get(name, {}) for name in names}
    for name, network in itertools.product(names, networks):
        try:
            small(name, network, chosen[name])
        except ValueError as error:
            raise UserError(f"{name} on {network}: {error}") from None
    read = [checkpoint.load(Path(path), data_root) for path in checkpoints or ()]
    if results is not None:
        for table in KEPT:  # what cannot be added to is said before the work, not after it
            keyed_rows(results / f"{table}.csv", TABLES[table][1])
    found: list[Record] = []
    for name in names:
        variant = " ".join([name, *(f"{key}={value}" for key, value in chosen[name].items())])
        found.append(contract(name, chosen[name]))
        console.print(_derivatives_table(variant, found[-1:]), "")
        for network in networks:
            rows = list(derivatives(name, network, chosen[name]))
            found += rows
            console.print(_derivatives_table(f"{variant} on {network}", rows), "")
    rows = [_counter_example(), *(row for name in names for row in _untrained(name, chosen[name]))]
    rows += [_trained(each) for each in read]
    console.print(_geometry_table(rows))
    for each in read:
        console.print(f"\n{estimators.title(each)}", style="italic", markup=False, highlight=False)
        console.print(estimators.table(estimators.distances(each)))
    met = list(search.search(names, chosen, read, search_steps)) if search_steps else []
    if met:
        console.print("", search.table(met))
    if results is not None:
        write_geometry([row for row in rows if row.run or not chosen.get(row.method)], results / "geometry.csv")
        spectra.write(read, results / "spectrum.csv")
        search.write([each for each in met if each.run or not chosen.get(each.method)], results / "search.csv")
    failed = [row for row in found + rows if not row.passed]
    total = len(found) + len(rows)
    console.print(f"\n{total - len(failed)} of {total} checks passed", highlight=False)
    for row in failed:
        where = f" on {row.network}" if row.network else ""
        console.print(f"FAIL {row.method}{where}: {row.check}: {row.detail}", markup=False, highlight=False)
    return found + rows


def _derivatives_table(title: str, rows: Sequence[Record]) -> Table:
    table = Table("check", "", "off by", "detail", title=title, title_justify="left", box=None)
    for row in rows:
        off = "" if row.value is None else f"{row.value:.1e}" if isinstance(row.value, float) else f"{row.value:,}"
        table.add_row(row.check, "pass" if row.passed else "FAIL", off, row.detail)
    return table


# Geometry


def _counter_example() -> Record:
    """φ₁ = z₁, φ₂ = z₂ + 3 z₁: the instrument must find −0.5."""

    class Map(nn.Module):
        def forward(self, z: Params) -> Params:
            first, second = z["z"].unbind()
            return {"z": torch.stack([first, second + 3 * first])}

    class Toy(DualDescent):
        card = optimizers.card("md")

    network = nn.Module()
    network.register_parameter("z", nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    method = Toy(network)
    method.g = Map()
    grads = {"z": torch.tensor([1.0, -1.0], dtype=torch.float64)}
    found = geometry.describe(geometry.of_update(method, method.init_state(), grads))
    right = abs(found.least + 0.5) < 1e-9 and not found.monotone and not found.symmetric
    angle = geometry.cosine(method, method.init_state(), grads)
    return Record("counter-example", "z₂ + 3 z₁", right, "expected −0.5", geometry=found, cosine=angle)


def _untrained(name: str, options: Options) -> Iterator[Record]:
    for where, scale in (("start", 0.0), ("random θ", 0.1)):
        optimizer = small(name, "cnn4", options)
        kit.perturb(optimizer, scale)
        record = _measure(name, where, optimizer, tasks(random_batch(2)), kit.stacked_noise(optimizer, 2))
        found = record.geometry
        identity = scale == 0 and optimizer.card.starts_as_maml
        assert found is not None
        wrong = identity and not (found.symmetric and abs(found.least - 1) < 1e-8 and abs(found.greatest - 1) < 1e-8)
        yield replace(record, passed=False, detail="expected the identity") if wrong else record


def _trained(trained: Checkpoint) -> Record:
    """The geometry at the best checkpoint of a run, on two tasks of its test split."""
    spec, each = trained.spec, tasks(trained.batch)
    record = _measure(spec.method, trained.name, trained.optimizer, each, trained.noise, steps=spec.steps)
    return replace(record, run=trained.name)


def _measure(
    name: str, where: str, optimizer: InnerOptimizer, each: list[Task], noise: Tensor | None, steps: int = STEPS
) -> Record:
    """The worst over the first and the last point of every task."""
    maps, cosines = [], []
    for t, task in enumerate(each):
        for k in (0, steps):
            drawn = None if noise is None else noise[t]
            state = unroll(optimizer, task.support_x, task.support_y, InnerLoop(k, trace=False), drawn).state
            with torch.no_grad():
                point = optimizer.params(state)
            _, grads = support_gradient(optimizer, point, task.support_x, task.support_y, create_graph=False)
            maps.append(geometry.describe(geometry.of_update(optimizer, state, grads), iterations=60))
            cosines.append(geometry.cosine(optimizer, state, grads))
    worst = min(maps, key=lambda found: found.least)
    worst = geometry.Geometry(
        least=worst.least,
        greatest=max(found.greatest for found in maps),
        residual=worst.residual,
        asymmetry=max(found.asymmetry for found in maps),
        condition=max(found.condition for found in maps),
    )
    kept = name != "md-convex" or (worst.monotone and worst.symmetric)
    detail = "" if kept else "expected monotone and symmetric"
    size = sum(p.numel() for p in optimizer.start().values())
    return Record(name, where, kept, detail, geometry=worst, cosine=min(cosines), parameters=size)


def write_geometry(rows: Sequence[Record], path: Path) -> None:
    """One row for each start and each checkpoint in the CSV at `path`; rows of other methods and runs are kept."""
    shown = [row for row in rows if row.geometry is not None and (row.run or row.check == "start")]
    fresh = pd.DataFrame(
        {
            "method": [row.method for row in shown],
            "run": [row.run for row in shown],
            "stage": ["trained" if row.run else "start" for row in shown],
            "parameters": [row.parameters for row in shown],
            **{each: [getattr(row.geometry, each) for row in shown] for each in MEASURES},
            "cosine": [row.cosine for row in shown],
        }
    )
    merge_rows(path, fresh, GEOMETRY_KEY)


def _geometry_table(rows: Sequence[Record]) -> Table:
    title = "geometry of the update: the worst over points and tasks (M = −(1/α) ∂φ⁺/∂G; S its symmetric part)"
    columns = (
        "method",
        "at",
        "λ_min(S)",
        "±",
        "λ_max(S)",
        "monotone",
        "asymmetry",
        "gradient of a function",
        "σ ratio ≥",
    )
    table = Table(*columns, "cos(step, −G)", "", title=title, title_justify="left", box=None)
    for row in rows:
        found = row.geometry
        if found is None:
            table.add_row(row.method, row.check, *[""] * 8, row.detail)
            continue
        table.add_row(
            row.method,
            row.check,
            f"{found.least:.4f}",
            f"{found.residual:.0e}",
            f"{found.greatest:.4f}",
            "yes" if found.monotone else "no",
            f"{found.asymmetry:.1e}",
            "yes" if found.symmetric else "no",
            f"{found.condition:.3g}",
            "" if row.cosine is None else f"{row.cosine:.4f}",
            "pass" if row.passed else f"FAIL, {row.detail}",
        )
    return table
