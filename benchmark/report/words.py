"""Numbers in words: how a mean with its interval, a missing result or a cost is printed everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmark import statistics
from benchmark.report.cell import Cell
from benchmark.statistics import Interval

NONE = "–"
"""What a place without a number shows."""


MINUS = "−"


def signed(value: float, form: str, plus: str = "+") -> str:
    """``+1.20`` or ``−0.31``, with a minus and no hyphen; `plus`: what stands before what is not negative."""
    return f"{value:{plus}{form}}".replace("-", MINUS)


def plus_minus(mean: float, *halves: float) -> str:
    """``48.70 ± 1.84``, ``48.70 ± 0.84 ± 1.20``; without a half-width the mean alone, without a mean a dash."""
    if not math.isfinite(mean):
        return NONE
    return " ± ".join([f"{mean:.2f}".replace("-", MINUS), *(f"{half:.2f}" for half in halves if math.isfinite(half))])


def remarks(cell: Cell, seeds: int = 1) -> str:
    """What a reader must know of a cell besides its number: seeds (if not `seeds`), diverged, unfinished, tasks."""
    parts = []
    if len(cell.measured) != seeds:
        parts.append(f"{len(cell.measured)} seed{'s' * (len(cell.measured) > 1)}")
    if cell.diverged and cell.measured:
        parts.append(f"{cell.diverged} diverged")
    if cell.unfinished and cell.measured:
        parts.append(f"{cell.unfinished} unfinished")
    if cell.score and cell.score.excluded:
        parts.append(f"diverged on {cell.score.excluded} of {cell.score.count + cell.score.excluded} tasks")
    return ", ".join(parts)


def text(cell: Cell | None, seeds: int = 1, score: Interval | None = None) -> str:
    """One cell in words: the score with its interval over tasks, or why there is none. See :func:`remarks`.

    `score`: in place of the cell's own, where only some of its tasks count.
    """
    if cell is None:
        return NONE
    if cell.score is None:
        if cell.diverged:
            return "diverged" if len(cell.runs) == 1 else f"diverged ({cell.diverged} of {len(cell.runs)})"
        return "oom" if all(run.state == "oom" for run in cell.runs) else cell.runs[0].state
    note = remarks(cell, seeds)
    shown = plus_minus(score.mean, score.half) if score else plus_minus(cell.score.mean, cell.score.half, cell.spread)
    return shown + (f" ({note})" if note else "")


def over_seeds(cell: Cell) -> str:
    """The interval over seeds in words; says when it rests on few of them."""
    interval = cell.over_seeds
    if interval is None:
        return NONE
    if interval.count == 1:
        return "one seed"
    few = ", few" if interval.count < statistics.FEW_SEEDS else ""
    return f"{plus_minus(interval.mean, interval.half)} ({interval.count} seeds{few})"


def spread(values: Sequence[float]) -> str:
    """Three digits of the value, or of the smallest and the largest where they differ."""
    if not values:
        return NONE
    ends = (f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".") for value in (min(values), max(values)))
    return " to ".join(dict.fromkeys(ends))


def between(counts: Sequence[int]) -> str:
    """``2,000 to 3,000``, or the one number that all are."""
    return " to ".join(dict.fromkeys(f"{count:,}" for count in (min(counts), max(counts))))


def counted(counts: Sequence[int]) -> str:
    """``32,901``; where numbers differ between recipes or shots, each once."""
    return " / ".join(f"{count:,}" for count in counts) or NONE


def listed(names: Sequence[str]) -> str:
    """``A, B and C``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
