"""Figures are made where there is something to draw, hold what the results hold, and are the same files each time."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from benchmark import report
from benchmark.report import findings, pairs
from benchmark.report.figures import cost, curves, draw, fig1, geometry, plots
from benchmark.report.figures import trials as tuning_figures
from benchmark.report.figures.style import COLUMN, KNOWN, WIDE, looks, styled
from benchmark.report.group import group_runs
from benchmark.runs.store import load_runs


def test_fig1_draws_the_mean_trace_of_every_method_on_both_axes(add_run, results):
    for method, rate in (("maml", 0.8), ("md", 0.5)):
        add_run(method, rate=rate)
    add_run("pixels")
    (group,) = group_runs(load_runs(results))
    with styled():
        drawing = fig1.fig1(group, 1)
    (run,) = [run for run in load_runs(results) if run.spec["method"] == "md"]
    expected = {
        name: [run.evaluation[f"{name}_{k}"].mean() for k in range(11)] for name in ("support_nll", "grad_norm")
    }
    for figure in (drawing.figure, drawing.narrow):
        axes = figure.axes
        assert [axis.get_yscale() for axis in axes] == ["linear", "log", "linear", "log"]
        for axis, name in zip(axes, ("support_nll", "support_nll", "grad_norm", "grad_norm"), strict=True):
            curves = {line.get_label(): line for line in axis.lines if len(line.get_xdata()) > 2}
            assert set(curves) == {"MAML", "MD"}
            np.testing.assert_allclose(curves["MD"].get_ydata(), expected[name])
            assert len(axis.collections) == 2  # a band each
            assert any(list(line.get_xdata()) == [5, 5] for line in axis.lines)  # the training horizon
        assert {"MAML", "MD"} <= {text.get_text() for text in axes[1].texts}  # at their lines' ends
    assert drawing.figure.get_figwidth() == pytest.approx(WIDE)
    assert drawing.narrow.get_figwidth() == pytest.approx(COLUMN)
    assert "MD: support loss from" in drawing.alt
    assert "95 % bands over tasks, of one seed" in drawing.caption


def test_the_papers_methods_are_bold_and_the_rest_quiet(add_run, results):
    for method in ("md", "mtnet", "plug-in"):
        add_run(method, tasks=20)
    (group,) = group_runs(load_runs(results))
    with styled():
        axis = fig1.fig1(group, 1).figure.axes[1]
    widths = {line.get_label(): line.get_linewidth() for line in axis.lines}
    assert widths["MD"] > 1.5 * widths["MT-net"] == 1.5 * widths["plug-in"]
    weights = {text.get_text(): text.get_fontweight() for text in axis.texts}
    assert (weights["MD"], weights["MT-net"]) == ("bold", "normal")


def test_the_band_is_over_seeds_where_there_are_several(add_run, results):
    for seed, rate in enumerate((0.5, 0.6, 0.7)):
        add_run("md", seed=seed, rate=rate, tasks=30)
    (group,) = group_runs(load_runs(results))
    (cell,) = group.cells(1)
    low, high = fig1.edges(cell, "support_nll", cell.band("support_nll"))
    means = cell.traces("support_nll").groupby(level="seed").mean()
    np.testing.assert_allclose(low, means.min())
    np.testing.assert_allclose(high, means.max())
    with styled():
        assert "from the smallest to the largest seed" in fig1.fig1(group, 1).caption


def test_the_caption_counts_tasks_where_methods_have_different_seeds(add_run, results):
    captions = []
    for method, seed in (("md", 0), ("maml", 0), ("md", 1)):
        add_run(method, seed=seed, tasks=30)
        with styled():
            captions.append(fig1.fig1(group_runs(load_runs(results))[0], 1).caption)
    assert ["over 30 new" in text for text in captions] == [True, True, False]
    assert "mean over 30 to 60 new tasks, " in captions[-1]


def test_a_method_that_diverges_past_its_training_does_not_press_the_others_flat(add_run, results):
    """The linear axes end above what the steps in training show; the caption names who leaves them."""
    add_run("maml", tasks=10)
    run = add_run("ecml", tasks=10)
    (group,) = group_runs(load_runs(results))
    with styled():
        assert "leave" not in fig1.fig1(group, 1).caption
    table = run.evaluation
    table[["support_nll_9", "support_nll_10"]] = 1e4
    table.to_csv(run.path / "evaluation.csv", index=False)
    (group,) = group_runs(load_runs(results))
    highest = max(cell.band("support_nll").mean[:6].max() for cell in group.cells(1))
    with styled():
        drawing = fig1.fig1(group, 1)
        assert drawing.figure.axes[0].get_ylim()[1] == pytest.approx(1.1 * highest)
    assert drawing.caption.endswith("Past them ECML leaves the linear axes.")


def test_traces_that_diverged_are_counted(add_run, results):
    run = add_run("maml", tasks=10)
    table = run.evaluation
    table.loc[3, "support_nll_4"] = np.nan
    table.to_csv(run.path / "evaluation.csv", index=False)
    (group,) = group_runs(load_runs(results))
    with styled():
        drawing = fig1.fig1(group, 1)
    labels = [line.get_label() for line in drawing.figure.axes[0].lines]
    assert "MAML (1 tasks diverged)" in labels


def test_no_trace_no_figure(add_run, results):
    add_run("pixels")
    add_run("maml", state="diverged")
    (group,) = group_runs(load_runs(results))
    assert fig1.fig1(group, 1) is None


def test_few_validations_are_points_and_many_a_line(add_run, results):
    for method, steps in (("maml", [250, 500]), ("md", range(20, 101, 20))):
        run = add_run(method, tasks=10)
        rows = [{"iteration": i, "accuracy": 0.5, "accuracy_ci95": 0.01, "nll": 1.0} for i in steps]
        pd.DataFrame(rows).to_csv(run.path / "validation.csv", index=False)
    (group,) = group_runs(load_runs(results))
    with styled():
        axis = curves.curves(group).figure.axes[1]
    styles = {line.get_label(): line.get_linestyle() for line in axis.lines}
    assert styles["MAML"] == "None"
    assert styles["MD"] != "None"


def test_a_regression_is_validated_by_its_loss(add_run, results):
    run = add_run("maml", dataset="sine", accuracy=np.full(10, np.nan), nll=np.full(10, 2.0))
    rows = [{"iteration": 20 * k, "accuracy": np.nan, "accuracy_ci95": np.nan, "nll": 4 - k / 2} for k in range(1, 6)]
    pd.DataFrame(rows).to_csv(run.path / "validation.csv", index=False)
    (group,) = group_runs(load_runs(results))
    with styled():
        drawing = curves.curves(group)
    training, validation = drawing.figure.axes
    assert (training.get_ylabel(), validation.get_ylabel()) == ("outer loss", "loss")
    (line,) = (line for line in validation.lines if line.get_label() == "MAML")
    assert line.get_ydata().tolist() == [3.5, 3.0, 2.5, 2.0, 1.5]
    assert "MAML 1-shot: 1.50 at the end." in drawing.alt


def test_the_better_side_of_a_difference_is_that_of_the_score(add_run, results):
    for method, loss in (("maml", 2.0), ("md", 1.5)):
        add_run(method, dataset="sine", accuracy=np.full(10, np.nan), nll=loss + 0.1 * np.arange(10))
        add_run(method, accuracy=np.linspace(0.3, 0.6, 10) + loss / 10)
    groups = group_runs(load_runs(results))
    styles = looks([("maml", "MAML"), ("md", "MD")])
    sides = {}
    with styled():
        for group in groups:
            drawing = plots.differences(group, pairs.frame([group]), styles)
            sides[group.dataset] = drawing.caption.partition(" of zero")[0].rpartition(" ")[2]
    assert sides == {"sine": "Left", "glyphs": "Right"}


def test_a_figure_says_what_its_own_intervals_are_over(add_run, results):
    for method, mean in (("maml", 0.5), ("md", 0.6)):
        add_run(method, mean=mean, tasks=20)
        for seed in (0, 1):
            add_run(method, mean=mean, tasks=20, dataset="omniglot", seed=seed)
    groups = group_runs(load_runs(results))
    both = pairs.frame(groups)
    for group, words in zip(groups, ("the tasks of one seed.", "seeds and the tasks within them."), strict=True):
        drawing = plots.differences(group, both, looks([(row.method, row.label) for row in group.rows]))
        assert f"intervals over {words}" in drawing.caption


def test_cost_is_not_squeezed_by_an_axis_from_zero_and_names_its_points(add_run, results):
    for method, mean in (("maml", 0.4), ("md", 0.5)):
        add_run(method, mean=mean)
    times = {"maml": 2.0, "md": 2.6}
    rows = [{"method": m, "channels": 32, "image_size": 28, "adapt_step_ms": ms} for m, ms in times.items()]
    pd.DataFrame(rows).to_csv(results / "timing.csv", index=False)
    (group,) = group_runs(load_runs(results))
    with styled():
        drawing = plots.pareto(group, findings.read(results), looks([("maml", "MAML"), ("md", "MD")]))
    (axis,) = drawing.figure.axes
    assert axis.get_xlim()[0] > 1.5
    assert {text.get_text() for text in axis.texts} == {"MAML", "MD"}
    assert not drawing.figure.legends


def test_the_baseline_does_not_stretch_the_spread_over_tasks(add_run, results):
    add_run("pixels", mean=0.1)
    add_run("maml", mean=0.8, tasks=50)
    (group,) = group_runs(load_runs(results))
    with styled():
        (axis,) = plots.distribution(group, looks([("pixels", "baseline"), ("maml", "MAML")])).figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["MAML"]
    assert axis.get_xlim()[0] > 40


def trials(results):
    folder = results / "tuning"
    folder.mkdir()
    rows = [
        {
            "method": method,
            "trial": trial,
            "alpha": alpha,
            "state": "finished" if score else "diverged",
            "score": score,
            "accuracy": score,
        }
        for method, scores in (("maml", (0.3, 0.5, 0.4)), ("md", (0.2, None, 0.6)))
        for trial, (alpha, score) in enumerate(zip((0.05, 0.2, 0.1), scores, strict=True))
    ]
    pd.DataFrame(rows).to_csv(folder / "tuning.csv", index=False)
    document = {"dataset": "cifar-fs", "ways": 5, "shots": 1, "iterations": 500}
    (folder / "tuned.json").write_text(json.dumps(document))


def test_trials_show_what_alpha_allows_and_what_tuning_buys(results):
    trials(results)
    with styled():
        alpha, best = tuning_figures.draw(findings.read(results))
    assert "5-way 1-shot CIFAR-FS, 500 meta-steps a trial" in alpha.caption
    assert "MAML: best 50.0 % at α = 0.2." in alpha.alt
    assert [axis.get_xscale() for axis in alpha.figure.axes] == ["log", "log"]
    crosses = [
        [line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "x"] for axis in alpha.figure.axes
    ]
    assert crosses == [[[]], [[0.2]]]
    lines = {line.get_label(): line.get_ydata().tolist() for line in best.figure.axes[0].lines}
    assert lines["MAML"] == pytest.approx([30, 50, 50])
    assert lines["MD"] == pytest.approx([20, 20, 60])  # a trial that diverged buys nothing


def test_no_trials_no_figure(results):
    assert tuning_figures.draw(findings.read(results)) == []


def test_the_spectrum_is_drawn_for_each_checkpoint(results):
    rows = [
        {"method": "md", "run": run, "share": share, "eigenvalue": top * share}
        for run, top in (("a", 2.0), ("b", 3.0))
        for share in (0.0, 0.5, 1.0)
    ]
    pd.DataFrame(rows).to_csv(results / "spectrum.csv", index=False)
    with styled():
        (drawing,) = geometry.draw(findings.read(results))
    curves = [line for line in drawing.figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert [line.get_ydata().tolist() for line in curves] == [[0, 1, 2], [0, 1.5, 3]]
    assert "MD: from 0 to 3." in drawing.alt


def test_the_figure_of_the_geometry_leaves_the_start_out_and_halves_the_asymmetry(results):
    rows = [{"method": m, "run": "", "stage": "start", "least": 1.0, "asymmetry": 0.0} for m in ("maml", "md")]
    pd.DataFrame(rows).to_csv(results / "geometry.csv", index=False)
    assert list(geometry.draw(findings.read(results))) == []
    rows.append({"method": "md", "run": "a", "stage": "trained", "least": 0.4, "asymmetry": 0.1})
    pd.DataFrame(rows).to_csv(results / "geometry.csv", index=False)
    with styled():
        (drawing,) = geometry.draw(findings.read(results))
    assert [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()] == ["MD"]
    assert drawing.figure.axes[1].get_title(loc="left") == "asymmetry\n‖J − Jᵀ‖/(2‖J‖)"


def test_names_at_line_ends_do_not_touch_and_keep_their_order():
    heights = np.array([0.1, 0.11, 0.12, 0.8])
    places = draw._apart(heights, 0.1, beyond=0.1)
    assert (np.diff(places) >= 0.1 - 1e-12).all()
    assert places[3] == pytest.approx(0.8)
    assert places[:3].mean() == pytest.approx(heights[:3].mean())
    crowd = draw._apart(np.linspace(0.9, 1, 10), 0.1, beyond=0.1)  # they stay beside their panel
    assert (np.diff(crowd) >= 0.1 - 1e-12).all()
    assert (crowd[0], crowd[-1]) == (pytest.approx(0.2), pytest.approx(1.1))
    crowd = draw._apart(np.linspace(0.9, 1, 15), 0.1, beyond=0.1)  # too many for it: as far above as below
    assert (crowd[0], crowd[-1]) == (pytest.approx(-0.2), pytest.approx(1.2))


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


@pytest.mark.usefixtures("figures_unrendered")
def test_figures_of_an_earlier_report_do_not_stay(add_run, results, tmp_path):
    add_run("maml")
    add_run("md", shots=5)
    folder = tmp_path / "reports" / "figures"
    report.write(results, tmp_path / "reports")
    before = {path.name for path in folder.iterdir()}
    assert "fig1-glyphs-5way-1shot-controlled-column.svg" in before
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


def test_a_panel_of_cost_names_its_processor_where_they_differ_and_methods_as_runs_do():
    rows = [("maml", 32, "AMD EPYC", 50.0), ("mine", 32, "AMD EPYC", 60.0), ("maml", 28, "Xeon", 100.0)]
    rows.append(("mine", 28, "Xeon", 120.0))
    table = pd.DataFrame(rows, columns=["method", "image_size", "device", "meta_gradient_ms"])
    table = table.assign(channels=32, evaluation_ms=table["meta_gradient_ms"] / 2)
    with styled():
        axes = cost.cost(table, {"mine": "Mine"}).figure.axes
        titles = [axis.get_title(loc="left") for axis in axes]
        assert titles == ["32×32, CNN4-32, AMD EPYC", "28×28, CNN4-32, Xeon"]
        assert "Mine" in {text.get_text() for text in axes[0].get_yticklabels()}
        (alone,) = cost.cost(table[:2]).figure.axes
        assert alone.get_title(loc="left") == "32×32, CNN4-32"


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
