"""The verdicts on the paper's claims, on results whose truth is known; test_verdict_rates.py has their error rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark import recipes
from benchmark.errors import UserError
from benchmark.report import findings, pairs
from benchmark.report.claims import judge
from benchmark.report.claims.setting import deviations
from benchmark.report.claims.statements import STATEMENTS, Claim
from benchmark.report.claims.verdict import FAILS, HOLDS, PART, UNKNOWN, UNREFUTED, UNTESTABLE, Check
from benchmark.report.group import group_runs
from benchmark.runs.store import load_runs

SEEDS = (0, 1, 2)
TRACES = ("faster", "start", "norms", "drop", "end")
TRUE = {"maml": (1.6, 0.8), "metasgd": (1.6, 0.75), "metacurvature": (1.4, 0.7), "md": (1.3, 0.4)}
FALSE = {"maml": (0.8, 0.4), "metasgd": (0.8, 0.4), "metacurvature": (0.8, 0.4), "md": (1.8, 0.9)}


def judged(results):
    groups = group_runs(load_runs(results))
    claims = judge.judge(groups, pairs.frame(groups), findings.read(results))
    return {claim.key: claim for claim in claims}


def add_traces(add_run, built, seeds=SEEDS, **knobs):
    """Runs of each method with the support loss ``start·rate^k``."""
    for method, (start, rate) in built.items():
        for seed in seeds:
            add_run(method, start=start, rate=rate, seed=seed, **({"tasks": 30} | knobs))


def test_every_claim_has_a_verdict_even_without_results(results):
    found = judged(results)
    assert set(found) == set(STATEMENTS)
    assert {claim.verdict for claim in found.values()} == {UNTESTABLE}
    assert len(judge.frame(list(found.values()))) == len(found)
    assert "Not testable here" in judge.markdown(list(found.values()))


def test_equal_budget_is_no_claim(results):
    assert "budget" not in judged(results)


@pytest.mark.parametrize(("built", "verdict"), [(TRUE, HOLDS), (FALSE, FAILS)])
def test_claims_about_the_trace_are_judged_where_three_seeds_agree(add_run, results, built, verdict):
    add_traces(add_run, built)
    found = judged(results)
    for key in TRACES:
        assert found[key].verdict == verdict, (key, found[key].checks)
        assert found[key].words == f"{verdict} in this setting"  # glyphs by the controlled recipe are not the paper's


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_with_fewer_than_three_seeds_no_claim_about_trained_models_is_judged(add_run, results, seeds):
    add_traces(add_run, TRUE, seeds)
    found = judged(results)
    for key in (*TRACES, "order"):
        assert found[key].verdict == UNTESTABLE, key
        assert f"needs at least 3 seeds, has {len(seeds)}" in found[key].checks[0].evidence
        assert "[" not in found[key].checks[0].number  # no interval that would be believed


def test_seeds_that_disagree_decide_nothing(add_run, results):
    add_traces(add_run, {method: TRUE[method] for method in ("maml", "metasgd", "metacurvature")})
    for seed, rate, start in ((0, 0.3, 0.5), (1, 0.85, 3.0), (2, 0.6, 1.5)):
        add_run("md", seed=seed, start=start, rate=rate, tasks=30)
    found = judged(results)
    for key in TRACES:
        assert [c.verdict for c in found[key].checks if c.subject != "MetaCurvature"] == [UNKNOWN], key


def test_a_claim_over_three_methods_is_not_confirmed_by_two(add_run, results):
    add_traces(add_run, {method: TRUE[method] for method in ("maml", "metasgd", "md")})
    (check,) = judged(results)["faster"].checks
    assert check.verdict == UNTESTABLE
    assert "no run of MetaCurvature" in check.evidence


def test_our_variant_is_shown_and_does_not_decide(add_run, results):
    add_traces(add_run, {**FALSE, "md-convex": (0.5, 0.2)})
    claim = judged(results)["faster"]
    assert {check.subject: check.verdict for check in claim.checks} == {"MD": FAILS, "MD convex (ours)": HOLDS}
    assert claim.verdict == FAILS
    assert claim.summary == "1 check"


def test_a_variant_stands_beside_its_method_and_not_for_it(add_run, results):
    """A row of other options is judged by itself and speaks for no method; of MD convex, too, it does not decide."""
    add_traces(add_run, {**TRUE, "md-convex": (0.5, 0.2)})
    before = judged(results)
    add_traces(add_run, {"md": FALSE["md"], "maml": (0.2, 0.1)}, options={"scale": "sigmoid"})
    add_traces(add_run, {"md-convex": FALSE["md"]}, options={"scale": "sigmoid"})
    after = judged(results)
    for key in ("faster", "drop", "end", "start"):
        kept = {check.subject: check for check in after[key].checks}
        assert all(kept[check.subject] == check for check in before[key].checks)
        assert kept["MD (scale=sigmoid)"].verdict == kept["MD convex (ours) (scale=sigmoid)"].verdict == FAILS
        assert {check.subject for check in after[key].counted} <= {"MD", "MD (scale=sigmoid)", "MetaCurvature"}
    assert after["norms"].checks == before["norms"].checks


def test_what_holds_here_and_fails_there_holds_in_part(add_run, results):
    add_traces(add_run, TRUE)
    add_traces(add_run, FALSE, dataset="omniglot")
    claim = judged(results)["faster"]
    assert claim.verdict == PART
    assert claim.words == "holds in part, in these settings"
    assert claim.summary == "2 checks: 1 hold, 1 fail"


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        ([HOLDS, UNKNOWN], UNKNOWN),
        ([FAILS, UNKNOWN], FAILS),
        ([HOLDS, UNTESTABLE], HOLDS),
        ([UNREFUTED, HOLDS], HOLDS),
        ([HOLDS, HOLDS], HOLDS),
    ],
)
def test_a_claim_on_several_methods_holds_where_it_is_decided_for_all(verdicts, word):
    checks = [Check("here", f"M{number}", verdict, "", "", True) for number, verdict in enumerate(verdicts)]
    claim = Claim("start", "", "", "", tuple(checks))
    assert claim.verdict == word
    assert claim.words == (word if word == UNKNOWN else f"{word} in this setting")


def test_a_verdict_is_not_said_twice(add_run, results):
    add_traces(add_run, FALSE)
    for claim in judged(results).values():
        assert claim.verdict not in claim.summary


MEANS = {"maml": 0.40, "metasgd": 0.42, "metacurvature": 0.5, "md": 0.55}


def test_the_printed_order_is_confirmed_or_reversed(add_run, results):
    for method, mean in MEANS.items():
        for seed in SEEDS:
            add_run(method, mean=mean, seed=seed)
    claim = judged(results)["order"]
    assert claim.verdict == HOLDS
    # MAML and MetaSGD overlap in print, and so do MetaCurvature and MD: four pairs are claimed
    assert claim.checks[0].number == "4 of 4 pairs confirmed, 0 reversed, 0 undecided"
    for method, mean in (("maml", 0.7), ("md", 0.5)):
        for seed in SEEDS:
            add_run(method, mean=mean, recipe="published", seed=seed)
    claim = judged(results)["order"]
    assert [check.verdict for check in claim.checks] == [HOLDS, FAILS]
    assert "reversed: MD > MAML (−" in claim.checks[1].evidence


def test_the_printed_order_is_that_of_table_1_alone(add_run, results):
    """MAML++ is printed far above MAML, in another paper: no order of the table is claimed of it."""
    for method, mean in (("maml", 0.40), ("mamlpp", 0.55), ("md", 0.5)):
        for seed in SEEDS:
            add_run(method, mean=mean, seed=seed, tasks=50)
    assert judged(results)["order"].checks[0].number == "1 of 1 pairs confirmed, 0 reversed, 0 undecided"


def test_only_the_papers_data_by_the_published_recipe_is_judged_without_a_proviso(add_run, results):
    for method, mean in MEANS.items():
        for seed in SEEDS:
            spec = recipes.resolve(
                method, "miniimagenet", shots=1, recipe_name="published", preset="paper", overrides={"seed": seed}
            ).to_dict()
            run = add_run(spec.pop("method"), mean=mean, **spec | {"tasks": 100, "steps": spec["steps"]})
            assert deviations(run) == []
    add_traces(add_run, TRUE, dataset="miniimagenet")
    claim = judged(results)["order"]
    assert {check.elsewhere for check in claim.checks} == {True, False}
    assert claim.words == HOLDS  # what the controlled recipe says beside it does not count
    assert len(claim.counted) == 1


def test_a_run_that_is_shorter_than_published_is_another_setting(add_run):
    spec = recipes.resolve(
        "md", "miniimagenet", shots=1, recipe_name="published", preset="paper", overrides={"iterations": 500}
    ).to_dict()
    assert deviations(add_run(spec.pop("method"), **spec)) == ["iterations"]
    assert deviations(add_run("plug-in", recipe="published")) == ["method"]


def write_csv(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)


def costs(method, power, size, widths=(1e4, 1e5, 1e6), factor=3.0, time=1.0):
    return [
        {
            "method": method, "parameters": d, "multiply_adds": factor * d**power, "image_size": size, "channels": i,
            "transform_ms": d**time,
        }
        for i, d in enumerate(widths)
    ]  # fmt: skip


def test_the_power_of_the_cost_is_fitted_at_one_image_size(results):
    """Each size costs d^1, the larger one ten times as much a parameter: over both sizes at once it would be d^1.3."""
    rows = costs("md", 1.0, 32, widths=(1e4, 2e4, 4e4)) + costs("md", 1.0, 84, widths=(5e4, 1e5, 2e5), factor=30.0)
    write_csv(results / "timing.csv", rows)
    claim = judged(results)["linear"]
    assert [(check.where, check.number, check.verdict) for check in claim.checks] == [
        ("32×32 images", "operations d^1.00, time d^1.00", HOLDS),
        ("84×84 images", "operations d^1.00, time d^1.00", HOLDS),
    ]
    assert claim.words == HOLDS


def test_operations_decide_about_linear_steps_and_time_stands_beside(results):
    rows = costs("md", 1.5, 32, time=0.4) + costs("md-convex", 1.0, 32)
    write_csv(results / "timing.csv", rows)
    claim = judged(results)["linear"]
    assert [(check.subject, check.verdict, check.number) for check in claim.checks] == [
        ("MD", FAILS, "operations d^1.50, time d^0.40"),
        ("MD convex (ours)", HOLDS, "operations d^1.00, time d^1.00"),
    ]
    assert claim.verdict == FAILS
    write_csv(results / "timing.csv", rows[:2])
    (check,) = judged(results)["linear"].checks
    assert check.verdict == UNTESTABLE
    assert "needs at least 3 widths at one image size, has 2" in check.evidence


def found_at(method, least, residual=0.0, theta="random θ"):
    row = {"method": method, "run": "", "theta": theta, "point": "descended", "steps": 20, "first": 1.0}
    return row | {"least": least, "residual": residual, "distance": 0.1}


def test_a_point_refutes_monotonicity_and_none_proves_it(results):
    geometry = [
        {"method": "md", "run": "", "stage": "start", "least": -5.0},  # the start is no evidence
        {"method": "md", "run": "a", "stage": "trained", "least": 0.4, "asymmetry": 0.3},
        {"method": "maml", "run": "c", "stage": "trained", "least": -9.0},
    ]
    write_csv(results / "geometry.csv", geometry)
    claim = judged(results)["monotone"]
    assert [(check.subject, check.verdict, check.where) for check in claim.checks] == [("MD", UNREFUTED, "a, on tasks")]
    assert claim.verdict == UNREFUTED
    rows = [found_at("md", 0.2), found_at("md", -0.5, residual=0.6), found_at("md-convex", 0.1)]
    write_csv(results / "search.csv", rows)
    assert judged(results)["monotone"].verdict == UNREFUTED  # as far off as it may be, −0.5 is no proof
    write_csv(results / "search.csv", [*rows, found_at("md", -0.3, residual=0.01, theta="random θ, scale 0.3, seed 1")])
    claim = judged(results)["monotone"]
    assert claim.verdict == FAILS
    (check,) = (check for check in claim.checks if check.subject == "MD")
    assert check.number == "least eigenvalue −0.3 (within 0.01)"
    assert check.where == "random θ, scale 0.3, seed 1, descended"
    assert check.evidence == "over 4 points; asymmetry up to 0.3 (0: the map is a gradient)"


def test_findings_say_what_is_wrong_with_a_file(results):
    (results / "geometry.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"geometry\.csv: has no column 'method'"):
        findings.read(results)
    (results / "geometry.csv").write_bytes(b"")
    with pytest.raises(UserError, match="not a readable table"):
        findings.read(results)


def test_geometry_of_starts_alone_has_no_run(results):
    """A column of empty places is one of numbers to pandas."""
    write_csv(results / "geometry.csv", [{"method": "md", "run": None, "stage": "start", "least": 1.0}])
    assert findings.read(results).geometry["run"].tolist() == [""]


def test_step_times_are_those_of_one_size_under_one_set_of_conditions(results):
    rows = [
        {"method": method, "channels": width, "image_size": size, "adapt_step_ms": ms, "threads": 1, "clock": "wall"}
        for method, width, size, ms in (
            ("maml", 32, 32, 2.0), ("maml", 32, 84, 9.0), ("md", 32, 32, 3.0), ("md", 64, 32, 6.0),
        )
    ]  # fmt: skip
    other = [rows[2] | {"threads": 8, "adapt_step_ms": 0.5}]
    write_csv(results / "timing.csv", other + rows)
    found = findings.read(results)
    assert found.milliseconds(32, 32) == {"maml": 2.0, "md": 3.0}
    assert found.milliseconds(84, 32) == {"maml": 9.0}
    assert found.milliseconds(28, 32) == {}
    write_csv(results / "timing.csv", [row | {"shots": 5} for row in rows])
    assert findings.read(results).milliseconds(32, 32) == {}  # the report says that its times are of one shot


def test_growth():
    assert findings.growth([1, 10, 100], [2, 20, 200]) == pytest.approx(1.0)
    assert findings.growth([4, 16], [8, 64]) == pytest.approx(1.5)
    assert np.isnan(findings.growth([5, 5], [1, 2]))
