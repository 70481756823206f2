"""Whatever the suite writes is written whole or not at all, by one function; rows are added, not overwritten."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.cli import time as timing_verb
from benchmark.cli import verify as verify_verb
from benchmark.errors import UserError
from benchmark.files import merge_rows
from benchmark.report import export
from benchmark.report.figures import draw
from benchmark.report.figures.draw import Drawing
from benchmark.verify import methods as verification
from benchmark.verify.derivatives import Record
from benchmark.verify.geometry import Geometry

RECORD = Record("md", "start", True, "", geometry=Geometry(1.0, 1.0, 0.0, 0.0, 1.0), cosine=1.0)
TIMED = pd.DataFrame(
    {"method": ["md"], "image_size": [28], "channels": [4], "meta_gradient_ms": [1.0], "evaluation_ms": [1.0]}
)


def _verify(path: Path) -> None:
    parser = argparse.ArgumentParser()
    verify_verb.add_arguments(parser)
    arguments = parser.parse_args(["--methods", "gd", "--output", str(path), "--results", str(path.parent / "none")])
    arguments.command_line = "python -m benchmark verify"
    verify_verb.main(arguments)


WRITERS = {
    "verify.txt": _verify,
    "geometry.csv": lambda path: verification.write_geometry([RECORD], path),
    "rows.csv": lambda path: merge_rows(path, pd.DataFrame({"a": [1], "b": [2]}), ("a",)),
    "tasks.csv": lambda path: export.write(pd.DataFrame({"a": [1]}), path),
    "fig1.png": lambda path: draw.save(Drawing("fig1", "", "", Figure(), Figure()), path.parent),
    "cost.png": lambda path: timing_verb.save(TIMED, path.parent),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_what_was_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    monkeypatch.setattr(verification, "verify", lambda *_, **__: [])
    WRITERS[name](path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    names = set(os.listdir(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"{name}: cannot be written \(No space left on device\)"):
        WRITERS[name](path)
    assert path.read_bytes() == before
    assert set(os.listdir(tmp_path)) == names


def test_rows_are_replaced_by_their_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('method,size,ms,note\nmd,8,0.10,"a, b"\nmd,16,1e-3,\nmaml,8,NA,1\n')
    fresh = pd.DataFrame({"method": ["md", "md"], "size": [16, 32], "ms": [2.5, 1 / 3], "more": ["x", None]})
    whole = merge_rows(path, fresh, ("method", "size"), float_format="%.3g")
    assert path.read_text() == (
        'method,size,ms,note,more\nmd,8,0.10,"a, b",\nmaml,8,NA,1,\nmd,16,2.5,,x\nmd,32,0.333,,\n'
    )
    assert whole["ms"].tolist() == pytest.approx([0.1, float("nan"), 2.5, 0.333], nan_ok=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable table"),
        (b"size,ms\n8,1,2\n", r"not a readable table \(rows differ in length\)"),
        (b"\xff\xfe\n", "not a readable table"),
        (b"ms\n1\n", "has no column size"),
    ],
)
def test_what_rows_cannot_be_added_to_is_left_alone(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"rows.csv: {message}.*; move it away"):
        merge_rows(path, pd.DataFrame({"size": [1]}), ("size",))
    assert path.read_bytes() == content
