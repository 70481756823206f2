"""What a figure is of, in words, in its file name and as the page filters by it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.report.cell import Cell
from benchmark.report.figures.draw import slug
from benchmark.report.group import TableGroup


def place(group: TableGroup, shots: int | None = None) -> str:
    """``5-way 1-shot CIFAR-FS, controlled recipe``, with an unusual norm; without shots of all of them."""
    return f"{group.ways}-way {f'{shots}-shot ' if shots else ''}{group.title}, {group.protocol}"


def stem(kind: str, group: TableGroup, shots: int | None = None) -> str:
    """The file name without its ending."""
    middle = f"{shots}shot-" if shots else ""
    return f"{kind}-{slug(group.title)}-{group.ways}way-{middle}{slug(group.protocol.replace(' recipe', ''))}"


def unit(cells: Sequence[Cell]) -> str:
    """What the score of these is, as an axis says it."""
    return "loss" if any(cell.metric == "nll" for cell in cells) else "accuracy, %"
