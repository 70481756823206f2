"""How much training anew changes each method's mean, learned from all methods of a column together.

Three seeds of one method say little of its variance over seeds: two degrees of freedom. The twenty methods beside it
say more, if their variances are alike, and how far they are alike shows in the variances themselves. This is the
moderated variance of Smyth, "Linear models and empirical Bayes methods for assessing differential expression in
microarray experiments" (2004), with methods for genes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Spread:
    """Variance over seeds of each method's mean over tasks, in squared units of the score, and what it rests on."""

    variance: Mapping[str, float]
    freedom: Mapping[str, float]
    """Degrees of freedom of each variance, its own and those borrowed from the others."""
    whole: float
    """Degrees of freedom of all residuals together: no comparison rests on more."""

    def of_difference(self, a: str, b: str) -> tuple[float, float]:
        """Variance over seeds of the difference a − b, and its degrees of freedom (Welch and Satterthwaite)."""
        one, two = self.variance[a], self.variance[b]
        if one + two == 0:
            return 0.0, self.whole
        freedom = (one + two) ** 2 / (one**2 / self.freedom[a] + two**2 / self.freedom[b])
        return one + two, min(freedom, self.whole)


def estimate(scores: pd.DataFrame) -> Spread | None:
    """The spread of each column of `scores`: one column a method, indexed by (seed, task), nan where not measured.

    The mean ȳₘₛ of method m over the tasks of seed s is μₘ + βₛ + uₘₛ, where βₛ is what the seed and its tasks do to
    all methods alike. Least squares leaves residuals rₘₛ with leverages hₘₛ; vₘ = Σₛ r²ₘₛ/fₘ, with fₘ = Σₛ (1 − hₘₛ)
    degrees of freedom, estimates the variance of uₘₛ. It is taken to be at least what the tasks alone cause, and then
    :func:`moderate` draws the variances towards each other.

    None where no residual is left: one method, or no seed that two of them share beyond the first. Of two methods the
    difference has exactly the variance and the degrees of freedom of the paired t-test over seeds.
    """
    means = scores.groupby(level="seed").mean().T.to_numpy()  # [methods, seeds]
    squares, freedom = residuals(means)
    if not freedom.sum() > 1e-9:
        return None
    known = freedom > 1e-9
    own = np.zeros(len(freedom))
    own[known] = np.maximum(squares[known] / freedom[known], _of_tasks(scores)[known])
    variance, total = moderate(own, freedom)
    labels = [str(label) for label in scores]
    return Spread(
        dict(zip(labels, variance.tolist(), strict=True)),
        dict(zip(labels, total.tolist(), strict=True)),
        float(freedom.sum()),
    )


def residuals(means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of squared residuals and degrees of freedom [K] of the additive model of `means` [K, S], nan where missing.

    Complete means leave each method (S − 1)(K − 1)/K degrees of freedom, all of them together (S − 1)(K − 1).
    """
    methods, seeds = means.shape
    row, column = np.nonzero(np.isfinite(means))
    design = np.zeros((len(row), methods + seeds))
    design[np.arange(len(row)), row] = 1.0
    design[np.arange(len(row)), methods + column] = 1.0
    left, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, singular > 1e-9 * max(singular, default=0.0)]
    values = means[row, column]
    residual = values - basis @ (basis.T @ values)
    free = 1.0 - (basis**2).sum(axis=1)
    squares, freedom = (np.bincount(row, each, methods).astype(np.float64) for each in (residual**2, free))
    return squares, freedom


def _of_tasks(scores: pd.DataFrame) -> NDArray[np.float64]:
    """Variance of each method's mean that its tasks cause, their common difficulty apart: mean over seeds [K]."""
    several = scores.notna().sum(axis=1).to_numpy()
    apart = scores.sub(scores.mean(axis=1), axis=0)[several > 1]
    share = several[several > 1] / (several[several > 1] - 1)  # of n values less their mean, 1 − 1/n is left
    by_seed = apart.mul(np.sqrt(share), axis=0).groupby(level="seed")
    return (by_seed.var() / by_seed.count()).mean().fillna(0.0).to_numpy()


def moderate(own: ArrayLike, freedom: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moderated variances and their degrees of freedom, from `own` variances [K] on `freedom` [K] degrees each.

    The true variances are taken to be draws of d₀s₀²/χ²(d₀). Smyth's equations give s₀² and d₀ from mean and variance
    of log vₘ; then σ̂²ₘ = (d₀s₀² + fₘvₘ)/(d₀ + fₘ), on d₀ + fₘ degrees of freedom, Σf at most. Where the vₘ differ no
    more than chance makes them, d₀ is infinite and all are one. One thing is ours: no variance is lowered, σ̂²ₘ ≥ vₘ,
    so that a method which varies more than all others is not taken for one of them. A method on no degrees of freedom
    has s₀², on d₀.
    """
    v, f = np.asarray(own, dtype=np.float64), np.asarray(freedom, dtype=np.float64)
    whole = float(f.sum())
    used = (f > 1e-9) & (v > 0)
    if not used.any():
        return np.zeros_like(v), np.full_like(v, whole)
    common, strength = _prior(v[used], f[used])
    weight = f / (strength + f)  # 0 where the strength is infinite
    drawn = (1 - weight) * common + weight * v
    return np.maximum(drawn, v), np.minimum(strength + f, whole)


def _prior(v: NDArray[np.float64], f: NDArray[np.float64]) -> tuple[float, float]:
    """s₀² and d₀ by the method of moments for log v (Smyth 2004, section 6.2)."""
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    logs = np.log(v) - digamma(f / 2) + np.log(f / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, f / 2).mean()) if len(v) > 1 else 0.0
    if excess <= 0:
        return float((f * v).sum() / f.sum()), math.inf
    half = float(brentq(lambda x: float(polygamma(1, x)) - excess, 1e-6, 1e9))
    return float(np.exp(logs.mean() + digamma(half) - np.log(half))), 2 * half
