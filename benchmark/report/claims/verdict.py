"""The words that a check can end in, and how differences over seeds become one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.report.words import signed
from benchmark.statistics import LEAST_SEEDS, Paired

HOLDS = "holds"
FAILS = "does not hold"
UNKNOWN = "not enough evidence"
UNTESTABLE = "not testable here"
UNREFUTED = "no counter-example found"
"""The best that a sample can say of a statement about everything."""
PART = "holds in part"
"""A claim some of whose checks hold and some do not."""

LEVEL = 0.05
"""A wrong "holds" or "does not hold" of one check is at most this likely."""


@dataclass(frozen=True)
class Check:
    """One claim, at one place, for one method: the verdict, the number behind it, and the rest of the evidence."""

    where: str
    subject: str
    verdict: str
    number: str
    evidence: str
    elsewhere: bool = False
    """Not on the paper's data set by its recipe: what is found is true of this setting."""

    @property
    def words(self) -> str:
        """The verdict as it is shown: ``does not hold in this setting``."""
        return f"{self.verdict} in this setting" if self.elsewhere and self.verdict in (HOLDS, FAILS) else self.verdict


def below(results: Mapping[str, Paired], level: float = LEVEL) -> str:
    """The verdict on "subject − other < 0 for every other", from differences over seeds.

    *Holds* when all 1 − `level` intervals lie below zero: as all of them must, none is corrected for. *Does not hold*
    when one lies above zero, at the level divided by the number of others (Bonferroni). Either is wrong in at most
    `level` of all cases.
    """
    found = list(results.values())
    if any(result.over_seeds(1 - level / len(found))[0] > 0 for result in found):
        return FAILS
    return HOLDS if found and all(result.over_seeds(1 - level)[1] < 0 for result in found) else UNKNOWN


def few_seeds(seeds: int) -> str:
    """Why trained models cannot be compared; empty where they can."""
    return "" if seeds >= LEAST_SEEDS else f"needs at least {LEAST_SEEDS} seeds, has {seeds}"


def format_difference(name: str, result: Paired) -> str:
    """``vs MAML −0.31 [−0.33, −0.29]``; without an interval where there are not seeds enough for one."""
    text = f"vs {name} {signed(result.mean, '.3g')}"
    if few_seeds(result.seeds):
        return text
    return f"{text} [{signed(result.low, '.3g')}, {signed(result.high, '.3g')}]"


def join(names: Sequence[str]) -> str:
    return ", ".join(names)
