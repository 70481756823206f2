"""The report as one HTML page that needs nothing else: opens from disk, on a phone and in print, without a network.

Its numbers are those of the CSV files: every cell of a table carries the full-precision value it was rounded from.
Its content policy forbids every connection and every script but its own, whatever a name in the results holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import pandas as pd

from benchmark.report import matrix, pairs, table, tuning, words
from benchmark.report.claims.statements import Claim
from benchmark.report.claims.verdict import FAILS, HOLDS
from benchmark.report.figures.draw import Drawing
from benchmark.report.group import TableGroup
from benchmark.report.html import markup
from benchmark.report.html.markup import HtmlCell
from benchmark.report.listing import records
from benchmark.runs.store import Run

TITLE = "Lower-level optimizers compared"
STYLES = {HOLDS: "holds", FAILS: "fails"}


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    runs: Sequence[Run]
    groups: Sequence[TableGroup]
    tables: Sequence[table.Table]
    pairs: pd.DataFrame
    claims: Sequence[Claim]
    drawings: Sequence[Drawing]
    figures: Path
    warnings: Sequence[str]


def render(content: Content) -> str:
    """The whole page."""
    sections = {
        "answer": ("The answer", answer(content)),
        "table-1": ("Table 1", table_1(content.tables)),
        "pairs": ("Who beats whom", matrices(content)),
        "claims": ("The paper's claims", claims(content.claims)),
        "figures": ("Figures", "".join(markup.figure(each, content.figures) for each in content.drawings)),
    }
    if tuning.grids(content.groups):
        sections["tuning"] = ("Tuning", tuned(content.groups))
    sections["runs"] = ("Runs", run_list(content.runs))
    script = _asset("page.js")
    main = "".join(
        f'<section aria-labelledby="{name}">{markup.heading(2, title, name)}'
        f"{body or markup.paragraph('Nothing to show.')}</section>"
        for name, (title, body) in sections.items()
    )
    versions = sorted({str(run.environment.get("version")) for run in content.runs if run.environment.get("version")})
    subtitle = f"{len(content.runs)} runs" + (f", suite version {', '.join(versions)}" if versions else "")
    return Template(_asset("page.html")).substitute(
        title=TITLE,
        subtitle=markup.escape(subtitle),
        nav="".join(f'<li><a href="#{name}">{markup.escape(title)}</a></li>' for name, (title, _) in sections.items()),
        main=main,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _asset(name: str) -> str:
    return resources.files("benchmark.report.html").joinpath(name).read_text(encoding="utf-8")


def answer(content: Content) -> str:
    """Warnings first, then who is ahead in each column, then the verdicts in a line each."""
    lines = []
    for group in content.groups:
        for shots in group.shots:
            best = [
                cell
                for cell in group.cells(shots)
                if cell.label in pairs.best(content.pairs, group, shots) and cell.score
            ]
            if not best:
                continue
            best.sort(key=lambda cell: cell.score.mean if cell.score else 0.0, reverse=best[0].metric == "accuracy")
            top, ties = best[0], best[1:]
            text = f"{group.ways}-way {shots}-shot {group.title}, {group.recipe} recipe: {top.label} {words.text(top)}"
            text += f"; within its interval: {', '.join(cell.label for cell in ties)}" if ties else ""
            lines.append(text + ".")
    warned = markup.bullets(content.warnings)
    box = f'<div class="warnings" role="note"><strong>Before you believe a number</strong>{warned}</div>'
    verdicts = [
        [
            HtmlCell(claim.statement),
            HtmlCell(claim.words, None, f"text {STYLES.get(claim.verdict, 'unknown')}"),
            markup.words(claim.summary),
        ]
        for claim in content.claims
    ]
    summary = markup.table(
        "The paper's claims on these results", ["Claim", "Verdict", "Checks"], verdicts, name="verdicts", sortable=False
    )
    return (markup.bullets(lines) if lines else "") + (box if content.warnings else "") + summary


def table_1(tables: Sequence[table.Table]) -> str:
    """One sortable table for each data set and number of ways, its notes below it."""
    parts = []
    for index, one in enumerate(tables):
        header, body = table.grid(one)
        lines = [
            [HtmlCell(line[0].text), *(markup.number(p.value, p.text, "best" if p.best else "") for p in line[1:])]
            for line in body
        ]
        parts.append(markup.heading(3, one.title))
        parts.append(markup.table(one.title, header, lines, name=f"table1-{index}", titled=True))
        seeded = table.seeds_grid(one)
        if seeded:
            lines = [[HtmlCell(first), *(markup.words(each) for each in rest)] for first, *rest in seeded[1]]
            parts.append(markup.table(f"{one.title}: over seeds", seeded[0], lines, name=f"seeds-{index}"))
        parts.append(markup.bullets(table.notes(one), "notes"))
    return "".join(parts)


def matrices(content: Content) -> str:
    """The matrix of each column, and all its pairs as a sortable table, folded."""
    parts = []
    columns = [(group, shots) for group in content.groups for shots in group.shots]
    for index, (group, shots) in enumerate(columns):
        labels, body = matrix.matrix(content.pairs, group, shots)
        if not labels:
            continue
        where = f"{group.ways}-way {shots}-shot {group.title}, {group.recipe} recipe"
        lines = [
            [HtmlCell(label), *(markup.number(place[0], matrix.entry(*place), place[1]) for place in line)]
            for label, line in zip(labels, body, strict=True)
        ]
        parts.append(markup.heading(3, where))
        parts.append(
            markup.table(
                f"{where}: difference row − column", ["row − column", *labels], lines, name=f"matrix-{index}",
                sortable=False, style="matrix", titled=True,
            )
        )  # fmt: skip
        rows = []
        for _, row in pairs.select(content.pairs, group, shots).iterrows():
            rows.append(
                [
                    HtmlCell(f"{row['a']} − {row['b']}"),
                    markup.number(row["difference"], f"{row['difference']:+.2f}"),
                    markup.number(row["low"], f"[{row['low']:+.2f}, {row['high']:+.2f}]"),
                    markup.number(row["p"], matrix.p_text(row["p"])),
                    markup.number(row["p_holm"], matrix.p_text(row["p_holm"])),
                    markup.number(row["effect"], f"{row['effect']:+.2f}"),
                    markup.number(row["wins"], f"{row['wins']} / {row['ties']} / {row['losses']}"),
                    markup.number(row["tasks"]),
                    markup.number(row["seeds"]),
                ]
            )
        heads = ["Pair", "Difference", "95 % bootstrap", "p", "p (Holm)", "Effect d", "Wins / ties / losses", "Tasks"]
        inside = markup.table(f"{where}: pairs", [*heads, "Seeds"], rows, name=f"pairs-{index}")
        parts.append(markup.details(f"All {len(rows)} pairs", inside))
    return "".join(parts) + (markup.paragraph(matrix.NOTE, "notes") if parts else "")


def claims(found: Sequence[Claim]) -> str:
    """Each claim with its verdict, how it was measured, and its checks."""
    parts = []
    for claim in found:
        style = STYLES.get(claim.verdict, "unknown")
        parts.append(markup.heading(3, claim.statement, f"claim-{claim.key}"))
        verdict = f'<span class="verdict {style}">{markup.escape(claim.words)}</span>'
        parts.append(f"<p>{verdict} {markup.escape(claim.summary)}</p>")
        parts.append(markup.paragraph(claim.measure, "notes"))
        if claim.checks:
            body = [
                [
                    HtmlCell(check.where),
                    markup.words(check.subject),
                    HtmlCell(check.words, None, f"text {STYLES.get(check.verdict, 'unknown')}"),
                    markup.words(check.number),
                    markup.words(check.evidence),
                ]
                for check in claim.checks
            ]
            header = ["Where", "Method", "Verdict", "Number", "Evidence"]
            shown = markup.table(f"Checks: {claim.statement}", header, body, name=f"checks-{claim.key}")
            parts.append(markup.details(f"{len(claim.checks)} checks", shown) if len(claim.checks) > 4 else shown)
    return "".join(parts)


def tuned(groups: Sequence[TableGroup]) -> str:
    """What was chosen for tuned rows, and from how many trials."""
    parts = []
    for index, (title, lines) in enumerate(tuning.grids(groups)):
        body = [[HtmlCell(first), *(markup.words(each) for each in rest)] for first, *rest in lines]
        parts.append(markup.heading(3, title))
        parts.append(markup.table(title, tuning.HEADER, body, name=f"tuning-{index}", titled=True))
    return "".join(parts) + markup.paragraph(tuning.NOTE, "notes")


def run_list(runs: Sequence[Run]) -> str:
    """All runs in a sortable table, then each with its spec, environment and the command that repeats it."""
    if not runs:
        return ""
    header, body = records(runs)
    lines = [[HtmlCell(str(first)), *(_cell(value) for value in rest)] for first, *rest in body]
    parts = [markup.table("All runs", header, lines, name="run-list")]
    for run in runs:
        inside = markup.heading(3, "Command") + f"<pre>{markup.escape(shlex.join(map(str, run.command)))}</pre>"
        tables = {"Spec": run.spec, "Tuning": run.tuning, "Environment": run.environment, "Status": run.status}
        for title, values in tables.items():
            if title == "Tuning" and not values:
                continue
            inside += markup.heading(3, title)
            inside += markup.definitions((key, _plain(value)) for key, value in values.items())
        parts.append(markup.details(f"{run.name}: {run.state}", inside))
    return "".join(parts)


def _cell(value: object) -> HtmlCell:
    if isinstance(value, float):
        return markup.number(value, f"{value:,.2f}" if math.isfinite(value) else words.NONE)
    return markup.number(value, f"{value:,}") if isinstance(value, int) else markup.words(str(value))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
