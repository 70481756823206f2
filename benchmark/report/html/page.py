"""The report as one HTML page that needs nothing else: opens from disk, on a phone and in print, without a network.

It leads with the answer, then the claims; the rest is folded. Its numbers are those of the CSV files: every cell of a
table carries the full-precision value it was rounded from, and leads to the runs that it is made of. Its content policy
forbids every connection and every script but its own, whatever a name in the results holds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from string import Template

import pandas as pd

from benchmark.report import tuning
from benchmark.report.claims.statements import Claim
from benchmark.report.figures.draw import Drawing
from benchmark.report.group import TableGroup
from benchmark.report.html import markup, records, sections
from benchmark.report.html.records import Anchors
from benchmark.report.table import Table
from benchmark.runs.store import Run

TITLE = "Lower-level optimizers compared"


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    runs: Sequence[Run]
    groups: Sequence[TableGroup]
    tables: Sequence[Table]
    pairs: pd.DataFrame
    claims: Sequence[Claim]
    drawings: Sequence[Drawing]
    figures: Path
    warnings: Sequence[str]

    @cached_property
    def anchors(self) -> Anchors:
        return Anchors.of(self.groups)


def render(content: Content) -> str:
    """The whole page."""
    first = [each for each in content.drawings if each.stem.startswith("fig1")]
    others = [each for each in content.drawings if each not in first]
    shown = {
        "answer": ("The answer", sections.answer(content.tables, content.anchors, first, content.figures)),
        "claims": ("The paper's claims", sections.claims(content.claims, content.anchors)),
        "pairs": ("Who beats whom", sections.matrices(content.groups, content.pairs, content.anchors)),
        "figures": ("More figures", "".join(markup.figure(each, content.figures) for each in others)),
    }
    if tuning.grids(content.groups):
        shown["tuning"] = ("Tuning", sections.tuned(content.groups))
    shown["runs"] = ("Runs", records.run_list(content.runs, content.groups, content.anchors))
    warned = markup.details(
        f"Before you believe a number: {len(content.warnings)} warning{'s' * (len(content.warnings) > 1)}",
        markup.bullets(content.warnings), style="warnings",
    )  # fmt: skip
    shown["answer"] = (shown["answer"][0], (warned if content.warnings else "") + shown["answer"][1])
    script = _asset("page.js")
    main = "".join(_section(name, title, body) for name, (title, body) in shown.items())
    versions = sorted({str(run.environment.get("version")) for run in content.runs if run.environment.get("version")})
    subtitle = "1 run" if len(content.runs) == 1 else f"{len(content.runs)} runs"
    subtitle += f", suite version {', '.join(versions)}" if versions else ""
    return Template(_asset("page.html")).substitute(
        title=TITLE,
        subtitle=markup.escape(subtitle),
        nav="".join(f'<li><a href="#{name}">{markup.escape(title)}</a></li>' for name, (title, _) in shown.items()),
        filters=filters(content.groups),
        main=main,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


OPEN = ("answer", "claims")
"""Sections that are not folded."""


def _section(name: str, title: str, body: str) -> str:
    body = body or markup.paragraph("Nothing to show.")
    head = markup.heading(2, title, name)
    inside = head + body if name in OPEN else f"<details><summary>{head}</summary>{body}</details>"
    return f'<section aria-labelledby="{name}">{inside}</section>'


def filters(groups: Sequence[TableGroup]) -> str:
    """A choice for whatever there is more than one of."""
    choices = {
        ("Data set", "dataset"): [f"{group.ways}-way {group.title}" for group in groups],
        ("Shots", "shots"): [str(shots) for group in groups for shots in group.shots],
        ("Recipe", "recipe"): [group.protocol for group in groups],
    }
    found = [
        markup.select(label, key, sorted(set(values)))
        for (label, key), values in choices.items()
        if len(set(values)) > 1
    ]
    return f'<form class="filters" aria-label="Show">{"".join(found)}</form>' if found else ""


def _asset(name: str) -> str:
    return resources.files("benchmark.report.html").joinpath(name).read_text(encoding="utf-8")
