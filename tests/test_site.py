"""The documentation as a site: equations are laid out, stable names are there, and it builds without a warning."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from optimizers import pages, registry
from tests.conftest import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("latex2mathml", reason="needs the extra docs")
SPACE = "{http://www.w3.org/1998/Math/MathML}"


@pytest.fixture(scope="module")
def equations() -> ModuleType:
    return _module("equations")


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    ("line", "tex"),
    [
        ("φ_k = φ_{k−1} − α G", r"φ_{k}\ =\ φ_{k-1}\ -\ α\ G"),
        ("M_out, ×₂ Rᵀ", r"M_{\mathrm{out}},\ \times _{2}\ R^{\top}"),
        ("φ̄_k, m̂ / βᵏ", r"\bar{φ}_{k},\ \hat{m}\ /\ β^{k}"),
        ("mean over k < K of sigmoid(x)", r"\text{mean over}\ k\ <\ K\ \text{of}\ \mathrm{sigmoid}(x)"),
        ("var(log10 λ(J))", r"\mathrm{var}(\log_{10}\ λ(J))"),
    ],
)
def test_notation_of_the_cards_as_tex(line: str, tex: str, equations: ModuleType) -> None:
    assert equations.tex(line) == tex


@pytest.mark.parametrize("name", registry.builtin())
def test_every_equation_is_laid_out_with_all_its_letters(name: str, equations: ModuleType) -> None:
    for line in pages.equation_lines(registry.card(name).equation):
        root = ElementTree.fromstring(f"<p>{equations.html(line)}</p>")
        assert {child.tag for child in root} <= {f"{SPACE}math"}
        shown = re.sub(r"\W", "", "".join(root.itertext()))
        assert "\\" not in "".join(root.itertext())
        letters = unicodedata.normalize("NFD", line) + "k" * line.count("ᵏ")  # Ū is a U with a bar
        assert sorted(re.findall(r"[a-zA-Z]", shown)) == sorted(re.findall(r"[a-zA-Z]", letters))


def test_a_line_may_break_at_words_and_commas_outside_of_brackets(equations: ModuleType) -> None:
    root = ElementTree.fromstring(f"<p>{equations.html('for φ_k, mean over (k, K), a')}</p>")
    assert [re.sub(r"\s", "", "".join(child.itertext())) for child in root] == ["φk", "(k,K)", "a"]
    assert [(root.text or "").strip(), *((child.tail or "").strip() for child in root)] == [
        "for",
        ", mean over",
        ",",
        "",
    ]


def test_semicolons_inside_brackets_divide_nothing() -> None:
    assert pages.equation_lines("a = f(x; w); b = g((y; w); z)") == ["a = f(x; w)", "b = g((y; w); z)"]


def test_every_stable_name_is_there() -> None:
    for name in [name for names in _module("pages").API.values() for name in names]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    """Strict: a broken link, a missing page or a name that the API lacks ends it."""
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environ = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "docs/methods/warpgrad.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert {path.stem for path in (tmp_path / "docs/methods").glob("*.html")} >= set(registry.builtin())
    api = (tmp_path / "docs/api.html").read_text(encoding="utf-8")
    assert 'id="optimizers.base.InnerOptimizer.step"' in api
    assert ":class:" not in api
