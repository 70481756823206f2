"""README says what is there today, fits a terminal, and every link of the documentation leads somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from benchmark.cli.parser import VERBS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def test_the_table_is_that_of_the_committed_report() -> None:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "docs" / "readme_table.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.with_table(README) == README, "run `python docs/readme_table.py`"


def test_it_is_read_at_80_columns() -> None:
    """But for what cannot be broken: a picture, a row of the table, the two commands that are one line."""
    whole = ("![", "|", "    sh bootstrap.sh", "    python -m benchmark report --results")
    long = [line for line in README.splitlines() if len(line) > 80 and not line.startswith(whole)]
    assert not long


def test_every_command_that_it_shows_is_a_verb() -> None:
    shown = re.findall(r"^    python -m benchmark (\S+)", README, re.MULTILINE)
    assert shown
    assert set(shown) <= set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_or_heading(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
