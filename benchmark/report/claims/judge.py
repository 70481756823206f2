"""What the given results say of the paper's claims (:mod:`benchmark.report.claims.statements`).

Each claim is checked wherever the results allow: for every data set, number of ways, recipe and shots, and for every
mirror-descent method that is there. What compares trained models is judged over seeds *and* tasks, and not at all with
fewer than :data:`benchmark.statistics.LEAST_SEEDS` seeds. Thresholds are ours and are said with the claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmark import statistics
from benchmark.report.cell import Cell
from benchmark.report.claims import geometry, trace
from benchmark.report.claims.setting import as_published
from benchmark.report.claims.statements import STATEMENTS, Claim
from benchmark.report.claims.verdict import FAILS, HOLDS, LEVEL, UNKNOWN, UNTESTABLE, Check, few_seeds, join
from benchmark.report.findings import Findings
from benchmark.report.formats import escape_markdown, markdown_table
from benchmark.report.group import TableGroup
from benchmark.report.pairs import select
from benchmark.report.published import SAME, TABLE_1
from benchmark.report.table import Place
from benchmark.report.words import NONE, signed


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
    checks["linear"] = geometry.linear(findings.timing)
    checks["monotone"] = geometry.monotone(findings)
    return [Claim(key, *STATEMENTS[key], tuple(checks[key])) for key in STATEMENTS]


def order(where: str, cells: Sequence[Cell], pairs: pd.DataFrame) -> Iterator[Check]:
    """Printed order against ours, over the pairs that print separates."""
    methods = {cell.label: cell.method for cell in cells if cell.plain}
    names: list[str] = []
    signs: list[int] = []  # of our difference: +1 as printed
    rows = []
    for _, row in pairs.iterrows():
        a, b = (methods.get(row[side], "") for side in "ab")
        left, right = (TABLE_1.get((SAME.get(method, method), int(row["shots"]))) for method in (a, b))
        if left is None or right is None or not left.separated(right):
            continue
        first, second = ("a", "b") if left.mean > right.mean else ("b", "a")
        agreement = float(row["difference"]) * (1 if first == "a" else -1)
        names.append(f"{row[first]} > {row[second]} ({signed(agreement, '.2f')})")
        signs.append(1 if agreement > 0 else -1)
        rows.append(row)
    if not rows:
        return
    judged = {label for row in rows for label in (row["a"], row["b"])}
    elsewhere = not as_published([cell for cell in cells if cell.label in judged])
    seeds = min(int(row["seeds"]) for row in rows)
    missing = few_seeds(seeds)
    if missing:
        agree = sum(sign > 0 for sign in signs)
        number = f"means in the printed order in {agree} of {len(rows)} pairs"
        yield Check(where, "all methods", UNTESTABLE, number, missing, elsewhere)
        return
    p = np.array([float(row["p"]) for row in rows])
    beyond, corrected = p < LEVEL, statistics.holm(p) < LEVEL
    groups: dict[str, list[str]] = {"reversed": [], "undecided": [], "confirmed": []}
    for name, sign, alone, among in zip(names, signs, beyond, corrected, strict=True):
        groups["confirmed" if alone and sign > 0 else "reversed" if among and sign < 0 else "undecided"].append(name)
    counts = {word: len(members) for word, members in groups.items()}
    verdict = FAILS if counts["reversed"] else UNKNOWN if counts["undecided"] else HOLDS
    number = (
        f"{counts['confirmed']} of {len(rows)} pairs confirmed, {counts['reversed']} reversed, "
        f"{counts['undecided']} undecided"
    )
    evidence = "; ".join(f"{word}: {join(members)}" for word, members in groups.items() if members)
    yield Check(where, "all methods", verdict, number, f"{seeds} seeds; {evidence}", elsewhere)


HEADER = ["Where", "Method", "Verdict", "Number", "Evidence"]


def frame(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row for each check, and one for each claim that could not be checked at all."""
    records = []
    for claim in claims:
        nowhere = (Check(NONE, NONE, UNTESTABLE, NONE, claim.summary),)
        for check in claim.checks or nowhere:
            records.append({
                "claim": claim.key, "statement": claim.statement, "verdict": check.words, "where": check.where,
                "subject": check.subject, "number": check.number, "evidence": check.evidence, "needs": claim.needs,
            })  # fmt: skip
    return pd.DataFrame.from_records(records)


def markdown(claims: Sequence[Claim]) -> str:
    """The claims page in Markdown."""
    parts = ["# The paper's claims on these results"]
    rows: list[list[Place | str]] = [
        [claim.statement, Place(claim.words, best=True), claim.summary] for claim in claims
    ]
    parts.append(markdown_table(["Claim", "Verdict", "Checks"], rows, numbers=False))
    for claim in claims:
        parts += [f"## {claim.statement}", escape_markdown(claim.measure), f"Needs: {escape_markdown(claim.needs)}"]
        if claim.checks:
            body: list[list[Place | str]] = [
                [c.where, c.subject, Place(c.words, best=True), c.number, c.evidence] for c in claim.checks
            ]
            parts.append(markdown_table(HEADER, body, numbers=False))
        else:
            parts.append(f"{UNTESTABLE.capitalize()}: {claim.summary}.")
    return "\n\n".join(parts) + "\n"
