"""Intervals and tests against hand-computed cases, scipy's own and simulation."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import scipy.stats

from benchmark import statistics


def test_task_interval_is_196_population_std_over_root_t():
    interval = statistics.task_interval([1.0, 2.0, 3.0, 4.0])
    assert interval.mean == 2.5
    assert interval.half == pytest.approx(1.96 * math.sqrt(1.25) / 2)
    assert (interval.count, interval.excluded) == (4, 0)
    assert interval.low == pytest.approx(2.5 - interval.half)
    assert interval.high == pytest.approx(2.5 + interval.half)


def test_a_value_that_is_not_finite_is_left_out_with_its_count():
    interval = statistics.task_interval([1.0, np.nan, 3.0, np.inf])
    assert (interval.mean, interval.count, interval.excluded) == (2.0, 2, 2)
    nothing = statistics.task_interval([np.nan, np.nan])
    assert math.isnan(nothing.mean)
    assert (nothing.count, nothing.excluded) == (0, 2)
    assert statistics.task_interval([]).count == 0


def test_seed_interval_is_students():
    means = [50.0, 52.0, 51.0, 49.5]
    interval = statistics.seed_interval(means)
    low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(means), scale=scipy.stats.sem(means))
    assert interval.low == pytest.approx(low)
    assert interval.high == pytest.approx(high)


def test_one_seed_has_no_interval():
    interval = statistics.seed_interval([50.0])
    assert interval.mean == 50.0
    assert math.isnan(interval.half)


def test_band_averages_whole_traces_only():
    traces = [[3.0, 1.0], [5.0, 3.0], [4.0, np.nan]]
    band = statistics.band(traces)
    np.testing.assert_allclose(band.mean, [4.0, 2.0])
    np.testing.assert_allclose(band.half, [1.96 / math.sqrt(2)] * 2)
    assert (band.count, band.excluded) == (2, 1)
    assert statistics.band(np.full((3, 2), np.nan)).count == 0
    with pytest.raises(ValueError, match="tasks, steps"):
        statistics.band([1.0, 2.0])


@pytest.mark.parametrize("seed", range(3))
def test_paired_agrees_with_scipy(seed):
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(50, 8, 300)
    a, b = difficulty + rng.normal(0.5, 3, 300), difficulty + rng.normal(0, 3, 300)
    result = statistics.paired(a, b)
    assert result.mean == pytest.approx((a - b).mean())
    assert result.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    assert result.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    low, high = scipy.stats.t.interval(0.95, 299, loc=result.mean, scale=scipy.stats.sem(a - b))
    assert result.low == pytest.approx(low, abs=0.06)
    assert result.high == pytest.approx(high, abs=0.06)
    assert (result.wins + result.losses, result.ties) == (300, 0)


def test_paired_by_hand():
    result = statistics.paired([3.0, 2.0, 5.0, np.nan], [1.0, 2.0, 6.0, 9.0])
    assert result.mean == pytest.approx(1 / 3)
    assert (result.wins, result.ties, result.losses, result.count, result.excluded) == (1, 1, 1, 3, 1)


def test_paired_without_spread_or_tasks():
    same = statistics.paired([1.0, 2.0], [1.0, 2.0])
    assert (same.mean, same.p, same.effect) == (0.0, 1.0, 0.0)
    shifted = statistics.paired([2.0, 3.0], [1.0, 2.0])
    assert (shifted.mean, shifted.low, shifted.high, shifted.p) == (1.0, 1.0, 1.0, 0.0)
    assert math.isnan(statistics.paired([], []).mean)
    assert math.isnan(statistics.paired([1.0], [0.5]).p)
    with pytest.raises(ValueError, match="task by task"):
        statistics.paired([1.0, 2.0], [1.0])


@pytest.mark.parametrize("n", [2, 17, 400])
def test_bootstrap_is_scipys(n):
    values = np.random.default_rng(n).normal(2, 3, n)
    source = "rng" if "rng" in inspect.signature(scipy.stats.bootstrap).parameters else "random_state"  # scipy < 1.15
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=500, method="percentile", **{source: np.random.default_rng(9)}
    ).confidence_interval
    assert statistics.bootstrap_interval(values, resamples=500, seed=9) == pytest.approx(tuple(expected))


def test_bootstrap_repeats_and_knows_the_standard_error():
    values = np.random.default_rng(5).normal(2, 3, 400)
    first, again = (statistics.bootstrap_interval(values) for _ in range(2))
    assert first == again
    assert first[1] - first[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)


def test_holm_by_hand():
    # sorted .01 .03 .04 .20 by 4 3 2 1: .04 .09 .08→.09 .20
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, 0.20, 0.03]), [0.09, 0.04, 0.20, 0.09])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])
    np.testing.assert_allclose(statistics.holm([np.nan, 0.02, 0.04]), [np.nan, 0.04, 0.04])
    assert statistics.holm([]).size == 0


def test_a_null_difference_is_significant_at_the_stated_rate_and_a_real_one_is_found():
    rng = np.random.default_rng(11)
    trials, tasks = 400, 200
    false_alarms = found = outside = 0
    for trial in range(trials):
        difficulty = rng.normal(50, 9, tasks)
        a, b = difficulty + rng.normal(0, 4, tasks), difficulty + rng.normal(0, 4, tasks)
        null = statistics.paired(a, b, resamples=300, seed=trial)
        false_alarms += null.p < 0.05
        outside += not null.low <= 0.0 <= null.high
        found += statistics.paired(a + 2.0, b, resamples=10, seed=trial).p < 0.05
    # a binomial rate of 5 % over 400 trials lies within ± 3 standard errors of 1.1 % each
    assert 0.017 < false_alarms / trials < 0.083
    assert 0.017 < outside / trials < 0.09
    assert found / trials > 0.99


def test_holm_keeps_the_rate_over_a_whole_table():
    rng = np.random.default_rng(3)
    any_false = corrected = 0
    for _ in range(300):
        scores = rng.normal(50, 9, 150) + rng.normal(0, 4, (6, 150))
        p = [scipy.stats.ttest_rel(scores[i], scores[j]).pvalue for i in range(6) for j in range(i)]
        any_false += min(p) < 0.05
        corrected += statistics.holm(p).min() < 0.05
    assert any_false / 300 > 0.15
    assert corrected / 300 < 0.09
