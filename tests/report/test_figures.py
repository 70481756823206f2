"""Figures are made where there is something to draw, hold what the results hold, and are the same files each time."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from benchmark import report
from benchmark.report.figures import draw
from benchmark.report.figures.style import KNOWN, looks, styled
from benchmark.report.group import group_runs
from benchmark.runs.store import load_runs


def test_fig1_draws_the_mean_trace_of_every_method(add_run, results):
    for method, rate in (("maml", 0.8), ("md", 0.5)):
        add_run(method, rate=rate)
    add_run("pixels")
    (group,) = group_runs(load_runs(results))
    with styled():
        drawing = draw.fig1(group, 1)
    loss, norm = drawing.figure.axes
    curves = {line.get_label(): line for line in loss.lines if len(line.get_xdata()) > 2}
    assert set(curves) == {"MAML", "MD"}
    (run,) = [run for run in load_runs(results) if run.spec["method"] == "md"]
    expected = [run.evaluation[f"support_nll_{k}"].mean() for k in range(11)]
    np.testing.assert_allclose(curves["MD"].get_ydata(), expected)
    assert len(loss.collections) == len(norm.collections) == 2  # a band each
    assert any(list(line.get_xdata()) == [5, 5] for line in loss.lines)  # the training horizon
    assert "MD: support loss from" in drawing.alt
    assert "95 % bands" in drawing.caption


def test_traces_that_diverged_are_counted_in_the_legend(add_run, results):
    run = add_run("maml", tasks=10)
    table = run.evaluation
    table.loc[3, "support_nll_4"] = np.nan
    table.to_csv(run.path / "evaluation.csv", index=False)
    (group,) = group_runs(load_runs(results))
    with styled():
        drawing = draw.fig1(group, 1)
    labels = [line.get_label() for line in drawing.figure.axes[0].lines]
    assert "MAML (1 tasks diverged)" in labels


def test_no_trace_no_figure(add_run, results):
    add_run("pixels")
    add_run("maml", state="diverged")
    (group,) = group_runs(load_runs(results))
    assert draw.fig1(group, 1) is None


def test_write_gives_every_file_and_the_same_bytes_again(add_run, results, tmp_path):
    for method in ("maml", "md"):
        add_run(method)
    written = report.write(results, tmp_path / "reports")
    names = {path.name for path in written}
    assert {"table1.md", "table1.csv", "table1.tex"} <= names
    assert {f"fig1-glyphs-5way-1shot-controlled.{end}" for end in ("png", "pdf", "svg")} <= names
    again = report.write(results, tmp_path / "again")
    for one, two in zip(written, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_figures_of_an_earlier_report_do_not_stay(add_run, results, tmp_path):
    add_run("maml")
    add_run("md", shots=5)
    folder = tmp_path / "reports" / "figures"
    report.write(results, tmp_path / "reports")
    before = {path.name for path in folder.iterdir()}
    assert {name.partition("-")[0] for name in before} <= set(draw.KINDS)
    (folder / "mine.png").write_bytes(b"")
    (folder / "fig1-notes.txt").write_bytes(b"")
    for path in results.iterdir():
        if "-5shot-" in path.name:
            shutil.rmtree(path)
    report.write(results, tmp_path / "reports")
    after = {path.name for path in folder.iterdir()}
    assert {f"fig1-glyphs-5way-5shot-controlled.{end}" for end in ("png", "pdf", "svg")} <= before - after
    assert after - before == {"mine.png", "fig1-notes.txt"}


def test_write_on_no_runs(results, tmp_path):
    written = report.write(results, tmp_path / "reports")
    assert (tmp_path / "reports" / "table1.md") in written


def test_methods_are_told_apart_without_colour():
    assert len({(look.marker, str(look.dashes)) for look in KNOWN.values()}) == len(KNOWN)
    chosen = looks([("md", "MD"), ("md", "MD (a)"), ("mine", "mine"), ("other", "other")])
    assert len({(look.color, str(look.dashes), look.marker) for look in chosen.values()}) == 4
    assert chosen["MD"].color == chosen["MD (a)"].color


def contrast(color: str) -> float:
    """WCAG 2 contrast ratio of a #rrggbb colour against white."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


@pytest.mark.parametrize("method", KNOWN)
def test_lines_stand_out_from_paper(method):
    assert contrast(KNOWN[method].color) >= 2.2
