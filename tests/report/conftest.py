"""A results folder to fill, for every test of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.runs.store import Run
from tests.report.builder import build_run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def add_run(results: Path) -> Callable[..., Run]:
    """``add_run(method, **knobs)`` writes one run into the test's results folder; see :func:`build_run`."""

    def add(method: str = "maml", **knobs: Any) -> Run:
        return build_run(results, method, **knobs)

    return add
