"""What the methods of a column were given: a line of facts, as the recipe makes them equal and no paper claims it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmark.recipes import BASELINE
from benchmark.report.group import TableGroup

BUDGET = {
    "network": "network", "channels": "channels", "iterations": "meta-steps", "meta_batch": "tasks each",
    "steps": "inner steps", "eval_steps": "inner steps at test", "query_train": "queries a class in training",
    "query_test": "queries a class at test", "tasks": "test tasks", "meta_optimizer": "meta-optimizer",
    "meta_lr": "meta learning rate",
}  # fmt: skip
TUNED = ("meta_lr",)
"""What the recipe tuned lets differ."""


def facts(groups: Sequence[TableGroup]) -> Iterator[str]:
    """For each recipe and number of shots what all trained runs share, and in what they differ."""
    lines: dict[str, list[str]] = {}
    for group in groups:
        for shots in group.shots:
            runs = [run for cell in group.cells(shots) if cell.method != BASELINE for run in cell.runs]
            if len({run.spec["method"] for run in runs}) < 2:
                continue
            values = {knob: sorted({_text(run.spec.get(knob)) for run in runs}) for knob in BUDGET}
            shared = [f"{BUDGET[knob]} {found[0]}" for knob, found in values.items() if len(found) == 1]
            freed = TUNED if group.recipe == "tuned" else ()
            differ = [
                f"{BUDGET[knob]} {' / '.join(found)}"
                for knob, found in values.items()
                if len(found) > 1 and knob not in freed
            ]
            line = f"all alike in {', '.join(shared)}" + (f"; different in {', '.join(differ)}" if differ else "")
            lines.setdefault(f"Budget ({group.protocol}", []).append(f"{shots}-shot): {line}.")
    for start, ends in lines.items():
        same = {end.partition("): ")[2] for end in ends}
        yield from [f"{start}): {same.pop()}"] if len(same) == 1 else [f"{start}, {end}" for end in ends]


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
