"""Who beats whom, on results whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from benchmark.report import matrix, pairs
from benchmark.report.group import group_runs
from benchmark.runs.store import load_runs


def compared(results):
    groups = group_runs(load_runs(results))
    return groups, pairs.frame(groups)


def test_differences_are_paired_by_task_and_seed(add_run, results):
    rng = np.random.default_rng(0)
    scores = {(m, s): rng.uniform(0.3, 0.7, 40) for m in ("maml", "md") for s in (0, 1)}
    for (method, seed), values in scores.items():
        add_run(method, accuracy=values, seed=seed)
    _, frame = compared(results)
    (row,) = frame.to_dict("records")
    a, b = (100 * np.concatenate([scores[m, 0], scores[m, 1]]) for m in ("maml", "md"))
    assert (row["a"], row["b"]) == ("MAML", "MD")
    assert row["difference"] == pytest.approx((a - b).mean())
    assert (row["tasks"], row["seeds"], row["judged_over"]) == (80, 2, "seeds and tasks")
    seeds = [a[:40] - b[:40], a[40:] - b[40:]]
    between = np.var([seed.mean() for seed in seeds], ddof=1)
    error = np.sqrt(max(between, np.mean([seed.var(ddof=1) / 40 for seed in seeds])) / 2)
    assert row["high"] - row["difference"] == pytest.approx(12.7062047 * error)
    assert row["p"] == row["p_holm"] == pytest.approx(2 * scipy.stats.t.sf(abs(row["difference"]) / error, 1))


def test_one_seed_is_compared_over_its_tasks(add_run, results):
    rng = np.random.default_rng(0)
    scores = {method: rng.uniform(0.3, 0.7, 40) for method in ("maml", "md")}
    for method, values in scores.items():
        add_run(method, accuracy=values)
    _, frame = compared(results)
    (row,) = frame.to_dict("records")
    assert row["judged_over"] == "tasks"
    assert row["p"] == pytest.approx(scipy.stats.ttest_rel(scores["maml"], scores["md"]).pvalue)


def test_a_row_that_is_ahead_on_every_common_task_is_not_beaten(add_run, results):
    """MAML has the better mean by its one easy seed; on the tasks that both met MetaSGD is ahead, beyond chance."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0.4, 0.6, 40)
    add_run("maml", accuracy=first, seed=0)
    add_run("metasgd", accuracy=first + rng.uniform(0.01, 0.03, 40), seed=0)
    add_run("metasgd", accuracy=first - 0.1, seed=1)
    (group,), frame = compared(results)
    (row,) = frame.to_dict("records")
    assert row["difference"] < 0
    assert row["p"] < 0.05
    assert row["p_best"] == pytest.approx(1 - row["p"] / 2)
    assert pairs.best(frame, group, 1) == {"MAML", "MetaSGD"}


def test_only_common_tasks_and_seeds_are_compared(add_run, results):
    add_run("maml", accuracy=[0.5, 0.6, 0.7, 0.8], seed=0)
    add_run("md", accuracy=[0.6, 0.6], seed=0)
    add_run("md", accuracy=[0.0, 0.0], seed=1)
    add_run("metasgd", accuracy=[0.1, 0.1], seed=2)
    _, frame = compared(results)
    (row,) = frame.to_dict("records")
    assert row["difference"] == pytest.approx(-5.0)
    assert (row["tasks"], row["wins"], row["ties"], row["losses"]) == (2, 0, 1, 1)


def test_holm_runs_over_the_whole_printed_table(add_run, results):
    for shots in (1, 5):
        for method, mean in (("maml", 0.5), ("md", 0.505), ("metasgd", 0.53)):
            add_run(method, mean=mean, shots=shots, tasks=60)
    add_run("maml", ways=10)
    add_run("md", ways=10, mean=0.505)
    _, frame = compared(results)
    five = frame[frame["ways"] == 5]
    order = five["p"].sort_values()
    expected = (order * np.arange(6, 0, -1)).cummax().clip(upper=1)
    np.testing.assert_allclose(five["p_holm"].loc[order.index], expected)
    ten = frame[frame["ways"] == 10]
    np.testing.assert_allclose(ten["p_holm"], ten["p"])


def test_the_matrix_is_antisymmetric_and_says_who_is_better(add_run, results):
    add_run("maml", mean=0.4)
    add_run("metasgd", mean=0.4)
    add_run("md", mean=0.6)
    add_run("ecml", state="diverged")
    groups, frame = compared(results)
    labels, body = matrix.matrix(frame, groups[0], 1)
    assert labels == ["MAML", "MetaSGD", "MD"]
    for i in range(3):
        assert body[i][i][1] == ""
        for j in range(3):
            if i != j:
                assert body[i][j][0] == -body[j][i][0]
    assert body[2][0][1] == "beats"
    assert body[0][2][1] == "loses"
    assert body[0][1][1] == "even"
    text = matrix.markdown(groups, frame)
    assert "▲ +" in text
    assert "No two rows" in matrix.markdown([], pairs.frame([]))


def test_a_lower_loss_is_better(add_run, results):
    for method, loss in (("maml", 0.5), ("md", 0.2)):
        nll = loss + np.random.default_rng(1).normal(0, 0.01, 50)
        add_run(method, accuracy=np.full(50, np.nan), nll=nll + 0.001 * (method == "md"), dataset="sine")
    groups, frame = compared(results)
    labels, body = matrix.matrix(frame, groups[0], 1)
    assert body[labels.index("MD")][labels.index("MAML")][1] == "beats"


def test_ties_of_the_best_are_those_of_the_matrix_and_not_of_overlapping_intervals(add_run, results):
    """B is below A on every task, by a tenth of the tasks' spread: the intervals overlap, the pair is no tie."""
    difficulty = np.random.default_rng(3).uniform(0.2, 0.8, 100)
    add_run("maml", accuracy=difficulty)
    add_run("md", accuracy=difficulty - np.random.default_rng(4).uniform(0.01, 0.03, 100))
    groups, frame = compared(results)
    (group,) = groups
    one, two = (cell.score for cell in group.cells(1))
    assert two.high > one.low
    assert pairs.best(frame, group, 1) == {"MAML"}
    assert matrix.matrix(frame, group, 1)[1][0][1][1] == "beats"


def test_signs_are_minus_signs_and_no_hyphens(add_run, results):
    add_run("maml", mean=0.4)
    add_run("md", mean=0.6)
    groups, frame = compared(results)
    text = matrix.markdown(groups, frame)
    assert "▼ −" in text
    assert "▼ -" not in text


def test_a_row_of_one_seed_is_judged_by_the_spread_of_the_others(add_run, results):
    """Three methods of three seeds that jump by points, and a fourth of one seed, a point better: not told apart."""
    rng = np.random.default_rng(6)
    for method, jump in (("maml", (0.0, 0.03, -0.03)), ("metasgd", (0.03, -0.03, 0.0)), ("ecml", (-0.03, 0.0, 0.03))):
        for seed, shift in enumerate(jump):
            add_run(method, accuracy=0.5 + shift + rng.normal(0, 0.01, 50), seed=seed)
    add_run("md", accuracy=0.52 + rng.normal(0, 0.01, 50), seed=0)
    groups = group_runs(load_runs(results))
    frame = pairs.frame(groups)
    row = frame[(frame["a"] == "MAML") & (frame["b"] == "MD")].iloc[0]
    assert (row["seeds"], row["judged_over"]) == (1, "seeds and tasks")
    assert row["difference"] == pytest.approx(-2, abs=0.5)
    assert row["p"] > 0.2
    assert row["low"] < -5
    assert row["high"] > 2
    assert pairs.best(frame, groups[0], 1) == {"MAML", "MetaSGD", "ECML", "MD"}


def test_the_best_is_corrected_over_its_competitors_alone(add_run, results):
    """Eight rows, one clearly worst: p_best is one-sided, seven-fold, and on the pairs of the best mean alone."""
    rng = np.random.default_rng(7)
    methods = ("maml", "metasgd", "mtnet", "warpgrad", "metacurvature", "metakfo", "ecml", "md")
    for i, method in enumerate(methods):
        for seed in range(3):
            add_run(method, accuracy=0.5 - 0.1 * (i == 0) + 0.01 * rng.normal() + rng.normal(0, 0.01, 50), seed=seed)
    for seed in range(3):
        add_run("pixels", accuracy=0.9 + rng.normal(0, 0.01, 50), seed=seed)  # better than all, and no competitor
    groups = group_runs(load_runs(results))
    frame = pairs.frame(groups)
    with_best = frame[frame["p_best"].notna()]
    assert len(with_best) == 7
    (top,) = set.intersection(*({row["a"], row["b"]} for _, row in with_best.iterrows()))
    scores = {cell.label: cell.score.mean for cell in groups[0].cells(1) if cell.method != "pixels"}
    assert top == max(scores, key=scores.get)
    np.testing.assert_allclose(with_best["p_best"], np.minimum(1, 7 * with_best["p"] / 2))
    chosen = pairs.best(frame, groups[0], 1)
    assert top in chosen
    assert "MAML" not in chosen
    assert "nearest centroid" not in chosen
