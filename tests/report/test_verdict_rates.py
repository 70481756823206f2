"""How often a verdict is wrong, by simulation: claims that are true, that are false, that seeds disagree on.

Each trial draws what training and measuring would give anew: a shift for each method and seed, and tasks within it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark.report.cell import Cell
from benchmark.report.claims import judge, trace
from benchmark.report.claims.verdict import FAILS, HOLDS, UNKNOWN, UNTESTABLE, below
from benchmark.report.pairs import COLUMNS
from benchmark.runs.store import Run
from benchmark.spec import RunSpec
from benchmark.statistics import paired, paired_over_seeds

TASKS = 10


def rate(verdicts, word):
    return sum(verdict == word for verdict in verdicts) / len(verdicts)


@pytest.mark.parametrize(("between", "seeds"), [(1.0, 3), (1.0, 5), (0.3, 3), (0.0, 3)])
def test_seeds_that_differ_are_not_taken_for_methods_that_do(between, seeds):
    """Two methods of one mean, trained anew with each seed; 5 % of all intervals leave out zero, or fewer."""
    rng = np.random.default_rng(7)
    trials, tasks = 600, 20
    labels = np.repeat(np.arange(seeds), tasks)
    wrong = naive = 0
    for _ in range(trials):
        d = rng.normal(0, between, seeds)[labels] + rng.normal(0, 2, seeds * tasks)
        found = paired_over_seeds(d, np.zeros_like(d), labels)
        wrong += not found.low <= 0 <= found.high
        naive += paired(d, np.zeros_like(d), resamples=0).p < 0.05
    # three standard errors of a rate of 5 % over 600 trials are 2.7 %
    assert wrong / trials < 0.077
    if between == 1.0:
        assert naive / trials > 0.3  # what pooling the tasks of all seeds would say


def test_a_difference_larger_than_what_seeds_do_is_found():
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(3), 50)
    found = 0
    for _ in range(200):
        d = 4.0 + rng.normal(0, 0.5, 3)[labels] + rng.normal(0, 3, 150)
        found += paired_over_seeds(d, np.zeros_like(d), labels).p < 0.05
    assert found / 200 > 0.95


def test_an_interval_over_seeds_at_another_level_is_wider():
    d = np.array([1.0, 2.0, 3.0, 4.0, 2.0, 6.0])
    found = paired_over_seeds(d, np.zeros(6), [0, 0, 1, 1, 2, 2])
    low, high = found.over_seeds(0.99)
    assert low < found.low < found.mean < found.high < high
    assert found.over_seeds(0.95) == (found.low, found.high)
    assert all(map(np.isnan, paired(d, np.zeros(6)).over_seeds()))


RUNS = [Run(None, RunSpec(method="maml", seed=seed).to_dict(), {}, [], {}) for seed in range(5)]


def cell(method, nll, norm):
    """A cell whose traces [seeds, tasks, K + 1] are given."""
    seeds, tasks = nll.shape[:2]
    made = Cell(method, method, 1, tuple(RUNS[:seeds]))
    index = pd.MultiIndex.from_product([range(seeds), range(tasks)], names=["seed", "task"])
    frames = {
        name: pd.DataFrame(values.reshape(seeds * tasks, -1), index)
        for name, values in (("support_nll", nll), ("grad_norm", norm))
    }
    made.__dict__.update(measured=made.runs, _traces=frames)
    return made


def column(rng, starts, rates, seeds, spread):
    """Fig. 1's four methods: start·rate^k, start and rate shifted for each seed, a factor of its own for each task."""
    cells = []
    k = np.arange(6)
    for method, start, fall in zip(("maml", "metasgd", "metacurvature", "md"), starts, rates, strict=True):
        shift = np.exp(rng.normal(0, spread, (2, seeds, 1, 1)))
        task = np.exp(rng.normal(0, 0.05, (2, seeds, TASKS, 6)))
        nll, norm = start * shift[0] * (fall * shift[1]) ** k * task
        cells.append(cell(method, nll, 2 * norm))
    return cells


TRUE = (1.6, 1.6, 1.3, 1.3), (0.8, 0.8, 0.8, 0.5)
FALSE = (1.0, 1.0, 1.0, 2.4), (0.5, 0.5, 0.5, 0.95)
EQUAL = (1.0, 1.0, 1.0, 1.0), (0.7, 0.7, 0.7, 0.7)
KEYS = ("faster", "start", "norms", "drop", "end")


def verdicts(starts, rates, *, seeds=3, spread=0.02, trials=12):
    """Key → verdicts on MD over the trials."""
    rng = np.random.default_rng(11)
    found = {key: [] for key in KEYS}
    for _ in range(trials):
        for key, check in trace.checks("here", column(rng, starts, rates, seeds, spread)):
            if check.subject != "metacurvature":
                found[key].append(check.verdict)
    return found


def test_a_true_claim_is_said_to_hold_and_a_false_one_not_to():
    for key, found in verdicts(*TRUE).items():
        assert rate(found, HOLDS) > 0.7, key
    for key, found in verdicts(*FALSE).items():
        assert rate(found, FAILS) > 0.7, key
        assert rate(found, HOLDS) == 0, key


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_said_to_be_too_few(seeds):
    for key, found in verdicts(*TRUE, seeds=seeds, trials=2).items():
        assert rate(found, UNTESTABLE) == 1, key


def test_where_methods_are_equal_and_seeds_disagree_a_verdict_is_rare():
    """Equal methods whose training differs by 30 % from seed to seed: wrong in 5 % of all trials, or fewer."""
    trials = 40
    for key, found in verdicts(*EQUAL, spread=0.3, trials=trials).items():
        wrong = rate(found, FAILS) + (rate(found, HOLDS) if key != "norms" else 0)
        assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials), key
        assert rate(found, UNKNOWN) > 0.8, key


@pytest.mark.parametrize("others", [1, 2, 3, 6])
def test_below_all_others_is_wrong_at_the_stated_rate(others):
    """Equal methods, seeds that disagree: "holds" is wrong, and "does not hold" is no more than chance."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(3), 8)
    words = []
    for _ in range(400):
        own = rng.normal(0, 1, 3)[labels] + rng.normal(0, 0.5, 24)
        scores = [rng.normal(0, 1, 3)[labels] + rng.normal(0, 0.5, 24) for _ in range(others)]
        words.append(below({str(i): paired_over_seeds(own, each, labels) for i, each in enumerate(scores)}))
    assert rate(words, HOLDS) + rate(words, FAILS) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_norms_at_the_bound_are_called_comparable_at_the_stated_rate():
    """The largest is exactly 1.5 times the others: "holds" would be wrong, and so would "fails"."""
    rng, trials = np.random.default_rng(17), 60
    columns = (column(rng, (1.0, 1.0, 1.0, trace.COMPARABLE), EQUAL[1], 3, 0.1) for _ in range(trials))
    found = [trace.norms("here", cells).verdict for cells in columns]
    assert rate(found, HOLDS) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert rate(found, FAILS) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


METHODS = ("maml", "metasgd", "metacurvature", "md")
CLAIMED = (("maml", "metacurvature"), ("maml", "md"), ("metasgd", "metacurvature"), ("metasgd", "md"))
"""The pairs that print separates at one shot, the first below the second."""


def orders(means, *, seeds=3, spread=0.5, trials=200):
    """Verdicts on the printed order for methods of these means, trained anew in each trial."""
    rng = np.random.default_rng(13)
    labels = np.repeat(np.arange(seeds), TASKS)
    cells = [Cell(method, method, 1, tuple(RUNS[:seeds])) for method in METHODS]
    found = []
    for _ in range(trials):
        scores = {
            method: mean + rng.normal(0, spread, seeds)[labels] + rng.normal(0, 1, seeds * TASKS)
            for method, mean in zip(METHODS, means, strict=True)
        }
        rows = []
        for a, b in CLAIMED:
            result = paired_over_seeds(scores[a], scores[b], labels)
            rows.append({"a": a, "b": b, "shots": 1, "difference": result.mean, "p": result.p, "seeds": result.seeds})
        (check,) = judge.order("here", cells, pd.DataFrame(rows, columns=COLUMNS))
        found.append(check.verdict)
    return found


def test_the_printed_order():
    assert rate(orders((40, 41, 55, 57)), HOLDS) > 0.9
    assert rate(orders((57, 55, 41, 40)), FAILS) > 0.6
    assert rate(orders((40, 41, 55, 57), seeds=2, trials=10), UNTESTABLE) == 1
    equal = orders((50, 50, 50, 50), spread=2.0)
    assert rate(equal, HOLDS) + rate(equal, FAILS) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
