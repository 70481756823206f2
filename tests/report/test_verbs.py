"""compare, export, list runs: what they print and write, and what they say to wrong input; and none needs torch."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.cli import compare as compare_verb
from benchmark.cli import export as export_verb
from benchmark.cli import report as report_verb
from benchmark.cli.parser import main
from benchmark.errors import UserError
from benchmark.files import parse_table
from benchmark.report import export, listing
from benchmark.report.compare import compare
from benchmark.runs.store import load_runs
from tests.report.builder import build_run

ROOT = Path(__file__).parents[2]


def said(verb, **arguments):
    out = io.StringIO()
    assert verb(argparse.Namespace(**arguments), Console(file=out, width=80)) == 0
    return out.getvalue()


def test_compare_two_methods(add_run, results):
    add_run("maml", accuracy=np.full(50, 0.5), status={"meta_parameters": 100, "wall_s": {"train": 10.0}})
    add_run("md", accuracy=np.tile([0.55, 0.65], 25), status={"meta_parameters": 300, "wall_s": {"train": 15.0}})
    text = said(compare_verb.main, a="md", b="maml", results=results)
    assert "5-way 1-shot glyphs, controlled recipe" in text
    assert "difference +10.00 points" in text
    assert "larger on 50, equal on 0, smaller on 0 of 50 tasks" in text
    assert "MD is better (two trained models: one seed says nothing of another)" in text
    assert "cost ratio: meta-parameters ×3.00" in text  # how long a run took on a busy machine is no cost
    assert said(compare_verb.main, a="mirror-descent", b="gd", results=results) == text
    (one,) = compare("maml", "MD", results)
    assert one.names == ("MAML", "MD")
    assert one.costs == {"meta-parameters": pytest.approx(1 / 3)}


def test_the_ratio_of_cost_is_of_times_taken_alike(add_run, results):
    """Inner step and meta-gradient at the size of the runs, under the conditions that both were timed under."""
    for method in ("maml", "md"):
        add_run(method, status={"meta_parameters": 100}, channels=32)
    rows = [("maml", 28, "cpu", 2.0, 8.0), ("md", 28, "cpu", 3.0, 20.0), ("md", 28, "other", 99.0, 99.0)]
    rows += [("maml", 84, "cpu", 1.0, 1.0), ("md", 84, "cpu", 7.0, 7.0)]
    columns = ["method", "image_size", "device", "adapt_step_ms", "meta_gradient_ms"]
    pd.DataFrame(rows, columns=columns).assign(channels=32).to_csv(results / "timing.csv", index=False)
    text = said(compare_verb.main, a="md", b="maml", results=results)
    assert "cost ratio: inner step ×1.50, meta-gradient ×2.50, meta-parameters ×1.00" in text


def test_compared_means_subtract(add_run, results):
    """MAML on 50 tasks, 60 % over all of them and 50 % over the first 40; MD on these 40, one of them diverged."""
    add_run("maml", accuracy=np.repeat([0.5, 1.0], [40, 10]))
    add_run("md", accuracy=[np.nan, *np.tile([0.5, 0.7], 19), 0.6], nll=[np.nan, *[1.2] * 39])
    text = said(compare_verb.main, a="md", b="maml", results=results)
    half = 100 * 1.96 * 0.1 * np.sqrt(38 / 39) / np.sqrt(39)  # 38 tasks are 0.1 off the mean, one is 0
    assert f"MD: 60.00 ± {half:.2f} (diverged on 1 of 40 tasks)" in text
    assert "MAML: 50.00 ± 0.00\n" in text
    assert "means over the 39 tasks that both have a finite result on, of 39 and 50" in text
    assert "difference +10.00 points" in text


def test_compared_means_subtract_over_seeds(add_run, results):
    """Each seed counts alike in the difference, however many tasks it has, so it does in the means."""
    add_run("maml", seed=0, accuracy=np.tile([0.4, 0.6], 10))
    add_run("maml", seed=1, accuracy=np.tile([0.2, 0.4], 20))
    add_run("maml", seed=2, accuracy=np.full(20, 0.9))
    add_run("md", seed=0, accuracy=np.full(20, 0.8))
    add_run("md", seed=1, accuracy=np.full(40, 0.5))
    text = said(compare_verb.main, a="md", b="maml", results=results)
    half = 100 * 1.96 * 0.1 * np.sqrt((1 / 20 + 1 / 40) / 2)
    assert f"MAML: 40.00 ± {half:.2f} (3 seeds)" in text
    assert "MD: 65.00 ± 0.00 (2 seeds)" in text
    assert "difference +25.00 points" in text
    assert "means over the 60 tasks that both have a finite result on, of 60 and 80" in text


def test_equal_tasks_need_no_word_and_print_the_score_of_the_table(add_run, results):
    for seed in (0, 1):
        add_run("maml", seed=seed, tasks=50)
        add_run("md", seed=seed, tasks=50, mean=0.6)
    (found,) = compare("md", "maml", results)
    text = said(compare_verb.main, a="md", b="maml", results=results)
    assert "means over" not in text
    for name, cell in zip(found.names, found.cells, strict=True):
        assert f"{name}: {cell.score.mean:.2f} ± {cell.score.half:.2f} (2 seeds)" in text


def test_compare_two_folders(tmp_path):
    for name, mean in (("before", 0.5), ("after", 0.5)):
        build_run(tmp_path / name, "maml", mean=mean)
        build_run(tmp_path / name, "md", mean=mean + 0.1 * (name == "after"))
    text = said(compare_verb.main, a=str(tmp_path / "after"), b=str(tmp_path / "before"), results=tmp_path)
    assert "no difference beyond chance" in text
    assert f"MD in {tmp_path / 'after'} is better" in text


def test_compare_says_what_it_cannot_compare(add_run, results, tmp_path):
    with pytest.raises(UserError, match="no runs"):
        compare("md", "maml", results)
    add_run("maml")
    add_run("md", shots=5)
    add_run("metasgd", channels=16)
    add_run("metasgd", channels=32)
    add_run("warpgrad", state="diverged")
    with pytest.raises(UserError, match=r"no run of 'mamll' .did you mean 'maml'"):
        compare("mamll", "md", results)
    with pytest.raises(UserError, match="in common"):
        compare("md", "maml", results)
    with pytest.raises(UserError, match="the same row"):
        compare("maml", "MAML", results)
    with pytest.raises(UserError, match="the same row"):
        said(compare_verb.main, a="maml", b="gd", results=results)
    with pytest.raises(UserError, match=r"several rows.*MetaSGD \(channels=16\); MetaSGD \(channels=32\)"):
        compare("metasgd", "maml", results)
    with pytest.raises(UserError, match="one is a folder"):
        compare(str(results), "maml", results)
    with pytest.raises(UserError, match="no such results folder"):
        compare("md", "maml", tmp_path / "nowhere")
    assert "nothing to compare" in said(compare_verb.main, a="warpgrad", b="maml", results=results)
    assert "MetaSGD" in said(compare_verb.main, a="MetaSGD (channels=16)", b="maml", results=results)


def test_export_without_a_file_prints(add_run, results, tmp_path, capsys):
    add_run("maml", tasks=7)
    said(export_verb.main, results=results, output=None, level="tasks")
    said(export_verb.main, results=results, output=tmp_path / "tasks.csv", level="tasks")
    assert capsys.readouterr().out == (tmp_path / "tasks.csv").read_text()


def test_export_holds_everything_once(add_run, results, tmp_path):
    add_run("maml", tasks=7, trace_steps=5)
    add_run("pixels", tasks=7)
    add_run("md", tasks=7, state="diverged")
    path = tmp_path / "all.csv"
    assert "lines" in said(export_verb.main, results=results, output=path, level="all")
    table = parse_table(path.read_bytes())
    run = next(run for run in load_runs(results) if run.spec["method"] == "maml")
    mine = table[table["run"] == run.name]
    for quantity, column in (("accuracy", "accuracy"), ("nll", "nll")):
        chosen = mine[mine["quantity"] == quantity].sort_values("task")
        np.testing.assert_array_equal(chosen["value"], run.evaluation[column])
    chosen = mine[(mine["quantity"] == "grad_norm") & (mine["step"] == 3)].sort_values("task")
    np.testing.assert_array_equal(chosen["value"], run.evaluation["grad_norm_3"])
    assert len(mine[mine["quantity"] == "support_nll"]) == 7 * 6
    losses = mine[mine["quantity"] == "training.loss"].sort_values("iteration")
    np.testing.assert_array_equal(losses["value"], run.training["loss"])
    assert set(table[table["method"] == "md"]["state"]) == {"diverged"}
    assert not table.duplicated(["run", "task", "step", "iteration", "quantity"]).any()


def test_export_levels(add_run, results):
    add_run("maml", tasks=7, trace_steps=5, options={"adapt": "head"})
    runs = load_runs(results)
    wide = export.frame(runs, "runs")
    assert wide["spec.channels"][0] == 32
    assert wide["status.wall_s.train"][0] == 100.0
    assert wide["environment.torch"][0] == "2.14.1"
    assert wide["spec.options.adapt"][0] == "head"
    assert len(export.frame(runs, "tasks")) == 7
    steps = export.frame(runs, "steps")
    assert len(steps) == 7 * 6
    first = steps[(steps["task"] == 2) & (steps["step"] == 4)]
    assert first["support_nll"].iloc[0] == runs[0].evaluation["support_nll_4"][2]
    with pytest.raises(UserError, match="level 'task' is unknown"):
        export.frame(runs, "task")
    assert export.frame([], "tasks").empty


def test_export_forms(add_run, results, tmp_path, monkeypatch):
    add_run("maml", tasks=3)
    table = export.frame(load_runs(results), "tasks")
    export.write(table, tmp_path / "deep" / "x.csv.gz")
    assert len(pd.read_csv(tmp_path / "deep" / "x.csv.gz")) == 3
    with pytest.raises(UserError, match="end the name in"):
        export.write(table, tmp_path / "x.xlsx")

    def refuse(self, *_, **__):
        raise ImportError("no engine")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", refuse)
    with pytest.raises(UserError, match="pip install pyarrow"):
        export.write(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="cannot be written"):
        export.write(table, tmp_path / "deep" / "x.csv.gz" / "y.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"results", "deep"}


def test_parquet_round_trip(add_run, results, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    add_run("maml", tasks=3)
    table = export.frame(load_runs(results), "all")
    export.write(table, tmp_path / "x.parquet")
    assert len(pd.read_parquet(tmp_path / "x.parquet")) == len(table)


def test_list_runs(add_run, results):
    add_run("maml", accuracy=np.full(10, 0.5))
    add_run("md", state="diverged")
    out = io.StringIO()
    listing.print_runs(listing.readable(results), Console(file=out, width=200))
    assert "50.00" in out.getvalue()
    assert "diverged" in out.getvalue()
    out = io.StringIO()
    listing.print_runs(listing.readable(results), Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80


@pytest.mark.usefixtures("figures_unrendered")
def test_report_verb_prints_the_table_and_the_files(add_run, results, tmp_path):
    add_run("maml", tasks=20)
    text = said(report_verb.main, results=[results], reports=tmp_path / "reports")
    assert "| MAML" in text
    assert str(tmp_path / "reports" / "index.html") in text


def test_the_reading_path_needs_no_torch():
    script = (
        "import sys, argparse\n"
        "sys.modules['torch'] = None\n"
        "from benchmark import report, statistics\n"
        "from benchmark.cli import parser\n"
        "from benchmark.report import build, compare, export, listing, terminal\n"
        "assert 'optimizers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_verbs_are_declared_without_loading_anything_heavy():
    script = (
        "import sys, argparse\n"
        "from benchmark.cli import compare, export, report\n"
        "for verb in (report, compare, export):\n"
        "    verb.add_arguments(argparse.ArgumentParser())\n"
        "assert not {'pandas', 'matplotlib', 'scipy', 'numpy', 'torch'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.usefixtures("figures_unrendered")
def test_a_run_that_cannot_be_read_hides_nothing_and_is_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = build_run(results, "maml"), build_run(results, "md")
    (bad.path / "evaluation.csv").write_text("task,accuracy\n0,1.0\n")  # not what its status has the hash of
    status = json.loads((bad.path / "status.json").read_text())
    status["sha256"] = {"evaluation.csv": "0" * 64}
    (bad.path / "status.json").write_text(json.dumps(status))
    assert main(["report", "--results", str(results), "--reports", str(tmp_path / "reports")]) == 0
    shown = capsys.readouterr()
    assert "MAML" in shown.out
    assert f"left out: {bad.path / 'evaluation.csv'}" in shown.err
    for name in ("warnings.md", "index.html"):
        assert bad.name in (tmp_path / "reports" / name).read_text()
    assert main(["export", "--results", str(results), "--output", str(tmp_path / "all.csv")]) == 0
    assert good.name in (tmp_path / "all.csv").read_text()


def test_a_run_that_nobody_is_at_is_not_listed_as_running(add_run, results):
    add_run("maml", state="running")
    add_run("md", state="interrupted")
    states = {line[1]: line[7] for line in listing.records(load_runs(results))[1]}
    assert states == {"maml": "killed", "md": "interrupted"}
