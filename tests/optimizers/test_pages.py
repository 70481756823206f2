"""The pages under docs/methods are what the cards say today."""

import importlib.util
from pathlib import Path

import pytest

import optimizers
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
