"""The sections of the page: the answer, the claims, who beats whom, what was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmark.report import matrix, pairs, table, tuning
from benchmark.report.claims.judge import HEADER
from benchmark.report.claims.statements import Claim
from benchmark.report.claims.verdict import FAILS, HOLDS
from benchmark.report.figures.draw import Drawing
from benchmark.report.figures.where import place
from benchmark.report.group import TableGroup
from benchmark.report.html import markup
from benchmark.report.html.markup import HtmlCell
from benchmark.report.html.records import Anchors
from benchmark.report.notes import notes
from benchmark.report.scope import Scope
from benchmark.report.table import Table
from benchmark.report.words import listed, signed
from benchmark.statistics import LEAST_SEEDS

STYLES = {HOLDS: "holds", FAILS: "fails"}


def answer(tables: Sequence[Table], anchors: Anchors, figures: Sequence[Drawing], folder: Path) -> str:
    """For each data set one sentence, its table and its Fig. 1; that of further columns is folded."""
    parts = [markup.block(markup.paragraph(sentence(each), "lead"), _scope(each)) for each in tables]
    for index, each in enumerate(tables):
        inside = markup.heading(3, each.title) + table_1(each, index, anchors)
        own = [drawing for drawing in figures if drawing.scope.dataset == _scope(each).dataset]
        inside += "".join(markup.figure(drawing, folder) for drawing in own[:1])
        inside += "".join(
            markup.details(drawing.caption.partition(":")[0], markup.figure(drawing, folder), scope=drawing.scope)
            for drawing in own[1:]
        )
        parts.append(markup.block(inside, _scope(each)))
    return "".join(parts)


def _scope(each: Table) -> Scope:
    return Scope(f"{each.ways}-way {each.groups[0].title}")


def sentence(each: Table) -> str:
    """Who is ahead on this data set, in each column, and what that rests on."""
    found, counts = [], []
    for group in each.groups:
        for shots in group.shots:
            tied = each.best(group, shots)
            best = [cell for cell in group.cells(shots) if cell.label in tied and cell.score]
            if not best:
                continue
            best.sort(key=lambda cell: cell.score.mean if cell.score else 0.0, reverse=best[0].metric == "accuracy")
            top, ties = best[0], [cell.label for cell in best[1:]]
            assert top.score is not None  # what was chosen by
            text = f"at {shots} shot{'s' * (shots > 1)} ({group.protocol}) {top.label} has {top.score.mean:.2f}"
            text += " %" if top.metric == "accuracy" else ""
            rivals = len([cell for cell in group.cells(shots) if cell.score and cell.method != "pixels"]) - 1
            if rivals:
                text += f", and {listed(ties)} may be as good" if ties else ", beyond chance above all others"
            found.append(text)
            counts.append(group.seeds(shots))
    if not found:
        return f"{each.ways}-way {each.groups[0].title}: nothing is measured yet."
    if min(counts) == max(counts):
        few = min(counts) < LEAST_SEEDS
        seeds = _seeds(min(counts))
        tail = f" With {seeds} this is of these trained models, and not of the methods." if few else f" Over {seeds}."
    else:
        found = [f"{text} ({_seeds(count)})" for text, count in zip(found, counts, strict=True)]
        less = f" What rests on fewer than {LEAST_SEEDS} seeds is of these trained models, and not of the methods."
        tail = less if min(counts) < LEAST_SEEDS else ""
    return f"{each.ways}-way {each.groups[0].title}: {'; '.join(found)}.{tail}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def table_1(one: Table, index: int, anchors: Anchors) -> str:
    """The sortable table; its notes and the intervals over seeds are folded below it."""
    columns = table.columns(one)
    scopes = [Scope(shots=column.shots, recipe=column.protocol) for column in columns]
    lines = [
        [
            HtmlCell(line[0].text),
            *(
                markup.number(p.value, p.text, "best" if p.best else "", anchors.cells[p.cell] if p.cell else "")
                for p in line[1:]
            ),
        ]
        for line in zip(*(column.places for column in columns), strict=True)
    ]
    header = [column.title for column in columns]
    parts = [markup.table(one.title, header, lines, name=f"table1-{index}", titled=True, scopes=scopes)]
    seeded = table.seeds_grid(one)
    if seeded:
        lines = [[HtmlCell(first), *(markup.words(each) for each in rest)] for first, *rest in seeded[1]]
        shown = markup.table(f"{one.title}: over seeds", seeded[0], lines, name=f"seeds-{index}")
        parts.append(markup.details("Intervals over seeds", shown))
    parts.append(markup.details("How to read this table", markup.bullets(notes(one), "notes")))
    return "".join(parts)


def claims(found: Sequence[Claim], anchors: Anchors) -> str:
    """The verdicts in a table, then each claim: how it was measured, what it needs, and its checks, folded."""
    verdicts = [
        [
            HtmlCell(claim.statement, None, "", f"claim-{claim.key}"),
            HtmlCell(claim.words, None, f"text {STYLES.get(claim.verdict, 'unknown')}"),
            markup.words(claim.summary),
            markup.words(claim.needs),
        ]
        for claim in found
    ]
    header = ["Claim", "Verdict", "Checks", "Needs"]
    title = "The paper's claims on these results"
    parts = [markup.table(title, header, verdicts, name="verdicts", sortable=False, style="prose")]
    for claim in found:
        style = STYLES.get(claim.verdict, "unknown")
        inside = (
            f'<p><span class="verdict {style}">{markup.escape(claim.words)}</span> {markup.escape(claim.summary)}</p>'
        )
        inside += markup.paragraph(claim.measure, "notes") + markup.paragraph(f"Needs: {claim.needs}", "notes")
        if claim.checks:
            body = [
                [
                    HtmlCell(check.where, None, "", anchors.columns.get(check.where, "")),
                    markup.words(check.subject),
                    HtmlCell(check.words, None, f"text {STYLES.get(check.verdict, 'unknown')}"),
                    markup.words(check.number),
                    markup.words(check.evidence),
                ]
                for check in claim.checks
            ]
            inside += markup.table(
                f"Checks: {claim.statement}", HEADER, body, name=f"checks-{claim.key}", style="prose"
            )
        parts.append(markup.details(claim.statement, inside, f"claim-{claim.key}"))
    return "".join(parts)


def matrices(groups: Sequence[TableGroup], compared: pd.DataFrame, anchors: Anchors) -> str:
    """The matrix of each column, and all its pairs as a sortable table, folded."""
    parts = []
    columns = [(group, shots) for group in groups for shots in group.shots]
    for index, (group, shots) in enumerate(columns):
        labels, body = matrix.matrix(compared, group, shots)
        if not labels:
            continue
        where = place(group, shots)
        runs = {cell.label: anchors.cells[cell] for cell in group.cells(shots)}
        lines = [
            [
                HtmlCell(label, None, "", runs[label]),
                *(markup.number(place[0], matrix.entry(*place), place[1]) for place in line),
            ]
            for label, line in zip(labels, body, strict=True)
        ]
        inside = markup.heading(3, where) + markup.table(
            f"{where}: difference row − column", ["row − column", *labels], lines, name=f"matrix-{index}",
            sortable=False, style="matrix", titled=True,
        )  # fmt: skip
        rows = [_pair(row) for _, row in pairs.select(compared, group, shots).iterrows()]
        shown = markup.table(f"{where}: pairs", PAIR, rows, name=f"pairs-{index}")
        inside += markup.details(f"All {len(rows)} pairs", shown)
        parts.append(markup.block(inside, Scope.of(group, shots)))
    return "".join(parts) + (markup.paragraph(matrix.NOTE, "notes") if parts else "")


PAIR = [
    "Pair", "Difference", "95 % interval", "p", "p (Holm)", "p (best)", "Effect d", "Wins / ties / losses", "Tasks",
    "Seeds",
]  # fmt: skip


def _pair(row: pd.Series) -> list[HtmlCell]:
    return [
        HtmlCell(f"{row['a']} − {row['b']}"),
        markup.number(row["difference"], signed(row["difference"], ".2f")),
        markup.number(row["low"], f"[{signed(row['low'], '.2f')}, {signed(row['high'], '.2f')}]"),
        markup.number(row["p"], matrix.p_text(row["p"])),
        markup.number(row["p_holm"], matrix.p_text(row["p_holm"])),
        markup.number(row["p_best"], matrix.p_text(row["p_best"])),
        markup.number(row["effect"], signed(row["effect"], ".2f")),
        markup.number(row["wins"], f"{row['wins']} / {row['ties']} / {row['losses']}"),
        markup.number(row["tasks"]),
        markup.number(row["seeds"]),
    ]


def tuned(groups: Sequence[TableGroup]) -> str:
    """What was chosen for tuned rows, and from how many trials."""
    parts = []
    for index, (title, lines) in enumerate(tuning.grids(groups)):
        body = [[HtmlCell(first), *(markup.words(each) for each in rest)] for first, *rest in lines]
        parts.append(markup.heading(3, title))
        parts.append(markup.table(title, tuning.HEADER, body, name=f"tuning-{index}", titled=True))
    return "".join(parts) + markup.paragraph(tuning.NOTE, "notes")
