"""Two methods or two norms of one results folder, or one folder against another: paired difference, ratio of cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from benchmark import statistics
from benchmark.errors import UserError, nearest
from benchmark.recipes import BASELINE
from benchmark.report import findings, matrix, pairs, words
from benchmark.report.cell import Cell
from benchmark.report.findings import Findings
from benchmark.report.group import TableGroup, group_runs
from benchmark.report.listing import readable
from benchmark.report.table import timed_ms
from benchmark.screen import one_line
from benchmark.spec import NORMS
from benchmark.spread import Spread
from benchmark.statistics import Interval


@dataclass(frozen=True)
class Comparison:
    """a against b at one place; `names` as they are printed, `row` as in pairs.csv, None without a common task.

    `scores` are over the tasks that both have a finite result on, so that their means differ by ``row["difference"]``.
    """

    where: str
    names: tuple[str, str]
    cells: tuple[Cell, Cell]
    row: pd.Series | None
    scores: tuple[Interval, Interval]
    costs: dict[str, float]


def compare(a: str, b: str, results: Path) -> list[Comparison]:
    """Compare methods `a` and `b` (name, title or label) in `results`, or, if both are folders, their equal rows.

    Where both are norms, each method of `results` is compared with itself under the other norm, on the same tasks.

    p-values are Holm-corrected over everything that is compared here. Raises :class:`UserError` for an unknown name,
    an ambiguous one, and for two that share no place.
    """
    folders = Path(a).is_dir(), Path(b).is_dir()
    if all(folders):
        found = list(_folders(Path(a), Path(b)))
    elif any(folders):
        raise UserError(f"{a} and {b}: one is a folder and the other is not; give two methods or two result folders")
    elif a in NORMS and b in NORMS and a != b:
        groups = group_runs(readable(results))
        for norm in (a, b):
            if norm not in {group.norm for group in groups}:
                raise UserError(f"{results}: has no run under {norm} norm; make one with 'run --norm {norm}'")
        found = list(_norms(a, b, groups))
    else:
        found = list(_methods(a, b, group_runs(readable(results)), results))
    if not found:
        what = "no data set with the same images, ways, shots, recipe and norm in common"
        raise UserError(f"{a} and {b} have {what}; see 'list runs'")
    known = [each.row["p"] if each.row is not None else math.nan for each in found]
    for each, p in zip(found, statistics.holm(known), strict=True):
        if each.row is not None:
            each.row["p_holm"] = p
    return found


def _methods(a: str, b: str, groups: Sequence[TableGroup], results: Path) -> Iterator[Comparison]:
    labels = {row.label: row.method for group in groups for row in group.rows}
    if not labels:
        raise UserError(f"{results}: has no runs; make some with 'python -m benchmark run'")
    one, two = (_label(name, labels) for name in (a, b))
    if one == two:
        raise UserError(f"{a} and {b} are the same row, {one}; name two different ones")
    timed = findings.read(results)
    for group in groups:
        for shots in group.shots:
            column = group.cells(shots)
            cells = {cell.label: cell for cell in column}
            if one in cells and two in cells:
                yield _comparison(group, cells[one], cells[two], (one, two), pairs.seed_spread(column), timed)


def _label(name: str, labels: dict[str, str]) -> str:
    """The one label that `name` means: the label itself, else the method's only (or only plain) one."""
    if name in labels:
        return name
    matching = [label for label, own in labels.items() if own == name or label.casefold() == name.casefold()]
    plain = [label for label in matching if "(" not in label.removesuffix("(ours)")]
    if not matching:
        words = sorted({*labels, *labels.values()})
        raise UserError(
            f"no run of {name!r}{nearest(name, words)}; there are {', '.join(sorted(set(labels.values())))}"
        )
    if len(matching) > 1 and len(plain) != 1:
        raise UserError(f"{name} is several rows; name one of: {'; '.join(matching)}")
    return plain[0] if len(plain) == 1 else matching[0]


def _folders(a: Path, b: Path) -> Iterator[Comparison]:
    other = {(group.source, group.ways, group.recipe, group.norm): group for group in group_runs(readable(b))}
    for group in group_runs(readable(a)):
        match = other.get((group.source, group.ways, group.recipe, group.norm))
        for one, two in _equal_rows(group, match):
            yield _comparison(group, one, two, (f"{one.label} in {a}", f"{two.label} in {b}"))


def _norms(a: str, b: str, groups: Sequence[TableGroup]) -> Iterator[Comparison]:
    """Each row under norm `a` against itself under norm `b`; the baseline has none."""
    other = {(group.source, group.ways, group.recipe): group for group in groups if group.norm == b}
    for group in (each for each in groups if each.norm == a):
        match = other.get((group.source, group.ways, group.recipe))
        for one, two in _equal_rows(group, match):
            if one.method != BASELINE:
                found = _comparison(group, one, two, (f"{one.label} ({a} norm)", f"{two.label} ({b} norm)"))
                yield dataclasses.replace(found, where=_where(group, one.shots, f"{group.recipe} recipe"))


def _equal_rows(group: TableGroup, other: TableGroup | None) -> Iterator[tuple[Cell, Cell]]:
    """The cells of both groups that have one label and one number of shots."""
    for shots in group.shots if other else ():
        assert other is not None
        there = {cell.label: cell for cell in other.cells(shots)}
        yield from ((cell, there[cell.label]) for cell in group.cells(shots) if cell.label in there)


def _where(group: TableGroup, shots: int, protocol: str) -> str:
    return f"{group.ways}-way {shots}-shot {group.title}, {protocol}"


def _comparison(
    group: TableGroup,
    a: Cell,
    b: Cell,
    names: tuple[str, str],
    spread: Mapping[str, Spread] | None = None,
    timed: Findings | None = None,
) -> Comparison:
    record = pairs.compare(group, a, b, spread)
    row = None if record is None else pd.Series(record, dtype=object)
    spent = costs(a, b, group.dataset, timed)
    return Comparison(_where(group, a.shots, group.protocol), names, (a, b), row, common_scores(a, b), spent)


def common_scores(a: Cell, b: Cell) -> tuple[Interval, Interval]:
    """Scores over the (seed, task)s on which both are finite, their half-widths those of one seed as in a table."""
    left, right = a.by_task.align(b.by_task, join="inner")
    kept = np.isfinite(left) & np.isfinite(right)
    return _score(left[kept]), _score(right[kept])


def _score(values: pd.Series) -> Interval:
    """Each seed counts alike, as in a table and in the difference."""
    parts = [statistics.task_interval(seed) for _, seed in values.groupby(level="seed")]
    if not parts:
        return statistics.task_interval([])
    mean = float(np.mean([part.mean for part in parts]))
    half = float(np.sqrt(np.mean([part.half**2 for part in parts])))
    return Interval(mean, half, sum(part.count for part in parts))


def show(found: Sequence[Comparison], console: Console) -> None:
    """Print each comparison in a few lines."""
    for each in found:
        console.print(
            one_line(each.where), style="bold" if console.is_terminal else None, markup=False, highlight=False
        )
        for line in lines(each):
            console.print(one_line(f"  {line}"), markup=False, highlight=False, soft_wrap=True)


def lines(each: Comparison) -> Iterator[str]:
    """What there is to say of one comparison."""
    row = each.row
    if row is None or not row["tasks"]:
        for name, cell in zip(each.names, each.cells, strict=True):
            yield f"{name}: {words.text(cell)}"
        yield "no task that both have a finite result on: nothing to compare"
    else:
        for name, cell, score in zip(each.names, each.cells, each.scores, strict=True):
            yield f"{name}: {words.text(cell, score=score)}"
        finite = [int(np.isfinite(cell.by_task).sum()) for cell in each.cells]
        if max(finite) > row["tasks"]:
            have = " and ".join(f"{count:,}" for count in finite)
            yield f"means over the {row['tasks']:,} tasks that both have a finite result on, of {have}"
        unit = "" if row["lower_is_better"] else " points"
        over_seeds = row["judged_over"] != "tasks"
        over = f"over {row['seeds']} seed{'s' * (row['seeds'] > 1)} and the tasks" if over_seeds else "bootstrap"
        yield (
            f"difference {row['difference']:+.2f}{unit}, 95 % {over} [{row['low']:+.2f}, {row['high']:+.2f}], "
            f"p (Holm) {matrix.p_text(row['p_holm'])}"
        )
        counts = (
            f"larger on {row['wins']}, equal on {row['ties']}, smaller on {row['losses']} of {row['tasks']:,} tasks"
        )
        yield f"effect d {row['effect']:+.2f}; {counts}"
        better = pairs.outcome(row)
        names = {"a": each.names[0], "b": each.names[1]}
        told = f"{names[better]} is better" if better else "no difference beyond chance"
        trained = any(cell.method != BASELINE for cell in each.cells)
        two_models = trained and not over_seeds
        yield f"{told} (two trained models: one seed says nothing of another)" if two_models else told
    if each.costs:
        yield f"cost ratio: {', '.join(f'{name} ×{value:.2f}' for name, value in each.costs.items())}"


TIMED = {"adapt_step": "inner step", "meta_gradient": "meta-gradient"}


def costs(a: Cell, b: Cell, dataset: str, findings: Findings | None) -> dict[str, float]:
    """Cost of a over cost of b: meta-parameters, and the times of :data:`TIMED` as ``time`` measured them, both alike.

    How long runs took says nothing here: they share machines with whatever else is there.
    """
    found = {}
    for quantity, name in TIMED.items():
        one, two = (timed_ms(findings, dataset, cell, quantity) for cell in (a, b))
        if one and two:
            found[name] = one / two
    one, two = (cell.meta_parameters for cell in (a, b))
    if math.isfinite(one) and math.isfinite(two) and two:
        found["meta-parameters"] = one / two
    return found
