"""Table 1 in every format: what it shows, what it says where there is nothing to show."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.report import findings, formats, published, table, words
from benchmark.report.group import group_runs
from benchmark.report.notes import notes
from benchmark.report.terminal import print_table
from benchmark.runs.store import load_runs


def shown(results, width=80, terminal=False):
    out = io.StringIO()
    print_table(load_runs(results), Console(file=out, width=width, force_terminal=terminal, no_color=True))
    return out.getvalue()


def made(results):
    return table.tables(group_runs(load_runs(results)), findings.read(results))


def test_the_number_is_the_mean_over_tasks_in_percent(add_run, results):
    add_run("maml", accuracy=[0.4, 0.5, 0.6, 0.5])
    frame = table.frame(made(results))
    (row,) = frame.to_dict("records")
    assert row["mean"] == pytest.approx(50.0)
    assert row["half_tasks"] == pytest.approx(1.96 * np.std([40, 50, 60, 50]) / 2)
    assert math.isnan(row["half_seeds"])
    assert "50.00 ± 6.93" in formats.markdown(made(results))


def test_published_numbers_have_a_column_of_their_own(add_run, results):
    add_run("md", dataset="cifar-fs")
    add_run("maml", dataset="cifar-fs", shots=5)
    add_run("maml", dataset="cifar-fs", shots=5, options={"adapt": "head"})
    (one,) = made(results)
    header, body = table.grid(one)
    assert header == [
        "Method",
        "1-shot, paper (CIFAR-FS)",
        "1-shot, ours (controlled recipe)",
        "5-shot, paper (CIFAR-FS)",
        "5-shot, ours (controlled recipe)",
        "Meta-parameters",
    ]
    by_name = {line[0].text: line for line in body}
    assert by_name["MAML"][3] == table.Place("71.50 ± 1.00", 71.5)
    assert by_name["MAML (adapt=head)"][3].text == "–"
    assert by_name["MD"][1].text == "–"


def test_another_data_set_is_compared_with_miniimagenet_by_name(add_run, results):
    add_run("md", dataset="glyphs")
    text = formats.markdown(made(results))
    assert "1-shot, paper (miniImageNet)" in text
    assert "56.10 ± 1.43" in text
    assert "another data set" in text


def test_anybodys_own_data_stand_beside_no_published_number(add_run, results):
    add_run("md", dataset="my-birds")
    text = formats.markdown(made(results))
    assert "paper" not in text.lower().replace("| paper", "paper")
    assert "paper" not in shown(results)
    assert "†" not in text


def test_the_printed_number_of_md_stands_beside_the_released_code_and_md_is_marked_as_its_repair(add_run, results):
    for method in ("md", "md-released", "md-convex"):
        add_run(method)
    (one,) = made(results)
    _, body = table.grid(one)
    assert [line[0].text for line in body] == ["MD †", "MD as released", "MD convex (ours)"]
    assert [line[1].text for line in body] == ["56.10 ± 1.43", "56.10 ± 1.43", "–"]
    assert any(line.startswith("† this suite's repair") for line in notes(one))
    assert table.frame([one])["remark"].notna().tolist() == [True, False, False]


def test_numbers_of_several_sources_say_which_is_theirs(add_run, results):
    add_run("maml")
    assert "48.70 ± 1.84 |" in formats.markdown(made(results))
    add_run("mamlpp", options={"adapt": "[!n]*"})
    text = formats.markdown(made(results)).replace("\\", "")
    assert "48.70 ± 1.84 [1]" in text
    assert "52.15 ± 0.26 [2]" in text
    assert "as printed ([1] Table 1 of Zhang et al. (2024); [2] Antoniou et al. (2019))" in text


def test_twenty_ways_have_no_published_number(add_run, results):
    add_run("md", ways=20)
    assert "paper" not in formats.markdown(made(results))


def test_published_numbers_are_those_of_the_paper():
    numbers = published.TABLE_1
    assert published.MINIIMAGENET.numbers.items() >= numbers.items()
    assert numbers[("md", 1)] == published.Published(56.10, 1.43)
    assert numbers[("metacurvature", 5)] == published.Published(67.99, 0.73)
    assert ("mtnet", 5) not in numbers
    assert len(numbers) == 14
    assert {number.source for number in numbers.values()} == {published.ZHANG}


def test_methods_that_table_1_does_not_list_have_the_numbers_of_their_own_papers(add_run, results):
    add_run("mamlpp", options={"adapt": "[!n]*"}, recipe="published")
    add_run("maml", options={"adapt": "[!n]*"}, recipe="published")
    text = formats.markdown(made(results))
    assert "52.15 ± 0.26" in text
    assert "48.70" not in text  # MAML's paper adapts all
    assert not {method for method, _ in published.LATER} & {method for method, _ in published.TABLE_1}


def test_recipes_stand_side_by_side(add_run, results):
    add_run("maml", recipe="published", mean=0.6)
    add_run("maml", recipe="controlled", mean=0.5)
    (one,) = made(results)
    header, body = table.grid(one)
    assert header[2:4] == ["1-shot, ours (controlled recipe)", "1-shot, ours (published recipe)"]
    assert body[0][2].value < body[0][3].value


def test_seeds_and_tasks_are_kept_apart(add_run, results):
    for seed, mean in enumerate((0.4, 0.5, 0.6)):
        add_run("maml", accuracy=np.full(50, mean), seed=seed)
    groups = group_runs(load_runs(results))
    (row,) = table.frame(table.tables(groups)).to_dict("records")
    assert row["mean"] == pytest.approx(50.0)
    assert row["half_tasks"] == pytest.approx(0.0)
    assert row["half_seeds"] == pytest.approx(4.302653 * 10 / math.sqrt(3), rel=1e-6)
    assert row["sd_seeds"] == pytest.approx(10.0)
    assert "50.00 ± 0.00 ± 10.00" in formats.markdown(table.tables(groups))
    assert "± standard deviation over seeds" in formats.markdown(table.tables(groups))
    assert row["seeds"] == 3
    assert "3 seeds, few" in formats.markdown(table.tables(groups))


def test_a_diverged_run_is_counted_and_never_averaged(add_run, results):
    add_run("maml", accuracy=np.full(50, 0.5), seed=0)
    add_run("maml", seed=1, state="diverged")
    add_run("md", seed=0, state="diverged")
    groups = group_runs(load_runs(results))
    records = {row["method"]: row for row in table.frame(table.tables(groups)).to_dict("records")}
    assert records["maml"]["mean"] == pytest.approx(50.0)
    assert records["maml"]["runs_diverged"] == 1
    assert records["md"]["runs_diverged"] == 1
    assert math.isnan(records["md"]["mean"])
    text = formats.markdown(table.tables(groups))
    assert "1 diverged" in text
    assert "| diverged |" in text
    assert "diverged" in shown(results)


def test_an_evaluation_of_nan_is_diverged_and_not_zero(add_run, results):
    add_run("maml", accuracy=np.full(50, 0.2), nll=np.full(50, np.nan))
    add_run("md", accuracy=[0.5, 0.7, 0.2], nll=[1.0, 1.0, np.inf])
    records = {row["method"]: row for row in table.frame(made(results)).to_dict("records")}
    assert math.isnan(records["maml"]["mean"])
    assert records["maml"]["runs_diverged"] == 1
    assert records["md"]["mean"] == pytest.approx(60.0)
    assert records["md"]["tasks_diverged"] == 1
    assert "diverged on 1 of 3 tasks" in formats.markdown(made(results))


@pytest.mark.parametrize("state", ["running", "interrupted", "failed", "oom"])
def test_a_run_without_a_result_says_why(add_run, results, state):
    add_run("maml", state=state)
    assert state in formats.markdown(made(results))
    assert state in shown(results)


def test_best_and_ties_are_bold_and_the_baseline_is_not(add_run, results):
    add_run("pixels", accuracy=np.full(50, 0.9))
    add_run("maml", accuracy=np.tile([0.4, 0.6], 25))
    add_run("metasgd", accuracy=np.tile([0.61, 0.41], 25))
    add_run("md", accuracy=np.tile([0.1, 0.3], 25))
    frame = table.frame(made(results))
    assert set(frame[frame["best_or_tied"]]["method"]) == {"maml", "metasgd"}
    text = formats.markdown(made(results))
    assert "**51.00 ± 2.77**" in text
    assert "**90.00" not in text


def test_an_inner_step_is_timed_at_the_size_that_was_run(add_run, results):
    """glyphs have 28 pixels: what was timed at 32 or 84, or at another width, stands beside no row of theirs."""
    rows = [
        {"method": "maml", "channels": width, "image_size": size, "adapt_step_ms": ms}
        for width, size, ms in ((32, 28, 2.0), (64, 28, 5.0), (32, 84, 16.0))
    ]
    pd.DataFrame(rows).to_csv(results / "timing.csv", index=False)
    add_run("maml", channels=32)
    add_run("md", channels=32)
    (one,) = made(results)
    header, body = table.grid(one)
    assert [line[header.index("Inner step, ms")].text for line in body] == ["2.00", "–"]
    assert table.frame([one])["inner_step_ms"].dropna().tolist() == [2.0]
    add_run("maml", channels=32, options={"adapt": "head"})  # cheaper, and not timed
    assert table.frame(made(results))["inner_step_ms"].dropna().tolist() == [2.0]
    pd.DataFrame(rows[2:]).to_csv(results / "timing.csv", index=False)
    assert "Inner step" not in formats.markdown(made(results))


def test_training_time_of_busy_machines_is_no_result(add_run, results):
    add_run("maml", status={"wall_s": {"train": 987.0, "evaluate": 654.0}})
    (one,) = made(results)
    assert not any("wall" in name or "meta_step" in name for name in table.frame([one]).columns)
    assert "Meta-step" not in formats.markdown([one])


def test_equal_budget_is_a_line_of_facts(add_run, results):
    add_run("maml", iterations=100)
    add_run("md", iterations=100)
    (one,) = made(results)
    (line,) = (line for line in notes(one) if line.startswith("Budget"))
    assert line.startswith("Budget (controlled recipe): all alike in network cnn4, channels 32, meta-steps 100")
    assert "different" not in line
    add_run("metasgd", iterations=200, channels=64)
    (one,) = made(results)
    (line,) = (line for line in notes(one) if line.startswith("Budget"))
    assert line.endswith("; different in channels 32 / 64, meta-steps 100 / 200.")


def test_an_unknown_method_keeps_its_name_and_comes_after_the_known(add_run, results):
    add_run("my<b>_method")
    add_run("md")
    (one,) = made(results)
    assert [method for method, _ in one.labels] == ["md", "my<b>_method"]
    assert "my\\<b\\>\\_method" in formats.markdown([one])
    assert "my\\textless{}b\\textgreater{}\\_method" in formats.latex([one])


def test_reconstructed_methods_are_marked_wherever_shown(add_run, results):
    add_run("ecml")
    groups = group_runs(load_runs(results))
    assert "ECML \\*" in formats.markdown(table.tables(groups))
    assert "ECML *" in formats.latex(table.tables(groups))
    assert "reconstructed" in shown(results)
    assert "reconstructed" in table.frame(table.tables(groups))["remark"][0]


def test_a_plug_in_is_named_and_marked_by_the_card_in_its_runs(add_run, results):
    add_run("mine", card={"title": "Mine (learned)", "reconstructed": True})
    add_run("other", card={"title": "MAML (again)", "reconstructed": False})  # a name that is taken
    add_run("maml", card={"title": "MAML (gradient descent)", "reconstructed": False})
    add_run("old")
    (group,) = groups = group_runs(load_runs(results))
    assert [row.label for row in group.rows] == ["MAML", "Mine", "old", "other"]
    assert [row.label for row in group.rows if row.reconstructed] == ["Mine"]
    assert "Mine \\*" in formats.markdown(table.tables(groups))
    assert "Mine *" in formats.latex(table.tables(groups))
    assert table.frame(table.tables(groups))["remark"].notna().tolist() == [False, True, False, False]
    assert "Mine *" in shown(results)


def test_meta_steps_that_were_first_order_are_named(add_run, results):
    add_run("maml", first_order_for=99)
    add_run("maml")
    (group,) = group_runs(load_runs(results))
    assert [(row.label, row.plain) for row in group.rows] == [("MAML", True), ("MAML (first_order_for=99)", False)]


def test_an_estimator_that_is_not_exact_is_named_and_stands_beside_no_published_number(add_run, results):
    add_run("md", estimator="truncated:2")
    (group,) = group_runs(load_runs(results))
    assert [(row.label, row.plain) for row in group.rows] == [("MD (estimator=truncated:2)", False)]
    assert table.frame(table.tables([group]))["published"].isna().all()
    add_run("md", estimator="exact")
    assert [row.label for row in group_runs(load_runs(results))[0].rows] == ["MD", "MD (estimator=truncated:2)"]


def test_settings_of_one_method_are_told_apart(add_run, results):
    add_run("maml", channels=32)
    add_run("maml", channels=64)
    add_run("md", options={"scale": "sigmoid"})
    (group,) = group_runs(load_runs(results))
    assert {row.label for row in group.rows} == {"MAML (channels=32)", "MAML (channels=64)", "MD (scale=sigmoid)"}


def test_an_option_at_its_usual_value_is_no_second_seed(add_run, results):
    add_run("maml", accuracy=[0.4, 0.5])
    add_run("maml", accuracy=[0.4, 0.5], options={"adapt": "all"})
    (row,) = group_runs(load_runs(results))[0].rows
    assert (row.label, len(row.cells[1].measured)) == ("MAML", 1)


def test_regression_shows_its_loss(add_run, results):
    add_run("maml", accuracy=np.full(4, np.nan), nll=[0.1, 0.2, 0.3, 0.2], dataset="sine")
    add_run("md", accuracy=np.full(4, np.nan), nll=[0.9, 0.8, 0.8, 0.9], dataset="sine")
    groups = group_runs(load_runs(results))
    frame = table.frame(table.tables(groups))
    assert list(frame["metric"]) == ["nll", "nll"]
    assert frame["mean"][0] == pytest.approx(0.2)
    assert list(frame["best_or_tied"]) == [True, False]


def test_the_terminal_table_fits_and_a_pipe_gets_markdown(add_run, results):
    for method in ("pixels", "maml", "metacurvature", "md-released"):
        for shots in (1, 5):
            add_run(method, shots=shots)
    for terminal in (True, False):
        text = shown(results, terminal=terminal)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert (plain != text) == terminal
        assert max(map(len, plain.splitlines())) <= 80
    assert "\x1b" not in shown(results)
    assert "| MAML" in shown(results)
    assert "MetaCurvature" in shown(results)


def test_costs_in_words():
    assert words.spread([]) == "–"
    assert words.spread([1778.4]) == "1,778"
    assert words.spread([2.4]) == "2.40"
    assert words.spread([1.234, 9.87, 1.2341]) == "1.23 to 9.87"
    assert words.counted([100, 2_000_000]) == "100 / 2,000,000"


def test_nothing_to_show(results):
    assert "No runs" in shown(results)
    assert "No runs" in formats.markdown([])
    assert table.frame([]).empty
    assert "table1.csv" in formats.latex([])


def test_latex_compiles_in_shape(add_run, results):
    add_run("maml")
    add_run("md", shots=5)
    text = formats.latex(made(results))
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len({line.count("&") for line in rows}) == 1
    assert "±" not in text
    assert "%" not in text.replace("\\%", "").replace("{%\n", "").split("\n", 1)[1]
    assert "\\shortstack[r]{1-shot, ours \\\\ (controlled recipe)}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX")
def test_latex_compiles_and_is_not_too_wide(add_run, results, tmp_path):
    add_run("maml")
    add_run("md", shots=5)
    (tmp_path / "table.tex").write_text(formats.latex(made(results)))
    page = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table}\\end{document}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


def test_csv_round_trips_at_full_precision(add_run, results):
    add_run("maml", accuracy=[1 / 3, 2 / 3, 1 / 7])
    frame = table.frame(made(results))
    (line,) = csv.DictReader(io.StringIO(frame.to_csv(index=False)))
    assert float(line["mean"]) == frame["mean"][0] == pytest.approx(100 * (1 / 3 + 2 / 3 + 1 / 7) / 3)
