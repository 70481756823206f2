"""The pages under docs/methods are what the cards say today."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest

import optimizers
from benchmark.cli import parser
from optimizers import pages, registry

FOLDER = Path(__file__).parents[2] / "docs" / "methods"


def networks():
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NETWORKS


@pytest.mark.parametrize("name", registry.builtin())
def test_page_is_up_to_date(name):
    written = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert written == pages.page(name, networks()), "run `python docs/methods/generate.py`"


def test_no_page_is_left_over():
    assert {path.stem for path in FOLDER.glob("*.md")} == set(registry.builtin())


def test_the_page_says_what_matters():
    ecml, md = (pages.page(name, networks()[:1]) for name in ("ecml", "md"))
    assert "**Reconstructed:**" in ecml
    assert "859,391" in md
    assert "| `sigma` | `'exp'` |" in md
    assert "never receives a gradient" in pages.page("md-released", networks()[:1])
    assert "Reconstructed" not in md
    assert "Also found as" in pages.page("maml", [])
    assert "gd" in optimizers.aliases


WRITTEN = [name for name in registry.builtin() if registry.card(name).bibtex]


@pytest.mark.parametrize("name", WRITTEN)
def test_bibtex_agrees_with_the_paper_that_the_card_names(name):
    entry, paper = pages.bibtex(name), registry.card(name).paper
    fields = dict(re.findall(r"^  (\w+) = \{(.*?)\},$", entry, flags=re.MULTILINE | re.DOTALL))
    assert re.match(r"@\w+\{\w+,\n", entry)
    assert entry.endswith("\n}")
    assert entry.count("{") == entry.count("}")
    if "This project" in paper:
        assert "@software" in entry
        return
    authors, title = re.match(r"(.*?): (.*?)\. ", paper).groups()
    surnames = [author.split(", ")[0] for author in re.split(r"\s+and\s+", fields["author"])]
    assert surnames == authors.split(", ")
    assert re.sub(r"[{}]", "", fields["title"]) == title
    assert re.search(r"\b(19|20)\d\d\b", paper[paper.index(title) + len(title) :])[0] == fields["year"]


def test_a_card_without_bibtex_is_cited_by_its_paper(monkeypatch):
    monkeypatch.setattr(registry.factory("maml"), "card", replace(registry.card("maml"), bibtex=""))
    assert pages.bibtex("gd") == f"@misc{{maml,\n  note = {{{registry.card('maml').paper}}},\n}}"
    assert "## Cite" not in pages.page("maml", [])


def test_list_prints_one_entry_or_each_paper_once(capsys):
    assert parser.main(["list", "md-released", "--bibtex"]) == 0
    assert capsys.readouterr().out == pages.bibtex("md") + "\n"
    assert parser.main(["list", "--bibtex"]) == 0
    keys = re.findall(r"@\w+\{([\w-]+),", capsys.readouterr().out)
    assert len(keys) == len(set(keys)) == len({pages.bibtex(name) for name in optimizers.available()})
    assert parser.main(["list", "data", "--bibtex"]) == 2
    assert "--bibtex is for methods, got 'data'" in capsys.readouterr().err
