"""Runs of different norms: never in one column, one pair or one claim; compared where somebody asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.errors import UserError
from benchmark.report import build, formats, pairs, table
from benchmark.report.claims import judge
from benchmark.report.compare import compare
from benchmark.report.figures.style import styled
from benchmark.report.findings import read
from benchmark.report.group import group_runs
from benchmark.report.notes import notes
from benchmark.runs.store import load_runs


@pytest.fixture
def both(add_run, results):
    """MAML and MD under batch and support norm, MetaSGD under support norm alone, one baseline."""
    add_run("pixels", mean=0.3, iterations=0)
    for norm, better in (("batch", 0.0), ("support", -0.1)):
        add_run("maml", accuracy=np.tile([0.4, 0.6], 50) + better, norm=norm)
        add_run("md", accuracy=np.tile([0.5, 0.7], 50) + 2 * better, norm=norm)
    add_run("metasgd", mean=0.5, norm="support")
    return group_runs(load_runs(results))


def test_each_norm_has_a_column_of_its_own_and_the_baseline_is_in_both(both):
    assert [(group.norm, [row.method for row in group.rows]) for group in both] == [
        ("batch", ["pixels", "maml", "md"]),
        ("support", ["pixels", "maml", "metasgd", "md"]),
    ]
    assert [row.label for row in both[0].rows] == ["nearest centroid", "MAML", "MD"]  # the column says the norm
    (one,) = table.tables(both)
    header, body = table.grid(one)
    assert header[2:4] == ["1-shot, ours (controlled recipe)", "1-shot, ours (controlled recipe, support norm)"]
    found = {line[0].text: [place.value for place in line[1:4]] for line in body}
    assert found["MAML"] == pytest.approx([48.70, 50.0, 40.0])  # the paper's number is that of batch norm
    assert found["MetaSGD"][:2] == [None, None]
    assert "Support norm: query images are normalised by the support set" in formats.markdown(table.tables(both))
    frame = table.frame(table.tables(both))
    assert set(frame["norm"]) == {"batch", "support"}
    assert frame[frame["norm"] == "support"]["published"].isna().all()


def test_pairs_and_claims_are_of_one_norm(both, results):
    frame = pairs.frame(both)
    assert {(row["norm"], row["a"], row["b"]) for row in frame.to_dict("records")} >= {
        ("batch", "MAML", "MD"),
        ("support", "MAML", "MD"),
    }
    assert len(frame) == 3 + 6
    for group, difference in zip(both, (10.0, 0.0), strict=True):
        chosen = pairs.select(frame, group, 1)
        (row,) = chosen[(chosen["a"] == "MAML") & (chosen["b"] == "MD")].to_dict("records")
        assert -row["difference"] == pytest.approx(difference)
    claims = {claim.key: claim for claim in judge.judge(both, frame, read(results))}
    for key in ("order", "faster", "norms"):  # what the papers ran is batch norm
        assert claims[key].checks
        assert not [check for check in claims[key].checks if "support norm" in check.where]
    (one,) = table.tables(both)
    starts = [line.partition(":")[0] for line in notes(one) if line.startswith("Budget")]
    assert starts == ["Budget (controlled recipe)", "Budget (controlled recipe, support norm)"]


def test_two_norms_are_compared_on_request(both, results):
    found = compare("batch", "support", results)
    assert [each.names for each in found] == [
        ("MAML (batch norm)", "MAML (support norm)"),
        ("MD (batch norm)", "MD (support norm)"),
    ]
    assert [each.row["difference"] for each in found] == pytest.approx([10.0, 20.0])
    assert {each.where for each in found} == {"5-way 1-shot glyphs, controlled recipe"}
    assert {each.row["norm"] for each in compare("maml", "md", results)} == {"batch", "support"}
    with pytest.raises(UserError, match="has no run under group norm; make one with 'run --norm group'"):
        compare("batch", "group", results)


def test_folders_are_compared_norm_by_norm(both, results, tmp_path):
    found = compare(str(results), str(results), tmp_path)
    assert len(found) == 3 + 4
    assert all(each.row["difference"] == 0 for each in found)


def test_figures_of_different_norms_have_different_names(both, results):
    with styled():
        stems = [drawing.stem for drawing in build.drawings(both, pairs.frame(both), read(results))]
    assert "fig1-glyphs-5way-1shot-controlled" in stems
    assert "fig1-glyphs-5way-1shot-controlled-support-norm" in stems
    assert len(set(stems)) == len(stems)
