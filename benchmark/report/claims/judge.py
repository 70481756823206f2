"""What the paper claims, and what the given results say of it.

Each claim is checked wherever the results allow: for every data set, number of ways, recipe and shots, and for every
mirror-descent method that is there. A check ends in *holds*, *does not hold* or *not enough evidence*, with the number
behind it. Comparisons are paired over the common tasks; a difference counts when its 95 % bootstrap interval leaves
out zero. Thresholds are ours and are said with the claim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from benchmark.report.cell import FLOOR, Cell
from benchmark.report.claims import geometry, trace
from benchmark.report.claims.verdict import FAILS, HOLDS, UNKNOWN, Check, join
from benchmark.report.findings import Findings
from benchmark.report.formats import escape_markdown, markdown_table
from benchmark.report.group import TableGroup
from benchmark.report.pairs import outcome, select
from benchmark.report.published import TABLE_1, method_title
from benchmark.report.table import Place

BUDGET = (
    "iterations", "meta_batch", "tasks", "network", "channels", "steps", "eval_steps", "query_train", "query_test",
    "meta_optimizer", "meta_lr",
)  # fmt: skip


OURS = method_title("md-convex")
"""The variant that the paper does not have."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, how it is measured here, and every check of it."""

    key: str
    statement: str
    measure: str
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> str:
        """It does not hold if it fails anywhere; it holds if it holds somewhere and fails nowhere.

        Checks of our own variants of mirror descent are shown and do not count: the paper does not speak of them.
        """
        found = {check.verdict for check in self.counted}
        return FAILS if FAILS in found else HOLDS if HOLDS in found else UNKNOWN

    @property
    def counted(self) -> list[Check]:
        """The checks that bear on the verdict."""
        return [check for check in self.checks if check.subject != OURS]

    @property
    def summary(self) -> str:
        """``holds 3, does not hold 1 of 4 checks``."""
        if not self.counted:
            return "nothing to check it on"
        counts = Counter(check.verdict for check in self.counted)
        words = ", ".join(f"{word} {counts[word]}" for word in (HOLDS, FAILS, UNKNOWN) if counts[word])
        return f"{words} of {len(self.counted)} checks"


STATEMENTS = {
    "order": (
        "Table 1: the methods rank as printed, mirror descent first",
        "Pairs whose printed miniImageNet intervals do not overlap, against our paired differences (Holm, 5 %). Fails "
        "when a pair is reversed; holds when every pair is confirmed.",
    ),
    "faster": (
        "Mirror descent converges faster in the inner loop",
        "Share of the initial support loss that is left, mean over steps 1 … K of training, below that of MAML, "
        "MetaSGD and MetaCurvature.",
    ),
    "start": (
        "Mirror descent and MetaCurvature start from a lower support loss",
        "Support loss at k = 0 below that of MAML and of MetaSGD.",
    ),
    "norms": (
        "Initial gradient norms are comparable",
        f"Largest over smallest mean norm at k = 0 among the four methods of Fig. 1, at most {trace.COMPARABLE}.",
    ),
    "drop": (
        "Mirror descent drops sharply at the first step",
        "Share of the initial support loss that step 1 leaves, below that of MAML, MetaSGD and MetaCurvature.",
    ),
    "end": (
        "Mirror descent ends lower and steadier",
        "Support loss at the last recorded step, and change of the gradient norm over the last step, both below those "
        "of MAML, MetaSGD and MetaCurvature.",
    ),
    "linear": (
        "A mirror-descent step costs O(d)",
        f"Exponent of multiply-adds of one step against d over several network widths, at most {geometry.LINEAR}.",
    ),
    "monotone": (
        "The inverse mirror map is strictly monotone (Theorem 1)",
        "Smallest eigenvalue of the symmetric part of the learned map's Jacobian above 0, as verify measured it.",
    ),
    "budget": (
        "All methods are compared at an equal budget",
        "Equal " + ", ".join(BUDGET) + " in every run of the column.",
    ),
}
"""Key → (statement, how it is measured)."""


def judge(groups: Sequence[TableGroup], pairs: pd.DataFrame, findings: Findings) -> list[Claim]:
    """Every claim with all its checks on these results."""
    checks: dict[str, list[Check]] = {key: [] for key in STATEMENTS}
    for group in groups:
        for shots in group.shots:
            where = f"{group.ways}-way {shots}-shot {group.title}, {group.protocol}"
            cells = group.cells(shots)
            checks["order"] += order(where, cells, select(pairs, group, shots))
            for key, found in trace.checks(where, cells):
                checks[key].append(found)
            checks["budget"] += budget(where, cells)
    checks["linear"] = geometry.linear(findings.timing)
    checks["monotone"] = geometry.monotone(findings.geometry)
    return [Claim(key, *STATEMENTS[key], tuple(checks[key])) for key in STATEMENTS]


def order(where: str, cells: Sequence[Cell], pairs: pd.DataFrame) -> Iterator[Check]:
    """Printed order against ours, over the pairs that print separates."""
    methods = {cell.label: cell.method for cell in cells if cell.plain}
    agree: list[str] = []
    reversed_: list[str] = []
    open_: list[str] = []
    for _, row in pairs.iterrows():
        a, b = methods.get(row["a"]), methods.get(row["b"])
        shots = int(row["shots"])
        left, right = TABLE_1.get((a or "", shots)), TABLE_1.get((b or "", shots))
        if left is None or right is None or not left.separated(right) or a == b:
            continue
        printed = "a" if left.mean > right.mean else "b"
        name = f"{row['a']} > {row['b']}" if printed == "a" else f"{row['b']} > {row['a']}"
        sign = 1 if printed == "a" else -1
        name += f" ({sign * row['difference']:+.2f})"
        found = outcome(row)
        (open_ if not found else agree if found == printed else reversed_).append(name)
    total = len(agree) + len(reversed_) + len(open_)
    if not total:
        return
    verdict = FAILS if reversed_ else UNKNOWN if open_ else HOLDS
    number = f"{len(agree)} of {total} pairs confirmed, {len(reversed_)} reversed, {len(open_)} undecided"
    evidence = "; ".join(
        f"{word}: {join(names)}"
        for word, names in (("reversed", reversed_), ("undecided", open_), ("confirmed", agree))
        if names
    )
    yield Check(where, "all methods", verdict, number, evidence)


def budget(where: str, cells: Sequence[Cell]) -> Iterator[Check]:
    """Whether all trained methods of a column had the same budget."""
    runs = [run for cell in cells if cell.method != FLOOR for run in cell.runs]
    if len({run.spec["method"] for run in runs}) < 2:
        return
    unequal = []
    for knob in BUDGET:
        values = sorted({str(run.spec.get(knob)) for run in runs})
        if len(values) > 1:
            unequal.append(f"{knob} {' / '.join(values)}")
    first = runs[0].spec
    if unequal:
        yield Check(where, "all methods", FAILS, f"{len(unequal)} of {len(BUDGET)} differ", "; ".join(unequal))
    else:
        same = f"{first['iterations']:,} iterations of {first['meta_batch']} tasks, {first['channels']} channels"
        yield Check(where, "all methods", HOLDS, same, f"{len(runs)} runs alike in {', '.join(BUDGET)}")


def frame(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row for each check, and one for each claim that could not be checked at all."""
    records = []
    for claim in claims:
        nowhere = (Check("–", "–", UNKNOWN, "–", "no results or measurements that bear on it"),)
        for check in claim.checks or nowhere:
            records.append({
                "claim": claim.key, "statement": claim.statement, "verdict": check.verdict, "where": check.where,
                "subject": check.subject, "number": check.number, "evidence": check.evidence,
            })  # fmt: skip
    return pd.DataFrame.from_records(records)


def markdown(claims: Sequence[Claim]) -> str:
    """The claims page in Markdown."""
    parts = ["# The paper's claims on these results"]
    rows: list[list[Place | str]] = [
        [claim.statement, Place(claim.verdict, best=True), claim.summary] for claim in claims
    ]
    parts.append(markdown_table(["Claim", "Verdict", "Checks"], rows, numbers=False))
    for claim in claims:
        parts += [f"## {claim.statement}", f"{escape_markdown(claim.measure)}"]
        if claim.checks:
            body: list[list[Place | str]] = [
                [c.where, c.subject, Place(c.verdict, best=True), c.number, c.evidence] for c in claim.checks
            ]
            header = ["Where", "Method", "Verdict", "Number", "Evidence"]
            parts.append(markdown_table(header, body, numbers=False))
        else:
            parts.append("Not enough evidence: no results or measurements that bear on it.")
    return "\n\n".join(parts) + "\n"
