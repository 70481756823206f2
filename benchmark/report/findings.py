"""What other verbs measured about the methods themselves, where they left it in the results folder.

``verify`` writes the geometry of learned updates and ``time`` their cost, as CSVs beside the runs. All are optional: a
report without them says that there is no evidence. Columns that are missing are read as unknown.

``geometry.csv``: one row for each map that was looked at.
    method; run (name of the run whose checkpoint it is, empty at the start); stage (``start`` or ``trained``);
    parameters (d); least and greatest (eigenvalues of the symmetric part of the Jacobian J); residual (how far the
    least may be off); asymmetry ‖J − Jᵀ‖/2‖J‖; condition; cosine (between update and negative gradient).

``spectrum.csv``: quantiles of the eigenvalues of that symmetric part.
    method; run; share (of the eigenvalues, 0 … 1); eigenvalue (so many lie at or below it).

``search.csv``: one row for each place from which a counter-example to monotonicity was looked for.
    method; run (whose θ it is, else empty); theta (how θ was drawn); point (how z was); steps of descent; first and
    least (eigenvalue where it began and the least met); residual; distance ‖z − z₀‖/‖z₀‖ of the least from its start.

``tuning/tuning.csv``: one row for each trial of a tuning, as :mod:`benchmark.runs.tune` writes it.

``timing.csv``: one row for each method, size and set of conditions.
    method; channels; image_size; parameters (d); adapt_step_ms; transform_ms; meta_gradient_ms; multiply_adds (one
    step, the network's own passes excluded); meta_parameters; peak_mib; and the :data:`CONDITIONS` it was timed under.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmark.errors import UserError, advising
from benchmark.files import read_json
from benchmark.report.published import dataset_title, method_order

GEOMETRY = {
    "method": "str", "run": "str", "stage": "str", "parameters": "float", "least": "float", "greatest": "float",
    "residual": "float", "asymmetry": "float", "condition": "float", "cosine": "float",
}  # fmt: skip
SPECTRUM = {"method": "str", "run": "str", "share": "float", "eigenvalue": "float"}
SEARCH = {
    "method": "str", "run": "str", "theta": "str", "point": "str", "steps": "float", "first": "float",
    "least": "float", "residual": "float", "distance": "float",
}  # fmt: skip
TRIALS = {
    "method": "str", "trial": "float", "alpha": "float", "state": "str", "score": "float", "accuracy": "float",
    "chosen": "str",
}  # fmt: skip
TIMING = {
    "method": "str", "channels": "float", "image_size": "float", "parameters": "float", "adapt_step_ms": "float",
    "transform_ms": "float", "meta_gradient_ms": "float", "evaluation_ms": "float",
    "multiply_adds": "float", "meta_parameters": "float",
    "peak_mib": "float", "shots": "str", "queries": "str", "steps": "str", "tasks": "str", "strategy": "str",
    "threads": "str", "device": "str", "clock": "str",
}  # fmt: skip
CONDITIONS = ("shots", "queries", "steps", "tasks", "strategy", "threads", "device", "clock")
"""Times under other conditions do not compare."""
TIMING_KEY = ("method", "channels", "image_size", *CONDITIONS)
"""What a row is a measurement of."""
GEOMETRY_KEY = ("method", "run", "stage")
SEARCH_KEY = ("method", "run", "theta", "point")
SPECTRUM_KEY = ("method", "run", "share")
TABLES = {
    "geometry": (GEOMETRY, GEOMETRY_KEY),
    "timing": (TIMING, TIMING_KEY),
    "spectrum": (SPECTRUM, SPECTRUM_KEY),
    "search": (SEARCH, SEARCH_KEY),
}
TIMING_ABSENT = {"tasks": "1", "strategy": "auto"}
"""The defaults of ``time``, for files from before these were written."""


@dataclass(frozen=True)
class Findings:
    """One table for each file; empty where nothing was measured."""

    geometry: pd.DataFrame
    timing: pd.DataFrame
    spectrum: pd.DataFrame
    search: pd.DataFrame
    trials: pd.DataFrame
    """Of the tuning below the results, one row a trial; empty where there is none."""
    trials_of: str = ""
    """What was tuned: ``5-way 1-shot CIFAR-FS, 500 meta-steps a trial``."""

    @property
    def empty(self) -> bool:
        """Whether nothing was measured."""
        return all(getattr(self, name).empty for name in (*TABLES, "trials"))

    def milliseconds(self, image_size: float, channels: float, quantity: str = "adapt_step") -> dict[str, float]:
        """Milliseconds by method of one inner step (or `quantity`) of a 1-shot task, at this size alone; empty if none.

        Like for like: under the conditions under which most methods were timed there.
        """
        known = self.timing.dropna(subset=[f"{quantity}_ms"])
        known = known[(known["image_size"] == image_size) & (known["channels"] == channels)]
        known = known[known["shots"].isin(("1", ""))]  # empty: from before other shots could be timed
        known = like_for_like(known, "method")
        return {str(name): float(ms) for name, ms in known.groupby("method")[f"{quantity}_ms"].mean().items()}


def like_for_like(timing: pd.DataFrame, column: str) -> pd.DataFrame:
    """Of these rows those under one set of conditions: the one under which `column` has most different values."""
    if timing.empty:
        return timing
    known = [name for name in CONDITIONS if name in timing]
    conditions = timing[known].astype(str).agg("|".join, axis=1) if known else pd.Series("", timing.index)
    most = timing.groupby(conditions)[column].transform("nunique")
    return timing[conditions == conditions[most.idxmax()]]


def read(*results: Path, refused: Callable[[str], None] | None = None) -> Findings:
    """Read the tables in `results`. A file that is no such table is a :class:`UserError`, or left out and `refused`.

    What several folders measured alike counts once, as the first of them has it; the tuning is the first one's.
    """

    def readable(path: Path, columns: dict[str, str]) -> pd.DataFrame:
        try:
            return _read(path, columns)
        except UserError as error:
            if refused is None:
                raise
            refused(str(error))
            return _empty(columns)

    found = {}
    for name, (columns, key) in TABLES.items():
        table = pd.concat([readable(folder / f"{name}.csv", columns) for folder in results], ignore_index=True)
        found[name] = table.drop_duplicates(list(key), ignore_index=True) if len(results) > 1 else table
    tuned = [folder / "tuning" for folder in results if (folder / "tuning" / "tuning.csv").exists()]
    folder = tuned[0] if tuned else results[0] / "tuning"
    trials = readable(folder / "tuning.csv", TRIALS)
    try:
        return Findings(**found, trials=trials, trials_of=_tuned(folder / "tuned.json"))
    except UserError as error:
        if refused is None:
            raise
        refused(str(error))
        return Findings(**found, trials=trials)


def _tuned(path: Path) -> str:
    if not path.exists():
        return ""
    with advising("delete it, and 'tune' makes it again from its trials"):
        found = read_json(path)
        if not isinstance(found.get("iterations"), int):
            raise UserError(f"{path}: iterations must be a number, got {found.get('iterations')!r}")
    where = f"{found.get('ways')}-way {found.get('shots')}-shot {dataset_title(str(found.get('dataset')))}"
    return f"{where}, {found.get('iterations'):,} meta-steps a trial"


def _empty(columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=_dtype(kind)) for name, kind in columns.items()})


def _read(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    if not path.exists():
        return _empty(columns)
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable table ({str(error).splitlines()[0]}); move it away") from error
    if "method" not in table:
        raise UserError(f"{path}: has no column 'method'; expected {', '.join(columns)}; move it away")
    for name, kind in columns.items():
        if kind == "float":
            table[name] = pd.to_numeric(table[name], errors="coerce") if name in table else math.nan
        else:
            words = table[name].astype(object) if name in table else pd.Series("", table.index, dtype=object)
            table[name] = words.where(words.notna(), "").astype(str)
    order = sorted(table.index, key=lambda index: method_order(str(table["method"][index])))
    return table.loc[order, list(columns)].reset_index(drop=True)


def _dtype(kind: str) -> str:
    return "float64" if kind == "float" else "object"


def growth(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent e of the least-squares fit cost ∝ size^e; nan with fewer than two different sizes."""
    import numpy as np

    pairs = sorted({(float(size), float(cost)) for size, cost in zip(sizes, costs, strict=True) if size > 0 < cost})
    if len({size for size, _ in pairs}) < 2:
        return float("nan")
    x, y = np.log(np.array(pairs)).T
    return float(np.polyfit(x, y, 1)[0])
