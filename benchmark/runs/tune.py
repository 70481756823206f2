"""Tuning: the same few points of one search space for every method, chosen from by meta-validation alone.

A *trial* is an ordinary run of the controlled recipe at one point of the space, without test tasks: no test class is
read. All methods meet the same points, a scrambled Sobol sequence. The choice of a method is the trial with the best
meta-validation accuracy (minus the loss for regression), the earlier one on a tie; a trial that diverged has no score.

::

    DIR/<run name>/    the trials
    DIR/tuning.csv     one row per trial
    DIR/tuned.json     what was chosen, from which space, on which data; what ``run --recipe tuned`` reads
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import recipes
from benchmark.errors import UserError, advising
from benchmark.files import locked, read_json, write_atomic
from benchmark.runs import store
from benchmark.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
MOST_TRIALS = 1000
SPACE: dict[str, tuple[float, float]] = {"alpha": (0.01, 0.5), "meta_lr": (3e-4, 3e-3), "geometry_lr": (0.1, 10.0)}
"""Smallest and largest value of what is tuned, logarithmic in between. One space for all methods."""

_DEFAULTS = RunSpec()

DIGITS = 4
"""Significant digits of the values drawn: a spec can be read."""


def points(trials: int, seed: int) -> list[dict[str, float]]:
    """The first `trials` points of the scrambled Sobol sequence of `seed`, u ∈ [0, 1)³ → low·(high/low)^u.

    More trials only add points.
    """
    import numpy as np
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(SPACE), scramble=True, seed=np.random.default_rng(seed))
    drawn = sampler.random_base2(max(0, math.ceil(math.log2(trials))))[:trials]
    return [
        {
            name: float(f"{low * (high / low) ** float(u):.{DIGITS}g}")
            for (name, (low, high)), u in zip(SPACE.items(), line, strict=True)
        }
        for line in drawn
    ]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is tuned, on what: everything that decides the trials but the method."""

    dataset: str
    shots: int = 1
    seed: int = 0
    trials: int = 8
    iterations: int = 500
    preset: str = "quick"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Other knobs that differ from the controlled recipe's."""

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= MOST_TRIALS:
            raise UserError(f"trials must lie between 1 and {MOST_TRIALS:,}, got {self.trials}")
        if self.iterations < 1:
            raise UserError(f"iterations must be at least 1 to tune, got {self.iterations}")
        fixed = [name for name in (*SPACE, "tasks") if name in self.knobs]
        if fixed:
            raise UserError(f"{fixed[0]} is no knob of a tuning: {', '.join(SPACE)} are tuned, and no test task is met")

    def specs(self, method: str) -> list[RunSpec]:
        """The trials of `method`, in order; validated half way and at the end unless a knob says otherwise."""
        base = {"validate_every": max(1, self.iterations // 2)} | dict(self.knobs)
        base |= {"iterations": self.iterations, "seed": self.seed, "tasks": 0}
        return [
            recipes.resolve(
                method,
                self.dataset,
                shots=self.shots,
                recipe_name="controlled",
                preset=self.preset,
                overrides=base | point,
            )
            for point in points(self.trials, self.seed)
        ]

    def plan(self, methods: Sequence[str]) -> list[RunSpec]:
        """All trials, each point for every method before the next point."""
        return [spec for trial in zip(*(self.specs(method) for method in methods), strict=True) for spec in trial]

    def describe(self, dataset_hash: str) -> dict[str, Any]:
        """What two tunings must agree in to be one: plain data."""
        spec = self.specs("maml")[0].to_dict()
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "dataset_hash": dataset_hash,
            "ways": spec["ways"],
            "shots": self.shots,
            "iterations": self.iterations,
            "trials": self.trials,
            "seed": self.seed,
            "space": {name: list(bounds) for name, bounds in SPACE.items()},
            "points": points(self.trials, self.seed),
            "protocol": {key: value for key, value in spec.items() if key not in (*SPACE, "method", "options")},
        }


def write(results: Path, search: Search, methods: Sequence[str], dataset_hash: str) -> Tuning:
    """Write ``tuning.csv`` and ``tuned.json`` from the trials on disk, of `methods` and of those chosen for before."""
    with locked(results):
        return _write(results, search, methods, dataset_hash)


def _write(results: Path, search: Search, methods: Sequence[str], dataset_hash: str) -> Tuning:
    description = search.describe(dataset_hash)
    before = _before(results, description)
    known = list(dict.fromkeys([*before, *methods]))
    rows = {method: _rows(results, method, search.specs(method)) for method in sorted(known)}
    best: dict[str, Any] = {}
    without: dict[str, str] = {}
    for method, trials in rows.items():
        chosen = _choose(trials)
        if chosen is not None:
            chosen["chosen"] = "yes"
            kept = ("trial", "run", *SPACE, "score", "accuracy", "accuracy_ci95", "best_iteration")
            best[method] = {key: chosen[key] for key in kept} | {"edge": _edges(chosen, description["points"])}
        elif all(trial["state"] in store.ENDED for trial in trials):
            without[method] = "no trial has a score"
    document = description | {"chosen": best, "without_choice": without}
    for name, content in (
        ("tuning.csv", _table(rows).to_csv(index=False)),
        ("tuned.json", json.dumps(document, indent=2) + "\n"),
    ):
        if not (results / name).exists() or (results / name).read_text() != content:
            write_atomic(results / name, content.encode())
    return load(results)


def _before(results: Path, description: dict[str, Any]) -> list[str]:
    """Methods that an earlier ``tune`` of the same search chose for; :class:`UserError` if it was another search."""
    if not (results / "tuned.json").exists():
        return []
    document = load(results).document
    protocol = document.get("protocol")
    if isinstance(protocol, dict):  # a knob that is younger than the file had its default
        document["protocol"] = {key: protocol.get(key, getattr(_DEFAULTS, key)) for key in description["protocol"]}
    for key, value in description.items():
        if document.get(key) != value:
            raise UserError(
                f"{results / 'tuned.json'}: is another tuning ({key} differs); name another folder by --results"
            )
    return [*document["chosen"], *document["without_choice"]]


def check(results: Path, search: Search, dataset_hash: str) -> None:
    """:class:`UserError` now if :func:`write` would meet another tuning in this folder."""
    _before(results, search.describe(dataset_hash))


def _rows(results: Path, method: str, specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    rows = []
    for trial, spec in enumerate(specs):
        path = results / spec.name
        run = store.load_run(path) if store.is_run(path) else None
        row: dict[str, Any] = {"method": method, "trial": trial, "run": spec.name}
        row |= {name: getattr(spec, name) for name in SPACE}
        row |= {"state": run.state if run else "new", "score": None, "accuracy": None, "accuracy_ci95": None}
        row |= {"best_iteration": None, "chosen": "no"}
        if run is not None and run.state == "finished" and run.status.get("best_score") is not None:
            row |= {"score": run.status["best_score"], "best_iteration": run.status["best_iteration"]}
            row |= _validated(run, run.status["best_iteration"])
        rows.append(row)
    return rows


def _validated(run: store.Run, iteration: int) -> dict[str, float | None]:
    """Validation accuracy and its interval at `iteration`; None for a regression, which has none."""
    table = run.validation
    line = None if table is None else table[table["iteration"] == iteration]
    if line is None or len(line) != 1:
        raise UserError(f"{run.path / 'validation.csv'}: has not one line of iteration {iteration}, the best one")
    found = {key: float(line[key].iloc[0]) for key in ("accuracy", "accuracy_ci95")}
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _choose(trials: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The trial with the best score, the first on a tie; None until all trials ended, and where none has a score."""
    scored = [trial for trial in trials if trial["score"] is not None]
    if not scored or any(trial["state"] not in store.ENDED for trial in trials):
        return None
    return max(scored, key=lambda trial: trial["score"])  # max: the first of equals


def _edges(chosen: dict[str, Any], drawn: Sequence[dict[str, float]]) -> dict[str, str]:
    """Values that are the smallest or the largest of those drawn: a wider space might have held a better one."""
    edges = {}
    for name in SPACE:
        values = [point[name] for point in drawn]
        if chosen[name] in (min(values), max(values)):
            edges[name] = "smallest" if chosen[name] == min(values) else "largest"
    return edges


def _table(rows: Mapping[str, Sequence[dict[str, Any]]]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame.from_records([row for trials in rows.values() for row in trials])
    return table.astype({"best_iteration": "Int64"})


@dataclass(frozen=True)
class Tuning:
    """A ``tuned.json``, read."""

    path: Path
    sha256: str
    document: dict[str, Any]

    def values(self, method: str) -> dict[str, float]:
        """What was chosen for `method`; :class:`UserError` where nothing was."""
        if method not in self.document["chosen"]:
            why = self.document["without_choice"].get(method, "it was not tuned, or its trials have not all ended")
            raise UserError(f"{self.path}: has no choice for {method} ({why}); tune it there, or leave it out")
        return {name: self.document["chosen"][method][name] for name in SPACE}

    def record(self, method: str) -> dict[str, Any]:
        """What a run with these values keeps of their origin."""
        shared = ("dataset", "dataset_hash", "shots", "iterations", "trials", "seed", "space")
        return {"sha256": self.sha256, **{key: self.document[key] for key in shared}, **self.document["chosen"][method]}

    def require(self, specs: Sequence[RunSpec], dataset_hash: str) -> None:
        """:class:`UserError` unless these runs may use this tuning: the same images, the same number of ways."""
        if dataset_hash != self.document["dataset_hash"]:
            raise UserError(
                f"{self.path}: tuned on {self.document['dataset']} (hash {self.document['dataset_hash'][:12]}), not on "
                f"{specs[0].dataset} (hash {dataset_hash[:12]}); tune on this data set"
            )
        for spec in specs:
            if spec.ways != self.document["ways"]:
                raise UserError(f"{self.path}: tuned for {self.document['ways']} ways, not {spec.ways}; tune for those")
            norm = (self.document.get("protocol") or {}).get("norm", _DEFAULTS.norm)
            if spec.norm != norm:
                raise UserError(f"{self.path}: tuned with norm {norm}, not {spec.norm}; tune with that")


def load(folder: Path) -> Tuning:
    """Read the ``tuned.json`` in `folder`; :class:`UserError` where it is missing or not as written here."""
    path = folder / "tuned.json"
    if not path.exists():
        raise UserError(f"{path}: no such tuning; make one with 'python -m benchmark tune --results {folder}'")
    with advising("delete it, and 'tune' makes it again from its trials"):
        return Tuning(path, *_read(path))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Its SHA-256, and what it says."""
    document = read_json(path)
    if document.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {document.get('schema')!r}, expected {SCHEMA}")
    kinds = {"dataset": str, "dataset_hash": str, "ways": int, "shots": int, "iterations": int, "trials": int}
    kinds |= {"seed": int, "space": dict, "chosen": dict, "without_choice": dict}
    for key, kind in kinds.items():
        if not isinstance(document.get(key), kind):
            raise UserError(f"{path}: {key} must be {kind.__name__}, got {document.get(key)!r}")
    for method, chosen in document["chosen"].items():
        if not isinstance(chosen, dict) or not all(isinstance(chosen.get(name), float) for name in SPACE):
            raise UserError(f"{path}: the choice for {method} must have numbers for {', '.join(SPACE)}")
    return hashlib.sha256(path.read_bytes()).hexdigest(), document
