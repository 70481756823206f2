"""Tables as Markdown and as LaTeX with booktabs. Names from results are escaped; only best places are set in bold."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.report.notes import notes
from benchmark.report.table import Place, Table, grid, seeds_grid
from benchmark.screen import visible


def markdown(tables: Sequence[Table]) -> str:
    """All tables in Markdown, with their notes and, where there are several seeds, the intervals over seeds."""
    parts = ["# Table 1"]
    for table in tables:
        parts += [f"## {escape_markdown(table.title)}", markdown_table(*grid(table))]
        seeded = seeds_grid(table)
        if seeded:
            parts += ["Over seeds (Student's t, 95 %):", markdown_table(*seeded)]
        parts.append("\n".join(f"- {escape_markdown(line)}" for line in notes(table)))
    if len(parts) == 1:
        parts.append("No runs.")
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], body: Sequence[Sequence[Place | str]], *, numbers: bool = True) -> str:
    """A Markdown table, first column to the left, the others to the right if `numbers`; everything is escaped."""
    lines = [
        [escape_markdown(entry) for entry in header],
        ["---"] + ["---:" if numbers else "---"] * (len(header) - 1),
        *([_markdown_place(entry) for entry in line] for line in body),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown_place(entry: Place | str) -> str:
    if isinstance(entry, str):
        return escape_markdown(entry)
    return f"**{escape_markdown(entry.text)}**" if entry.best else escape_markdown(entry.text)


def escape_markdown(entry: str) -> str:
    """`entry` on one line with every sign that Markdown, or a terminal that shows it, would act on made harmless."""
    entry = visible(entry)
    for sign in "\\`|<>[]_*":
        entry = entry.replace(sign, "\\" + sign)
    return " ".join(entry.split())


def latex(tables: Sequence[Table]) -> str:
    """All tables in LaTeX with booktabs; each a ``table`` environment of its own, made smaller where it is too wide."""
    parts = ["% Needs \\usepackage{booktabs,graphicx}. Written by the report; numbers are those of table1.csv."]
    for number, table in enumerate(tables, start=1):
        header, body = grid(table)
        lines = [
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{escape_latex(table.title)}. {escape_latex(' '.join(notes(table)))}}}",
            f"  \\label{{tab:results-{number}}}",
            "  \\smallskip\\small",
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            "    \\toprule",
            "    " + " & ".join(map(_latex_heading, header)) + " \\\\",
            "    \\midrule",
            *("    " + " & ".join(_latex_place(entry) for entry in line) + " \\\\" for line in body),
            "    \\bottomrule",
            "  \\end{tabular}}",
            "\\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _latex_heading(entry: str) -> str:
    """A heading over several lines, what stands in brackets below the rest."""
    lines = [escape_latex(line) for line in entry.replace(" (", "\n(").split("\n")]
    return lines[0] if len(lines) == 1 else "\\shortstack[r]{" + " \\\\ ".join(lines) + "}"


def _latex_place(entry: Place) -> str:
    return f"\\textbf{{{escape_latex(entry.text)}}}" if entry.best else escape_latex(entry.text)


LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "·": "$\\cdot$", "–": "--", "√": "$\\surd$",
    "σ": "$\\sigma$", "×": "$\\times$", "α": "$\\alpha$", "−": "$-$", "†": "\\dag{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "\n": " ",
}  # fmt: skip


def escape_latex(entry: str) -> str:
    """`entry` with every sign that LaTeX would act on made harmless."""
    return "".join(LATEX.get(sign, sign) for sign in visible(entry))
