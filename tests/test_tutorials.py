"""Every tutorial, and README's example in Python, run as they stand: block after block, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import torch

from benchmark.cli.parser import main
from optimizers import registry
from tests.conftest import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path) -> None:
    """An empty folder, a data root that tutorials may write into and that has the glyphs, and no method added."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    for built_in in data_root.glob("glyphs*"):
        os.symlink(built_in, root / built_in.name)
    monkeypatch.setenv("BENCHMARK_DATA", str(root))
    monkeypatch.setattr(registry, "_registered", {})


def run_page(page: Path) -> dict[str, object]:
    """Run all blocks of a page; what its Python defined."""
    names: dict[str, object] = {}
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        language, code = block.groups()
        if language == "python":
            line = text[: block.start(2)].count("\n")
            exec(compile("\n" * line + code, page, "exec", dont_inherit=True), names)
            continue
        for command in code.splitlines():
            prefix, verb = command[:19], shlex.split(command[19:])
            assert prefix == "python -m benchmark", command
            assert main(verb) == 0, command
    return names


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_runs(page: Path) -> None:
    with torch.random.fork_rng():
        run_page(page)


def test_readme_shows_create_adapt_meta_gradient() -> None:
    names = run_page(ROOT / "README.md")
    path, gradient, optimizer = names["path"], names["gradient"], names["optimizer"]
    assert path.nll.shape == (6,)
    assert path.nll[-1] < path.nll[0]
    assert gradient.keys() == dict(optimizer.named_parameters()).keys()
    assert names["loss"].isfinite()
