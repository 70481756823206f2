"""Small pieces of HTML. Every text passes :func:`html.escape` here, and nowhere is markup taken from results."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmark.report.figures.draw import NARROW, Drawing
from benchmark.report.scope import EVERYTHING, Scope

PHONE = "40rem"
"""Up to this width of the window a figure's panels are stacked."""


@dataclass(frozen=True)
class HtmlCell:
    """One place of a table: its text, the value that it is sorted by (full precision), its class, where it leads."""

    text: str
    value: float | str | None = None
    style: str = ""
    target: str = ""


def number(value: float | None, shown: str | None = None, style: str = "", target: str = "") -> HtmlCell:
    """A number, shown rounded, kept whole; an unknown one sorts last."""
    if value is None or not math.isfinite(value):
        return HtmlCell("–" if shown is None else shown, "", f"number {style}".strip(), target)
    return HtmlCell(f"{value:g}" if shown is None else shown, float(value), f"number {style}".strip(), target)


def words(text: str, style: str = "", target: str = "") -> HtmlCell:
    """A text."""
    return HtmlCell(text, None, f"text {style}".strip(), target)


def table(
    caption: str,
    header: Sequence[str],
    body: Sequence[Sequence[HtmlCell]],
    *,
    name: str,
    sortable: bool = True,
    style: str = "",
    titled: bool = False,
    scopes: Sequence[Scope] | None = None,
) -> str:
    """A table with a caption and scoped headers; the first cell of each line is its row header.

    `titled`: a heading above says the same, the caption is for screen readers alone. `scopes`: what each column is of.
    """
    scopes = scopes or [EVERYTHING] * len(header)
    first_line = body[0] if body else [HtmlCell("", None, "text")] * len(header)
    heads = "".join(
        f'<th scope="col"{_class("text" if place == 0 or "text" in cell.style else "")}{data(scope)}>'
        + (f'<button type="button">{escape(text)}</button>' if sortable else escape(text))
        + "</th>"
        for place, (text, cell, scope) in enumerate(zip(header, first_line, scopes, strict=True))
    )
    lines = []
    for line in body:
        first, *rest = line
        cells = f'<th scope="row"{_class(first.style)}>{_text(first)}</th>'
        cells += "".join(
            f"<td{_class(each.style)}{_value(each)}{data(scope)}>{_text(each)}</td>"
            for each, scope in zip(rest, scopes[1:], strict=True)
        )
        lines.append(f"<tr>{cells}</tr>")
    classes = " ".join(part for part in ("sortable" if sortable else "", style) if part)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table id="{escape(name)}"{_class(classes)}>'
        f"<caption{_class('spoken' if titled else '')}>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _text(cell: HtmlCell) -> str:
    """Its text, a link where it leads somewhere; a number keeps its interval on its line."""
    text = escape(cell.text.replace(" ± ", "\u00a0±\u00a0"))
    return f'<a href="#{escape(cell.target)}">{text}</a>' if cell.target else text


def _class(names: str) -> str:
    return f' class="{escape(names)}"' if names else ""


def _value(cell: HtmlCell) -> str:
    if cell.value is None:
        return ""
    shown = repr(cell.value) if isinstance(cell.value, float) else str(cell.value)
    return f' data-value="{escape(shown)}"'


def data(scope: Scope) -> str:
    """The attributes that the page's filters read."""
    known = {"dataset": scope.dataset, "shots": scope.shots, "recipe": scope.recipe}
    return "".join(f' data-{key}="{escape(str(value))}"' for key, value in known.items() if value)


def block(inside: str, scope: Scope) -> str:
    """HTML that a filter can hide as a whole."""
    return f"<div{data(scope)}>{inside}</div>"


def figure(drawing: Drawing, folder: Path) -> str:
    """The drawing's SVG, inside the page, with its alt text and caption; on a phone the one with stacked panels."""
    wide, narrow = (_source(folder / f"{stem}.svg") for stem in (drawing.stem, drawing.stem + NARROW))
    width, height = (round(96 * float(inches)) for inches in drawing.figure.get_size_inches())
    return (
        f'<figure id="figure-{escape(drawing.stem)}"{data(drawing.scope)}><picture>'
        f'<source media="(max-width: {PHONE})" srcset="{narrow}">'
        f'<img src="{wide}" width="{width}" height="{height}" alt="{escape(drawing.alt)}"></picture>'
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    )


def _source(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def paragraph(text: str, style: str = "") -> str:
    return f"<p{_class(style)}>{escape(text)}</p>"


def bullets(texts: Iterable[str], style: str = "") -> str:
    return f"<ul{_class(style)}>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def heading(level: int, text: str, name: str = "") -> str:
    identity = f' id="{escape(name)}"' if name else ""
    return f"<h{level}{identity}>{escape(text)}</h{level}>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values side by side."""
    lines = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs)
    return f"<dl>{''.join(lines)}</dl>"


def details(summary: str, inside: str, name: str = "", style: str = "", scope: Scope = EVERYTHING) -> str:
    """Folded away until asked for; `inside` is HTML."""
    identity = f' id="{escape(name)}"' if name else ""
    return f"<details{identity}{_class(style)}{data(scope)}><summary>{escape(summary)}</summary>{inside}</details>"


def select(label: str, key: str, values: Sequence[str]) -> str:
    """A filter: all, or one of `values` of the attribute ``data-key``."""
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    return (
        f'<label>{escape(label)} <select data-filter="{escape(key)}"><option value="">all</option>{options}'
        "</select></label>"
    )
