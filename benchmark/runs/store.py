"""Results on disk, read: one directory per run. :mod:`benchmark.runs.directory` writes it.

::

    results/<run name>/
        spec.json         the resolved spec, the environment it ran in, the command that made it, what the method's card
                          says to a reader of results, and for the recipe tuned which tuning its values come from
        status.json       state, iteration, wall time, best checkpoint; rewritten as the run goes
        training.csv      iteration, loss                        (outer loss of each meta-step)
        validation.csv    iteration, accuracy, accuracy_ci95, nll
        evaluation.csv    one row per new task: accuracy, nll, support_nll_k and grad_norm_k for k = 0 … K; a trial of
                          a tuning (no test tasks) has none
        checkpoint.pt     meta-parameters and optimizer state; checkpoint.prev.pt is the one before
                          (:mod:`benchmark.runs.checkpoints`)

A finished run's status holds the SHA-256 of its tables, so that damage is found. Reading needs no torch.

A folder of schema 1 is read under the name that it has, and takes its new one when the run goes on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError, advising
from benchmark.files import read_json, read_table
from benchmark.runs import schema_one
from benchmark.spec import SCHEMA, RunSpec

if TYPE_CHECKING:
    import pandas as pd

SINGLE = 2.0**128
"""Larger than any finite float32."""


ENDED = ("finished", "diverged")
"""States of a run that has its result."""

CONTINUED = "continued"
"""In a run's environment: for each time that it went on elsewhere, after how many meta-steps and what was different."""

STATES = ("running", "interrupted", "finished", "diverged", "failed", "oom")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


TABLES = ("training.csv", "validation.csv", "evaluation.csv")

STATUS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "iteration": ("a count", _count),
    "meta_parameters": ("a count", _count),
    "best_iteration": ("a count", _count),
    "skipped_steps": ("a count", _count),
    "best_score": ("a number or null", lambda value: value is None or _number(value)),
    "message": ("a text", _text),
    "updated": ("a text", _text),
    "wall_s": ("a table of numbers", lambda value: isinstance(value, dict) and all(map(_number, value.values()))),
    "sha256": ("a table of texts", lambda value: isinstance(value, dict) and all(map(_text, value.values()))),
}
"""What the fields of status.json must be; any of them may be absent, and others are let be."""


def _read_status(path: Path) -> dict[str, Any]:
    """status.json; before the first is written the run is ``running``."""
    if not path.exists():
        return {"state": "running"}
    trained = (path.parent / "checkpoint.pt").exists()
    advice = "delete it, and 'run' goes on from the checkpoint" if trained else "restore it, or move its folder away"
    with advising(advice):
        return _checked_status(read_json(path), path)


def _checked_status(status: dict[str, Any], path: Path) -> dict[str, Any]:
    if status.get("state") not in STATES:
        raise UserError(f"{path}: state {status.get('state')!r}, expected one of {', '.join(STATES)}")
    for key, (what, holds) in STATUS.items():
        if key in status and not holds(status[key]):
            raise UserError(f"{path}: {key} must be {what}, got {status[key]!r}")
    return status


@dataclass(frozen=True)
class Run:
    """One run directory, read."""

    path: Path
    spec: dict[str, Any]
    environment: dict[str, Any]
    command: list[str]
    status: dict[str, Any]
    schema: int = SCHEMA
    tuning: dict[str, Any] = field(default_factory=dict)
    """Where the values of the recipe tuned come from, see :meth:`benchmark.runs.tune.Tuning.record`; else empty."""
    card: dict[str, Any] = field(default_factory=dict)
    """``title`` and ``reconstructed`` of the method's card; empty for the baseline and in runs that are older."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state(self) -> str:
        return str(self.status.get("state", "running"))

    @property
    def is_trial(self) -> bool:
        """Whether the run has no test tasks: it is chosen by, and is no row of a table of results."""
        return not self.spec["tasks"]

    @functools.cached_property
    def training(self) -> pd.DataFrame | None:
        return self._table("training", ("iteration", "loss"))

    @functools.cached_property
    def validation(self) -> pd.DataFrame | None:
        return self._table("validation", ("iteration", "accuracy", "accuracy_ci95", "nll"))

    @functools.cached_property
    def evaluation(self) -> pd.DataFrame | None:
        """Per-task measurements; None unless the run is finished and has test tasks."""
        if self.state != "finished" or self.is_trial:
            return None
        table = self._table("evaluation", ("task", "accuracy", "nll"))
        if table is not None:
            _check_evaluation(table, self.path / "evaluation.csv")
        return table

    def check_tables(self) -> None:
        """:class:`UserError` if a table is damaged, or a finished run has no evaluation."""
        for name in ("training", "validation", "evaluation"):
            getattr(self, name)
        if self.state == "finished" and self.evaluation is None and not self.is_trial:
            raise UserError(f"{self.path / 'evaluation.csv'}: is missing, though the run is finished")

    def is_intact(self) -> bool:
        """Whether the tables are those whose hashes a finished run's status holds; read, and not parsed."""
        try:
            return all(
                hashlib.sha256((self.path / name).read_bytes()).hexdigest() == digest
                for name, digest in self.status.get("sha256", {}).items()
                if name in TABLES
            )
        except OSError:
            return False

    def _table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame | None:
        return read_table(self.path / f"{name}.csv", columns, self.status.get("sha256", {}).get(f"{name}.csv"))


def _check_evaluation(table: pd.DataFrame, path: Path) -> None:
    """:class:`UserError` for what no measurement can be; nan and inf are what a diverged task is."""
    task, accuracy = table["task"], table["accuracy"]
    if table.empty:
        raise UserError(f"{path}: holds no task")
    if task.dtype.kind not in "iu" or task.min() < 0 or not task.is_unique:
        raise UserError(f"{path}: task must be different whole numbers from 0 on")
    if not (accuracy.between(0, 1) | accuracy.isna()).all():
        raise UserError(f"{path}: accuracy must lie between 0 and 1")
    finite = table.where(table.abs() < math.inf)
    if finite.abs().to_numpy(dtype=float, na_value=0.0).max() > SINGLE:
        raise UserError(f"{path}: holds numbers beyond single precision, in which all are measured")


def document_digest(document: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a spec.json without the digest in it."""
    kept = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def is_run(path: Path) -> bool:
    """Whether a run lies at `path`: a folder with spec.json. :class:`UserError` for one that cannot be looked into."""
    try:
        return (path / "spec.json").exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable, or move it away") from error


def load_run(path: Path) -> Run:
    """Read one run directory; :class:`UserError` names the file and field that is not as written by this suite."""
    file = path / "spec.json"
    with advising("move its folder away"):
        document = read_json(file)
        schema = document.get("schema")
        if schema not in (1, SCHEMA):
            newer = ": of a newer release" if isinstance(schema, int) and schema > SCHEMA else ""
            raise UserError(f"{file}: schema {schema!r}, expected {SCHEMA}{newer}")
    try:
        spec = RunSpec.from_dict(document["spec"])
    except KeyError as error:
        raise UserError(f"{file}: has no spec") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    name = document.get("name")
    names = (name, spec.name) if schema == 1 else (name,)  # killed after it was renamed: what is in it is of schema 1
    digest = schema_one.digest(spec) if schema == 1 else spec.digest()
    if path.name not in names or not str(name).endswith(f"-{digest}"):
        raise UserError(f"{file}: is not of {path.name}; a run's folder is named by its spec and cannot be renamed")
    environment, command = document.get("environment", {}), document.get("command", [])
    if not isinstance(environment, dict):
        raise UserError(f"{file}: environment must be a table")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise UserError(f"{file}: command must be a list of words")
    tuning = document.get("tuning", {})
    if not isinstance(tuning, dict):
        raise UserError(f"{file}: tuning must be a table")
    card = document.get("card", {})
    if not isinstance(card, dict) or not isinstance(title := card.get("title", ""), str) or not title.isprintable():
        raise UserError(f"{file}: card must be a table whose title is a line of text")
    if not isinstance(card.get("reconstructed", False), bool):
        raise UserError(f"{file}: reconstructed in card must be true or false, got {card['reconstructed']!r}")
    if "sha256" in document and document["sha256"] != document_digest(document):  # older runs have none
        raise UserError(f"{file}: damaged or edited (its SHA-256 does not match what it says)")
    return Run(path, spec.to_dict(), environment, command, _read_status(path / "status.json"), schema, tuning, card)


def load_runs(results: Path, refused: Callable[[str], None] | None = None, *, tables: bool = False) -> list[Run]:
    """Every run below `results`, by name. A directory without spec.json is no run.

    A bad one raises :class:`UserError`, or is left out and its error handed to `refused`, so that it does not hide the
    others. `tables`: read the tables now, so that damage in one of them is a reason too.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such results folder; make one with 'python -m benchmark run'")
    runs = []
    for path in sorted(results.iterdir()):
        try:
            if not is_run(path):
                continue
            run = load_run(path)
            if tables:
                run.check_tables()
        except UserError as error:
            if refused is None:
                raise
            refused(str(error))
        else:
            runs.append(run)
    return _once(runs, refused)


def _once(runs: list[Run], refused: Callable[[str], None] | None) -> list[Run]:
    """`runs` without those of schema 1 that are there under their new name too: they would be counted twice."""
    names = {run.name for run in runs}
    kept = []
    for run in runs:
        new = RunSpec.from_dict(run.spec).name if run.schema != SCHEMA else run.name
        if new == run.name or new not in names:
            kept.append(run)
            continue
        message = f"{run.path}: is the run {new} under its former name; delete one of the two folders"
        if refused is None:
            raise UserError(message)
        refused(message)
    return kept


def results_folders(results: Path) -> list[Path]:
    """`results`, and the folders of runs right below it."""
    below = sorted(each for each in results.iterdir() if each.is_dir()) if results.is_dir() else []
    return [results, *(each for each in below if _holds_runs(each))]


def _holds_runs(path: Path) -> bool:
    """Not where it cannot be looked into: :func:`load_runs` of the folder above says so."""
    with contextlib.suppress(UserError, OSError):
        return not is_run(path) and any(path.glob("*/spec.json"))
    return False
