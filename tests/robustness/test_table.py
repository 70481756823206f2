"""The table of promises names tests that exist, and every robustness test stands in it."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

HERE = "tests/robustness"


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_promise_has_a_test_that_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "robustness.md").read_text())
    assert len(named) > 60
    for file, test in named:
        assert test in functions(file if "/" in file else f"{HERE}/{file}"), f"{file}::{test}"


def test_every_test_has_a_promise() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text()
    known = {"test_table.py"}  # this file
    small = {  # parts of promises that other tests of the file hold whole
        "test_a_partial_measurement_is_used", "test_a_renamed_run_is_refused",
        "test_a_run_of_another_spec_under_the_same_name_is_not_taken", "test_every_poison_is_one",
        "test_a_run_that_is_read_is_what_was_written", "test_status_of_a_folder_shows_every_run",
        "test_the_options_of_a_method_are_those_that_can_be_given",
    }  # fmt: skip
    for path in (ROOT / HERE).glob("test_*.py"):
        if path.name not in known:
            for test in functions(f"{HERE}/{path.name}") - small:
                assert f"`{path.name}::{test}`" in text, f"{path.name}::{test} is in no row of docs/robustness.md"
