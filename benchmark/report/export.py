"""Everything that was measured as one tidy table, for other tools: CSV, compressed CSV or Parquet.

Levels
------
``all``    one line for each number: run, place, ``task``, ``step`` (inner k), ``iteration``, ``quantity``, ``value``.
``runs``   one line for each run: its spec, status and environment, flattened.
``tasks``  one line for each run and test task: accuracy, nll.
``steps``  one line for each run, test task and inner step: support_nll, grad_norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.errors import UserError
from benchmark.files import replacing, without_formulas
from benchmark.report.cell import TRACES, trace
from benchmark.report.group import group_runs
from benchmark.report.published import method_title
from benchmark.runs.store import Run

LEVELS = ("all", "runs", "tasks", "steps")
SUFFIXES = (".csv", ".csv.gz", ".parquet")
PLACE = ("dataset", "ways", "shots", "recipe", "method", "seed")


def frame(runs: Sequence[Run], level: str = "all") -> pd.DataFrame:
    """The table of one level (see the module); runs without a result have their lines where they have numbers."""
    if level not in LEVELS:
        raise UserError(f"level {level!r} is unknown; expected one of {', '.join(LEVELS)}")
    labels = {run.name: method_title(str(run.spec["method"])) for run in runs}
    labels |= {
        run.name: row.label
        for group in group_runs(list(runs))
        for row in group.rows
        for cell in row.cells.values()
        for run in cell.runs
    }
    if level == "runs":
        return pd.DataFrame.from_records([_flat(run, labels[run.name]) for run in runs])
    make = {"all": _all, "tasks": _tasks, "steps": _steps}[level]
    blocks = []
    for run in runs:
        for block in make(run):
            for place, (name, value) in enumerate(_place(run, labels[run.name]).items()):
                block.insert(place, name, value)
            blocks.append(block)
    if not blocks:
        return pd.DataFrame(columns=["run", *PLACE, "label", "state"])
    whole = pd.concat(blocks, ignore_index=True)
    for name in ("run", "dataset", "recipe", "method", "label", "state", "quantity"):
        if name in whole:
            whole[name] = whole[name].astype("category")  # a few words, repeated millions of times
    return whole


def _place(run: Run, label: str) -> dict[str, Any]:
    return {"run": run.name, **{key: run.spec[key] for key in PLACE}, "label": label, "state": run.state}


def _flat(run: Run, label: str) -> dict[str, Any]:
    """Spec, status and environment of a run as one line; nested tables become ``status.wall_s.train``."""
    line = _place(run, label)
    for prefix, values in (("spec", run.spec), ("status", run.status), ("environment", run.environment)):
        line |= {key: value for key, value in _items(prefix, values) if key.removeprefix("spec.") not in PLACE}
    return line | {"command": " ".join(map(str, run.command))}


def _items(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _items(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value


def _tasks(run: Run) -> Iterator[pd.DataFrame]:
    if run.evaluation is not None:
        yield run.evaluation[["task", "accuracy", "nll"]].copy()


def _steps(run: Run) -> Iterator[pd.DataFrame]:
    found = {name: values for name in TRACES if (values := trace(run, name)) is not None}
    if not found or run.evaluation is None:
        return
    tasks = run.evaluation["task"].to_numpy()
    count = min(values.shape[1] for values in found.values())
    columns = {name: values[:, :count].ravel() for name, values in found.items()}
    yield pd.DataFrame({"task": tasks.repeat(count), "step": list(range(count)) * len(tasks), **columns})


def _all(run: Run) -> Iterator[pd.DataFrame]:
    numbers = {
        key: float(value)
        for key, value in _items("status", run.status)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    yield _long(pd.DataFrame([numbers]), [])
    for name, table in (("training", run.training), ("validation", run.validation)):
        if table is not None and len(table):
            renamed = table.rename(
                columns=lambda column, name=name: f"{name}.{column}" if column != "iteration" else column
            )
            yield _long(renamed, ["iteration"])
    for table in _tasks(run):
        yield _long(table, ["task"])
    for table in _steps(run):
        yield _long(table, ["task", "step"])


def _long(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    long = table.melt(id_vars=keys, var_name="quantity", value_name="value").astype({"value": "float64"})
    for key in ("task", "step", "iteration"):
        long[key] = long[key].astype("Int64") if key in keys else pd.array([pd.NA] * len(long), dtype="Int64")
    return long[["task", "step", "iteration", "quantity", "value"]]


def write(table: pd.DataFrame, path: Path) -> None:
    """Write `table` whole or not at all; the form is that of the name's ending. :class:`UserError` for another one."""
    suffix = next((each for each in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(each)), None)
    if suffix is None:
        raise UserError(f"{path}: cannot tell the form; end the name in {', '.join(SUFFIXES)}")
    with replacing(path) as temporary:
        if suffix == ".parquet":
            try:
                table.to_parquet(temporary, index=False)
            except ImportError:
                raise UserError(
                    f"{path}: Parquet needs pyarrow (pip install pyarrow); or end the name in .csv.gz"
                ) from None
        else:
            compression: Any = {"method": "gzip", "mtime": 0} if suffix == ".csv.gz" else None
            without_formulas(table).to_csv(temporary, index=False, compression=compression)
