"""Small pieces of HTML. Every text passes :func:`html.escape` here, and nowhere is markup taken from results."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from benchmark.report.figures.draw import Drawing


@dataclass(frozen=True)
class HtmlCell:
    """One place of a table: its text, the value that it is sorted by (full precision), and its class."""

    text: str
    value: float | str | None = None
    style: str = ""


def number(value: float | None, shown: str | None = None, style: str = "") -> HtmlCell:
    """A number, shown rounded, kept whole; an unknown one sorts last."""
    if value is None or not math.isfinite(value):
        return HtmlCell("–" if shown is None else shown, "", f"number {style}".strip())
    return HtmlCell(f"{value:g}" if shown is None else shown, float(value), f"number {style}".strip())


def words(text: str, style: str = "") -> HtmlCell:
    """A text."""
    return HtmlCell(text, None, f"text {style}".strip())


def table(
    caption: str,
    header: Sequence[str],
    body: Sequence[Sequence[HtmlCell]],
    *,
    name: str,
    sortable: bool = True,
    style: str = "",
    titled: bool = False,
) -> str:
    """A table with a caption and scoped headers; the first cell of each line is its row header.

    `titled`: a heading above says the same, the caption is for screen readers alone.
    """
    first_line = body[0] if body else [HtmlCell("", None, "text")] * len(header)
    heads = "".join(
        f'<th scope="col"{_class("text" if place == 0 or "text" in cell.style else "")}>'
        + (f'<button type="button">{escape(text)}</button>' if sortable else escape(text))
        + "</th>"
        for place, (text, cell) in enumerate(zip(header, first_line, strict=True))
    )
    lines = []
    for line in body:
        first, *rest = line
        cells = f'<th scope="row"{_class(first.style)}>{escape(first.text)}</th>'
        cells += "".join(f"<td{_class(each.style)}{_value(each)}>{_text(each)}</td>" for each in rest)
        lines.append(f"<tr>{cells}</tr>")
    classes = " ".join(part for part in ("sortable" if sortable else "", style) if part)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table id="{escape(name)}"{_class(classes)}>'
        f"<caption{_class('spoken' if titled else '')}>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _text(cell: HtmlCell) -> str:
    """Its text; a number keeps its interval on its line."""
    return escape(cell.text.replace(" ± ", "\u00a0±\u00a0"))


def _class(names: str) -> str:
    return f' class="{escape(names)}"' if names else ""


def _value(cell: HtmlCell) -> str:
    if cell.value is None:
        return ""
    shown = repr(cell.value) if isinstance(cell.value, float) else str(cell.value)
    return f' data-value="{escape(shown)}"'


def figure(drawing: Drawing, folder: Path) -> str:
    """The drawing's SVG, inside the page, with its alt text and caption."""
    data = base64.b64encode((folder / f"{drawing.stem}.svg").read_bytes()).decode()
    width, height = (round(96 * float(inches)) for inches in drawing.figure.get_size_inches())
    return (
        f'<figure id="figure-{escape(drawing.stem)}"><img src="data:image/svg+xml;base64,{data}" '
        f'width="{width}" height="{height}" alt="{escape(drawing.alt)}">'
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    )


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


def details(summary: str, inside: str) -> str:
    """Folded away until asked for; `inside` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"
