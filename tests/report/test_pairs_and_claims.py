"""Who beats whom, and the verdicts on the paper's claims, on results whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from benchmark.errors import UserError
from benchmark.report import findings, pairs
from benchmark.report.claims import judge
from benchmark.report.claims.verdict import FAILS, HOLDS, UNKNOWN, below
from benchmark.report.group import group_runs
from benchmark.runs.store import load_runs
from benchmark.statistics import Paired


def compared(results):
    groups = group_runs(load_runs(results))
    return groups, pairs.frame(groups)


def judged(results, **tables):
    groups, frame = compared(results)
    known = findings.read(results)
    return {claim.key: claim for claim in judge.judge(groups, frame, known)}


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
    assert row["p"] == row["p_holm"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    assert (row["tasks"], row["seeds"]) == (80, 2)
    by_seed = [a[:40].mean() - b[:40].mean(), a[40:].mean() - b[40:].mean()]
    assert row["half_seeds"] == pytest.approx(12.7062047 * np.std(by_seed, ddof=1) / np.sqrt(2))


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
    labels, body = pairs.matrix(frame, groups[0], 1)
    assert labels == ["MAML", "MetaSGD", "MD"]
    for i in range(3):
        assert body[i][i][1] == ""
        for j in range(3):
            if i != j:
                assert body[i][j][0] == -body[j][i][0]
    assert body[2][0][1] == "beats"
    assert body[0][2][1] == "loses"
    assert body[0][1][1] == "even"
    text = pairs.markdown(groups, frame)
    assert "▲ +" in text
    assert "No two rows" in pairs.markdown([], pairs.frame([]))


def test_a_lower_loss_is_better(add_run, results):
    for method, loss in (("maml", 0.5), ("md", 0.2)):
        nll = loss + np.random.default_rng(1).normal(0, 0.01, 50)
        add_run(method, accuracy=np.full(50, np.nan), nll=nll + 0.001 * (method == "md"), dataset="sine")
    groups, frame = compared(results)
    labels, body = pairs.matrix(frame, groups[0], 1)
    assert body[labels.index("MD")][labels.index("MAML")][1] == "beats"


def difference(low, high):
    return Paired((low + high) / 2, low, high, 0.5, 0.0, 1, 1, 1, 3, 0)


def test_verdicts():
    assert below([difference(-2, -1), difference(-1, -0.5)]) == HOLDS
    assert below([difference(-2, -1), difference(0.1, 1)]) == FAILS
    assert below([difference(-2, -1), difference(-0.5, 0.5)]) == UNKNOWN
    assert below([]) == UNKNOWN
    assert below([difference(float("nan"), float("nan"))]) == UNKNOWN


def test_every_claim_has_a_verdict_even_without_results(results):
    found = judged(results)
    assert set(found) == set(judge.STATEMENTS)
    assert {claim.verdict for claim in found.values()} == {UNKNOWN}
    assert len(judge.frame(list(found.values()))) == len(found)
    assert "Not enough evidence" in judge.markdown(list(found.values()))


def test_the_printed_order_is_confirmed_or_reversed(add_run, results):
    for method, mean in (("maml", 0.40), ("metasgd", 0.42), ("metacurvature", 0.5), ("md", 0.55)):
        add_run(method, mean=mean)
    claim = judged(results)["order"]
    assert claim.verdict == HOLDS
    # MAML and MetaSGD overlap in print, and so do MetaCurvature and MD: four pairs are claimed
    assert claim.checks[0].number == "4 of 4 pairs confirmed, 0 reversed, 0 undecided"
    add_run("maml", mean=0.7, ways=5, recipe="published")
    add_run("md", mean=0.5, ways=5, recipe="published")
    claim = judged(results)["order"]
    assert claim.verdict == FAILS
    assert "reversed: MD > MAML" in claim.checks[1].evidence


def test_the_printed_order_is_that_of_table_1_alone(add_run, results):
    """MAML++ is printed far above MAML, in another paper: no order of the table is claimed of it."""
    for method, mean in (("maml", 0.40), ("mamlpp", 0.55), ("md", 0.5)):
        add_run(method, mean=mean)
    assert judged(results)["order"].checks[0].number == "1 of 1 pairs confirmed, 0 reversed, 0 undecided"


def test_an_order_without_a_clear_difference_is_not_enough(add_run, results):
    add_run("maml", mean=0.5, tasks=20)
    add_run("md", mean=0.505, tasks=20)
    assert judged(results)["order"].verdict == UNKNOWN


def test_claims_about_the_trace_hold_where_they_are_built_in(add_run, results):
    for method, start, rate in (
        ("maml", 1.6, 0.8),
        ("metasgd", 1.6, 0.75),
        ("metacurvature", 1.4, 0.7),
        ("md", 1.3, 0.4),
    ):
        add_run(method, start=start, rate=rate)
    found = judged(results)
    for key in ("faster", "start", "norms", "drop", "end"):
        assert found[key].verdict == HOLDS, (key, found[key].checks)


def test_claims_about_the_trace_fail_where_the_opposite_is_built_in(add_run, results):
    for method, start, rate in (("maml", 1.0, 0.4), ("metasgd", 1.0, 0.4), ("md", 1.8, 0.9)):
        add_run(method, start=start, rate=rate)
    found = judged(results)
    for key in ("faster", "start", "norms", "drop", "end"):
        assert found[key].verdict == FAILS, key


def test_equal_traces_are_not_enough_evidence(add_run, results):
    for method in ("maml", "md"):
        add_run(method, tasks=30)
    found = judged(results)
    assert found["faster"].verdict == UNKNOWN
    assert found["norms"].verdict == HOLDS


def test_our_variant_is_shown_and_does_not_decide(add_run, results):
    add_run("maml", rate=0.8)
    add_run("md", rate=0.9)
    add_run("md-convex", rate=0.4)
    claim = judged(results)["faster"]
    assert {check.subject: check.verdict for check in claim.checks} == {"MD": FAILS, "MD convex (ours)": HOLDS}
    assert claim.verdict == FAILS
    assert claim.summary == "does not hold 1 of 1 checks"


def test_equal_budget(add_run, results):
    add_run("maml", iterations=100)
    add_run("md", iterations=100)
    assert judged(results)["budget"].verdict == HOLDS
    add_run("metasgd", iterations=200, channels=64)
    claim = judged(results)["budget"]
    assert claim.verdict == FAILS
    assert claim.checks[0].evidence == "iterations 100 / 200; channels 32 / 64"


def write_csv(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)


def test_cost_exponent_decides_about_linear_steps(results):
    sizes = [1e4, 1e5, 1e6]
    rows = [{"method": "md", "parameters": d, "multiply_adds": 3 * d**1.5} for d in sizes]
    rows += [{"method": "md-convex", "parameters": d, "multiply_adds": 9 * d} for d in sizes]
    write_csv(results / "timing.csv", rows)
    claim = judged(results)["linear"]
    assert [(check.subject, check.verdict, check.number) for check in claim.checks] == [
        ("MD", FAILS, "cost grows as d^1.50"),
        ("MD convex (ours)", HOLDS, "cost grows as d^1.00"),
    ]
    write_csv(results / "timing.csv", rows[:1])
    assert judged(results)["linear"].verdict == UNKNOWN


def test_eigenvalues_decide_about_monotone_maps(results):
    rows = [
        {"method": "md", "run": "a", "stage": "trained", "least": -0.4, "asymmetry": 0.3},
        {"method": "md", "run": "", "stage": "start", "least": 1.0},
        {"method": "md-convex", "run": "b", "stage": "trained", "least": 0.2, "asymmetry": 0.0},
        {"method": "maml", "run": "c", "stage": "trained", "least": -9.0},
    ]
    rows.append({"method": "md-released", "run": "d", "stage": "trained", "least": 0.01, "residual": 0.05})
    write_csv(results / "geometry.csv", rows)
    claim = judged(results)["monotone"]
    assert sorted((check.subject, check.verdict) for check in claim.checks) == [
        ("MD", FAILS), ("MD", HOLDS), ("MD as released", UNKNOWN), ("MD convex (ours)", HOLDS),
    ]  # fmt: skip
    assert any("-0.4" in check.number for check in claim.checks)


def test_findings_say_what_is_wrong_with_a_file(results):
    (results / "geometry.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"geometry\.csv: has no column 'method'"):
        findings.read(results)
    (results / "geometry.csv").write_bytes(b"")
    with pytest.raises(UserError, match="not a readable table"):
        findings.read(results)


def test_step_cost_compares_like_with_like(results):
    """Mean over the sizes that most methods were timed at, under the conditions that most were timed under."""
    rows = [
        {"method": method, "channels": width, "image_size": 28, "adapt_step_ms": ms, "threads": 1, "clock": "wall"}
        for method, width, ms in (("maml", 32, 2.0), ("maml", 64, 4.0), ("md", 32, 3.0), ("md", 64, 6.0))
    ]
    write_csv(results / "timing.csv", rows)
    assert findings.read(results).step_cost.to_dict() == {"maml": 3.0, "md": 4.5}
    other = [rows[2] | {"threads": 8, "adapt_step_ms": 0.5}, rows[2] | {"image_size": 84, "adapt_step_ms": 90.0}]
    write_csv(results / "timing.csv", other + rows)
    assert findings.read(results).step_cost.to_dict() == {"maml": 3.0, "md": 4.5}


def test_growth():
    assert findings.growth([1, 10, 100], [2, 20, 200]) == pytest.approx(1.0)
    assert findings.growth([4, 16], [8, 64]) == pytest.approx(1.5)
    assert np.isnan(findings.growth([5, 5], [1, 2]))
