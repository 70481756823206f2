"""Where a claim is checked: in the paper's own setting, or in another one of which alone the verdict speaks."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark import recipes
from benchmark.errors import UserError
from benchmark.report.cell import Cell
from benchmark.report.published import dataset_key
from benchmark.runs.store import Run

DATASET = "miniimagenet"
FREE = {"seed", "tasks", "trace_steps", "validate_every", "validation_tasks", "on_nonfinite"}
"""Knobs that leave a run as published whatever their value."""


def as_published(cells: Sequence[Cell]) -> bool:
    """Whether every trained run was made on the paper's data set by its method's recipe, nothing changed."""
    runs = [run for cell in cells if cell.method != recipes.BASELINE for run in cell.runs]
    return bool(runs) and not any(deviations(run) for run in runs)


def deviations(run: Run) -> list[str]:
    """The knobs in which a run differs from how its authors ran the method on miniImageNet."""
    method, shots = str(run.spec["method"]), int(run.spec["shots"])
    try:
        printed = recipes.resolve(
            method, DATASET, shots=shots, recipe_name="published", preset="paper", overrides={}
        ).to_dict()
    except UserError:  # nobody published this method
        return ["method"]
    own = run.spec | {"dataset": dataset_key(str(run.spec["dataset"]))}
    return [knob for knob, value in printed.items() if knob not in FREE and own.get(knob) != value]
