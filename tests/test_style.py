"""The code reads as one: linted, formatted, typed; README, CI and `make check` test alike."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

TOOLS = ["ruff check .", "ruff format --check .", "mypy"]


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_has_nothing_to_say(tool: str) -> None:
    done = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_and_make_check_run_the_readmes_test_command() -> None:
    (command,) = (
        line.strip()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("    sh bootstrap.sh test")
    )
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
    bootstrap, pytest_command = command.split(" && ")
    tools = [f".venv/bin/python -m {tool}" for tool in TOOLS]
    recipe = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    assert recipe == [bootstrap, *tools, pytest_command]
