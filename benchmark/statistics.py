"""Intervals and tests over tasks and seeds, and nothing about files or figures.

All methods of a comparison meet the same test tasks, so differences between two methods are *paired*: task by task,
the difficulty of the task drops out. Two sources of chance are kept apart everywhere:

- *tasks*: how well T test tasks pin down the accuracy of one trained model. Interval 1.96·σ/√T with the population
  standard deviation σ, the one that the papers print.
- *seeds*: how much the whole procedure, training included, varies. Student's t over the means of the seeds.

A value that is not finite is a task on which the method diverged. It is never averaged and never read as 0: it is left
out *with its count*, which every result here carries.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.96
"""Half-width of a 95 % interval in standard errors, as the papers round it."""

FEW_SEEDS = 5
"""Below this many seeds an interval over seeds is said to rest on few of them."""

LEAST_SEEDS = 3
"""Below this many seeds nothing is said of how trained models compare."""


@dataclass(frozen=True)
class Interval:
    """``mean ± half`` from `count` values; `excluded` more were not finite and are not in it."""

    mean: float
    half: float
    count: int
    excluded: int = 0

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def task_interval(values: ArrayLike) -> Interval:
    """Mean over tasks and 1.96·σ/√T with the population σ; `values` [T]. No finite value: nan, count 0."""
    array = np.asarray(values, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    excluded = int(array.size - finite.size)
    if finite.size == 0:
        return Interval(float("nan"), float("nan"), 0, excluded)
    return Interval(float(finite.mean()), float(Z95 * finite.std() / np.sqrt(finite.size)), int(finite.size), excluded)


def seed_interval(means: ArrayLike) -> Interval:
    """Mean over seeds and t₀.₉₇₅,ₙ₋₁·s/√n with the sample s; `means` [n]. One seed says nothing of spread: half nan."""
    array = np.asarray(means, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    excluded = int(array.size - finite.size)
    if finite.size == 0:
        return Interval(float("nan"), float("nan"), 0, excluded)
    if finite.size == 1:
        return Interval(float(finite[0]), float("nan"), 1, excluded)
    from scipy.special import stdtrit  # the quantile alone: scipy.stats takes most of a second to import

    n = finite.size
    half = float(stdtrit(n - 1, 0.975)) * float(finite.std(ddof=1)) / float(np.sqrt(n))
    return Interval(float(finite.mean()), half, int(n), excluded)


@dataclass(frozen=True)
class Band:
    """A mean curve with its 95 % band: `mean`, `half` [K+1]; `count` whole traces, `excluded` others."""

    mean: NDArray[np.float64]
    half: NDArray[np.float64]
    count: int
    excluded: int


def band(traces: ArrayLike) -> Band:
    """Mean over tasks at each step with 1.96·σ/√T; `traces` [T, K+1].

    A trace with one non-finite value is left out whole, so that every point of the curve averages the same tasks.
    """
    array = np.asarray(traces, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"traces must be [tasks, steps + 1], got shape {array.shape}")
    whole = array[np.isfinite(array).all(axis=1)]
    excluded = int(array.shape[0] - whole.shape[0])
    if whole.shape[0] == 0:
        nan = np.full(array.shape[1], np.nan)
        return Band(nan, nan.copy(), 0, excluded)
    half = Z95 * whole.std(axis=0) / np.sqrt(whole.shape[0])
    return Band(whole.mean(axis=0), half, int(whole.shape[0]), excluded)


@dataclass(frozen=True)
class Paired:
    """The difference a − b over the tasks that both have finite.

    `low`, `high`: 95 % interval of the mean difference, and `p`, two-sided: over the tasks of one seed by bootstrap and
    paired t-test (:func:`paired`), over several seeds by the mixed model (:func:`paired_over_seeds`).
    `effect`: Cohen's d_z = mean/σ of the differences (sample σ). `wins`, `ties`, `losses`: tasks on which a is larger,
    equal, smaller. `excluded`: common tasks left out because one of the two is not finite. `seeds` that it rests on;
    `error`: the standard error of the mean over seeds, and `freedom` its degrees of freedom, where it is known.
    """

    mean: float
    low: float
    high: float
    p: float
    effect: float
    wins: int
    ties: int
    losses: int
    count: int
    excluded: int
    seeds: int = 1
    error: float = float("nan")
    freedom: float = float("nan")

    def over_seeds(self, level: float = 0.95) -> tuple[float, float]:
        """The interval over seeds at another `level`; nan where their spread is not known."""
        from scipy.special import stdtrit

        half = float(stdtrit(self.freedom, 0.5 + level / 2)) * self.error
        return self.mean - half, self.mean + half


def paired(a: ArrayLike, b: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Paired:
    """Compare two methods on the same tasks; `a`, `b` [T] in the same order of tasks. See :class:`Paired`.

    Differences that are all equal have no spread: the interval is that value, and p is 1 at zero, else 0. With fewer
    than two common tasks nothing can be said of spread: interval, p and effect are nan; no `resamples`, no interval.
    """
    left = np.asarray(a, dtype=np.float64).ravel()
    right = np.asarray(b, dtype=np.float64).ravel()
    if left.shape != right.shape:
        raise ValueError(f"paired values must match task by task, got {left.size} and {right.size}")
    keep = np.isfinite(left) & np.isfinite(right)
    excluded = int(left.size - keep.sum())
    difference = left[keep] - right[keep]
    n = int(difference.size)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    counts = (wins, n - wins - losses, losses, n, excluded)
    nan = float("nan")
    if n == 0:
        return Paired(nan, nan, nan, nan, nan, *counts)
    mean = float(difference.mean())
    if n == 1:
        return Paired(mean, nan, nan, nan, nan, *counts)
    spread = float(difference.std(ddof=1))
    if spread <= 1e-12 * max(1.0, abs(mean)):
        zero = abs(mean) <= 1e-12
        return Paired(mean, mean, mean, 1.0 if zero else 0.0, 0.0 if zero else float(np.sign(mean) * np.inf), *counts)
    low, high = bootstrap_interval(difference, resamples=resamples, seed=seed) if resamples else (nan, nan)
    return Paired(mean, low, high, t_test(difference), mean / spread, *counts)


def paired_over_seeds(
    a: ArrayLike,
    b: ArrayLike,
    seeds: ArrayLike,
    *,
    spread: tuple[float, float] | None = None,
    resamples: int = 2000,
) -> Paired:
    """Compare two methods over seeds and the tasks within them; `a`, `b`, `seeds` [N] in the same order of tasks.

    The mixed model d = μ + uₛ + eₛₜ with random seeds s: its estimate of μ is the mean over seeds of their means d̄ₛ,
    and (d̄ − μ)/√(v/S) is Student's t with S − 1 degrees of freedom, exactly for as many tasks in each seed, v being the
    sample variance of the d̄ₛ. As v cannot lie below what the tasks alone cause, it is taken to be at least the mean of
    σ²ₛ/Tₛ: three seeds that agree by chance make no small error, and intervals miss μ in 5 % of all cases or fewer.

    `spread` is (v, degrees of freedom) where other methods tell more of it (:mod:`benchmark.spread`): then one seed
    will do. Without it, one seed is compared over its tasks, :func:`paired`.
    """
    left, right = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    labels = np.asarray(seeds).ravel()[np.isfinite(left) & np.isfinite(right)]
    difference = (left - right)[np.isfinite(left) & np.isfinite(right)]
    parts = [difference[labels == seed] for seed in np.unique(labels)]
    count = len(parts)
    if not count or (count == 1 and spread is None):
        return paired(left, right, resamples=resamples)
    from scipy.special import stdtr

    means = np.array([part.mean() for part in parts])
    tasks = float(np.mean([part.var(ddof=1) / part.size if part.size > 1 else 0.0 for part in parts]))
    between, freedom = spread or (float(means.var(ddof=1)), count - 1.0)
    mean = float(means.mean())
    error = float(np.sqrt(max(between, tasks) / count))
    if error <= 1e-12 * max(1.0, abs(mean)):
        p = 1.0 if abs(mean) <= 1e-12 else 0.0
    else:
        p = float(2.0 * stdtr(freedom, -abs(mean) / error))
    within = paired(left, right, resamples=0)
    whole = replace(within, mean=mean, p=p, seeds=count, error=error, freedom=freedom)
    low, high = whole.over_seeds()
    return replace(whole, low=low, high=high)


def t_test(difference: NDArray[np.float64]) -> float:
    """Two-sided p of mean zero: t = mean·√n/s with n − 1 degrees of freedom; `difference` [n], n ≥ 2, s > 0."""
    from scipy.special import stdtr

    n = difference.size
    t = float(difference.mean() / (difference.std(ddof=1) / np.sqrt(n)))
    return float(2.0 * stdtr(n - 1, -abs(t)))


def bootstrap_interval(values: NDArray[np.float64], *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values` [n] (Efron 1979), reproducible in `seed`.

    The same numbers as ``scipy.stats.bootstrap`` with its ``percentile`` method, n_resamples and rng. A table compares
    many pairs on the same tasks, so the resampling is drawn once for all of them.
    """
    counts = _resampling(len(values), resamples, seed)  # [resamples, n]
    low, high = np.percentile(counts @ values / len(values), [2.5, 97.5])
    return float(low), float(high)


@functools.lru_cache(maxsize=2)
def _resampling(n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each of `n` values is drawn in each resample, [resamples, n]."""
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n))
    flat = drawn + n * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction (1979) of p-values [m]: the chance of any false claim in the table stays ≤ α.

    Sorted p₍₁₎ ≤ … ≤ p₍ₘ₎, adjusted p₍ᵢ₎ = min(1, max_{j ≤ i} (m − j + 1)·p₍ⱼ₎). A nan is no test: it stays nan and
    does not count in m.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    (known,) = np.nonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order])) if len(order) else []
    return adjusted
