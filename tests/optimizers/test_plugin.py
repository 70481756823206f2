"""The example of docs/plugin.md, installed as a package, sound by the kit, run by name and seen in the table."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.parser import main
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


@pytest.fixture
def _installed(tmp_path, monkeypatch):
    """The example, built from a copy with no network, is installed where this process finds it."""
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    line = [*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(target))
    yield
    sys.modules.pop("learned_momentum", None)


@pytest.mark.usefixtures("_installed")
def test_installed_it_is_listed_run_by_name_and_in_the_table(tmp_path, capsys):
    assert main(["list"]) == 0
    assert "learned-momentum" in capsys.readouterr().out
    words = ["run", "--methods", "maml,learned-momentum", "--results", str(tmp_path / "results"), "--iterations", "1"]
    words += ["--tasks", "2", "--validation-tasks", "2", "--channels", "4", "--steps", "1", "--workers", "1"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if "earned" in line and "omentum" in line], shown


def test_uninstalled_it_is_unknown(capsys):
    assert main(["run", "--methods", "learned-momentum", "--dry-run"]) == 2
    assert "unknown method 'learned-momentum'" in capsys.readouterr().err
