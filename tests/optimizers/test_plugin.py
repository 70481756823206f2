"""The example of docs/plugin.md, installed as a package, sound by the kit, run by name and seen in the table."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optimizers.testing import check_inner_optimizer

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "plugin"


def test_the_page_shows_the_files_as_they_are():
    page = (DOCS / "plugin.md").read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", page, flags=re.DOTALL)
    assert (EXAMPLE / "learned_momentum.py").read_text() in blocks
    assert (EXAMPLE / "pyproject.toml").read_text() in blocks
    assert len((EXAMPLE / "learned_momentum.py").read_text().splitlines()) <= 30


def test_the_example_keeps_the_contract():
    spec = importlib.util.spec_from_file_location("learned_momentum", EXAMPLE / "learned_momentum.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    findings = {f.rule: f for f in check_inner_optimizer(lambda network: module.LearnedMomentum(network, alpha=0.1))}
    assert findings["start"].error < 1e-12


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment of a process that sees the example installed; built from a copy, with no network."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    line = [*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}


def test_installed_it_is_listed_run_by_name_and_in_the_table(installed, command, tmp_path):
    listed = command("list", env=installed)
    assert listed.returncode == 0, listed.stderr
    assert "learned-momentum" in listed.stdout
    words = ["run", "--methods", "maml,learned-momentum", "--results", tmp_path, "--iterations", "1", "--tasks", "2"]
    words += ["--validation-tasks", "2", "--channels", "4", "--steps", "1", "--workers", "1"]
    done = command(*words, env=installed)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "earned" in line and "omentum" in line]
    assert rows, done.stdout


def test_uninstalled_it_is_unknown(command):
    done = command("run", "--methods", "learned-momentum", "--dry-run")
    assert done.returncode == 2
    assert "unknown method 'learned-momentum'" in done.stderr
