"""The three words a check can end in, and how paired differences become one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.statistics import Paired

HOLDS = "holds"
FAILS = "does not hold"
UNKNOWN = "not enough evidence"


@dataclass(frozen=True)
class Check:
    """One claim, at one place, for one method: the verdict, the number behind it, and the rest of the evidence."""

    where: str
    subject: str
    verdict: str
    number: str
    evidence: str


def below(results: Iterable[Paired]) -> str:
    """The verdict on "subject − other < 0 for every other": by the bootstrap intervals of the differences.

    Fails when one interval lies wholly above zero, holds when all lie below, else the evidence does not suffice.
    """
    found = list(results)
    if any(result.low > 0 for result in found):
        return FAILS
    return HOLDS if found and all(result.high < 0 for result in found) else UNKNOWN


def format_difference(name: str, result: Paired) -> str:
    """``vs MAML −0.31 [−0.33, −0.29]``."""
    return f"vs {name} {result.mean:+.3g} [{result.low:+.3g}, {result.high:+.3g}]"


def join(names: Sequence[str]) -> str:
    return ", ".join(names)
