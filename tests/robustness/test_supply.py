"""What the project needs from elsewhere: few packages, in releases that were tested, and no network."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
TOOLS = {"ruff", "mypy"}  # the newest read the code, whatever the other releases are
IMPORTED_AS = {"pillow": "PIL"}


def bounds(requirements: list[str], sign: str) -> dict[str, str]:
    found = {}
    for requirement in requirements:
        name, there, version = requirement.partition(sign)
        assert there, f"{requirement!r} has no {sign}"
        found[name.partition("[")[0]] = version
    return found


def test_lower_bounds_are_those_that_were_tested() -> None:
    promised = bounds([*PROJECT["dependencies"], *itertools.chain(*OPTIONAL.values())], ">=")
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    tested = bounds([line for line in lines if not line.startswith("#")], "==")
    assert {name: version for name, version in promised.items() if name not in TOOLS} == tested


def test_dependencies_are_those_that_are_imported() -> None:
    imported = set()
    for path in [*(ROOT / "optimizers").rglob("*.py"), *(ROOT / "benchmark").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    imported -= {*sys.stdlib_module_names, "optimizers", "benchmark"}
    needed = {IMPORTED_AS.get(name, name) for name in bounds(PROJECT["dependencies"], ">=")}
    optional = {re.split(">=", each)[0] for extra in ("peers", "parquet", "cluster") for each in OPTIONAL[extra]}
    assert imported - optional == needed


OFFLINE = """
import socket, sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise ConnectionRefusedError(f"{event} {args[1:]}")

sys.addaudithook(refuse)
try:
    socket.create_connection(("127.0.0.1", 1))
except ConnectionRefusedError as error:
    assert "socket.getaddrinfo" in str(error), error
else:
    raise AssertionError("the network was not shut")

from benchmark.cli.parser import main

folders = ["--results", sys.argv[1], "--reports", sys.argv[2]]
tiny = "--methods maml --iterations 2 --tasks 4 --channels 4 --validate-every 2 --validation-tasks 2 --workers 1"
assert main(["run", *tiny.split(), *folders[:2]]) == 0
assert main(["report", *folders]) == 0
"""


def test_training_measuring_and_reporting_use_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "results"), str(tmp_path / "reports")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "reports" / "index.html").exists()
