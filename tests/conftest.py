"""Shared by all tests: one folder of rendered glyphs, and the command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Here and in every command that a test starts, before torch is loaded: tests are many tiny computations, and on a busy
# machine threads that wait for each other are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests start a hundred interpreters, each of which would compile the project anew: half a second of three.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("no deadline")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All tests share the cores, at most four; a few that were named, a benchmark and long checks run by themselves."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    by_themselves = config.option.benchmark_only or config.option.markexpr != "not long"
    return min(4, os.cpu_count() or 1) if everything and not by_themselves else 0


ROOT = Path(__file__).parent.parent
Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of the test session's own, so that tests neither need nor touch the user's cache."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session", autouse=True)
def _own_data_root(data_root: Path) -> None:
    os.environ["BENCHMARK_DATA"] = str(data_root)


@pytest.fixture
def figures_unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and laid out, and their files are empty: for tests of what a report says in words."""
    monkeypatch.setattr("benchmark.report.figures.draw.write", lambda figure, path: path.write_bytes(b""))


@pytest.fixture(scope="session")
def command() -> Command:
    """``command("run", "--methods", "maml")``: `python -m benchmark` in a process of its own."""

    def run(*words: str | Path, timeout: float = 120, **options: object) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "benchmark", *map(str, words)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, **options)

    return run
