"""What the paper claims, how each claim is measured here, and what it needs before it can be judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from benchmark.report.claims import geometry, trace
from benchmark.report.claims.verdict import FAILS, HOLDS, PART, UNKNOWN, UNREFUTED, UNTESTABLE, Check
from benchmark.report.published import method_title
from benchmark.statistics import LEAST_SEEDS

OURS = method_title("md-convex")
"""The variant that the paper does not have; a row's label begins with it."""

_SETTING = (
    f"At least {LEAST_SEEDS} seeds of every method. As printed: the published recipe on miniImageNet; elsewhere the "
    "verdict is of that setting."
)
_TRACES = f"{_SETTING} Traces of MAML, MetaSGD and MetaCurvature."
_JUDGED = "Differences over seeds and the tasks within them (mixed model, 95 %)."


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, how it is measured here, what it needs, and every check of it."""

    key: str
    statement: str
    measure: str
    needs: str
    checks: tuple[Check, ...]

    @property
    def counted(self) -> list[Check]:
        """The checks that bear on the verdict: those in the paper's own setting where there are any.

        Checks of our own variant of mirror descent are shown and do not count: the paper does not speak of it.
        """
        found = [check for check in self.checks if not check.subject.startswith(OURS)]
        decided = [check for check in found if not check.elsewhere and check.verdict in (HOLDS, FAILS, UNKNOWN)]
        return decided or found

    @property
    def verdict(self) -> str:
        """The one word on all checks: *holds in part* where some hold and some fail.

        One that fails decides, one that holds does not while another is undecided: a claim speaks of all its methods.
        """
        found = {check.verdict for check in self.counted}
        if {HOLDS, FAILS} <= found:
            return PART
        if not found:
            return UNTESTABLE
        return next(word for word in (FAILS, UNKNOWN, HOLDS, UNREFUTED, UNTESTABLE) if word in found)

    @property
    def words(self) -> str:
        """The verdict as it is shown: it says where it speaks of other settings than the paper's alone."""
        decided = [check for check in self.counted if check.verdict in (HOLDS, FAILS)]
        elsewhere = bool(decided) and all(check.elsewhere for check in decided)
        if not elsewhere or self.verdict == UNKNOWN:
            return self.verdict
        settings = {check.where for check in decided}
        return f"{self.verdict} in {'this setting' if len(settings) == 1 else 'these settings'}".replace(
            "in part in", "in part, in"
        )

    @property
    def summary(self) -> str:
        """What the checks found, in words that do not repeat the verdict: ``all 3 checks``, ``1 of 3 checks holds``."""
        if not self.counted:
            return "no results or measurements that bear on it"
        counts = Counter(check.verdict for check in self.counted)
        total = f"{len(self.counted)} check{'s' * (len(self.counted) > 1)}"
        if len(counts) == 1:
            return f"all {total}" if len(self.counted) > 1 else total
        names = {HOLDS: "hold", FAILS: "fail", UNREFUTED: "not refuted", UNKNOWN: "undecided"}
        names[UNTESTABLE] = "not testable"
        return f"{total}: " + ", ".join(f"{counts[word]} {name}" for word, name in names.items() if counts[word])


STATEMENTS = {
    "order": (
        "Table 1: the methods rank as printed, mirror descent first",
        "Pairs whose printed miniImageNet intervals do not overlap, against our differences over seeds and tasks. "
        "Holds when every pair is confirmed (5 % each: all must be), fails when one is reversed (Holm, 5 %).",
        _SETTING,
    ),
    "faster": (
        "Mirror descent converges faster in the inner loop",
        "Share of the initial support loss that is left, mean over steps 1 … K of training, below that of MAML, "
        f"MetaSGD and MetaCurvature. {_JUDGED}",
        _TRACES,
    ),
    "start": (
        "Mirror descent and MetaCurvature start from a lower support loss",
        f"Support loss at k = 0 below that of MAML and of MetaSGD. {_JUDGED}",
        f"{_SETTING} Traces of MAML and MetaSGD.",
    ),
    "norms": (
        "Initial gradient norms are comparable",
        f"Every two mean norms at k = 0 of the four methods of Fig. 1 within a factor of {trace.COMPARABLE} of each "
        "other, their whole intervals over seeds included; fails when one interval lies outside (Bonferroni).",
        f"{_SETTING} Traces of all four methods.",
    ),
    "drop": (
        "Mirror descent drops sharply at the first step",
        f"Share of the initial support loss that step 1 leaves, below that of MAML, MetaSGD and MetaCurvature. "
        f"{_JUDGED}",
        _TRACES,
    ),
    "end": (
        "Mirror descent ends lower and steadier",
        "Support loss at the last recorded step, and change of the gradient norm over the last step, both below those "
        f"of MAML, MetaSGD and MetaCurvature. {_JUDGED}",
        _TRACES,
    ),
    "linear": (
        "A mirror-descent step costs O(d)",
        f"Exponent of the multiply-adds of one step against d over network widths at one image size, at most "
        f"{geometry.LINEAR}. The time measured is fitted beside it.",
        f"Timing at {geometry.LEAST_WIDTHS} or more widths for one image size: time --sizes 32:16,32:32,32:64.",
    ),
    "monotone": (
        "The inverse mirror map is strictly monotone (Theorem 1)",
        "The least eigenvalue of the symmetric part of the map's Jacobian, at trained and random θ, over the points of "
        "tasks and those that gradient descent on z finds. A negative one refutes; no search can prove.",
        "A search for a counter-example: verify --search, with --checkpoints of every seed.",
    ),
}  # fmt: skip
"""Key → (statement, how it is measured, what it needs)."""
