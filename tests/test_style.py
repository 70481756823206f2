"""The code reads as one: linted, formatted, typed; the two test commands are the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("tool", ["ruff check .", "ruff format --check .", "mypy"])
def test_tool_has_nothing_to_say(tool: str) -> None:
    done = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = (
        line.strip()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("    sh bootstrap.sh test")
    )
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
