"""Results become an answer: tables, figures, claims and one page, made from what :mod:`benchmark.runs.store` reads.

Everything here is a function of the runs on disk. Nothing imports torch, nothing is measured, nothing is repaired: a
run that diverged, is unfinished or is alone is shown as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(results: Path | Sequence[Path], reports: Path) -> list[Path]:
    """Make the whole report on `results`, one folder or several, under `reports`; the files written, in order."""
    from benchmark.report import build

    return build.write(results, reports)
