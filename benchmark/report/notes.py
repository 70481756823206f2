"""The sentences below a table: what its signs mean, where printed numbers are from, what all rows were given."""

from __future__ import annotations

from benchmark import statistics
from benchmark.recipes import BASELINE
from benchmark.report import budget
from benchmark.report.cell import PUBLISHED_NORM
from benchmark.report.published import RECONSTRUCTED, REPAIR, dataset_title, image_size
from benchmark.report.table import Table

NORMS = {
    "support": "Support norm: query images are normalised by the support set's statistics, and no prediction depends "
    "on the other query images. Elsewhere they are normalised by their own batch, as in the papers.",
    "group": "Group norm: each image is normalised by itself, and no prediction depends on the other images.",
}
"""What a column of another norm than the papers' means."""


def notes(table: Table) -> list[str]:
    """What the table's signs mean, in whole sentences."""
    counts = [group.seeds(shots) for group in table.groups for shots in group.shots]
    several = max(counts, default=0) > 1
    judged = "over seeds and tasks" if several else "over tasks"
    if several and min(counts) < 2:
        judged += ", in a column of one seed over tasks"
    lines = [
        "Ours: mean ± 1.96·σ/√T over the T test tasks of one seed (population σ)"
        + (" ± standard deviation over seeds" if several else "")
        + "; all methods of a column meet the same tasks. Bold: the rows that may be the best of their column, which "
        f"are the best mean and every row that it does not beat beyond chance ({judged}; p_best in pairs.csv, level "
        "5 %). The baseline does not compete.",
    ]
    if table.sources:
        where = table.reference.title
        other = where != dataset_title(table.dataset)
        sources = table.sources
        marked = sources if len(sources) == 1 else [f"[{i}] {source}" for i, source in enumerate(sources, start=1)]
        lines.append(
            f"Paper: the published number as printed ({'; '.join(marked)}), on {where}"
            + (", another data set: compare the order of the methods, not the level." if other else ".")
            + " The papers mix network widths, test protocols and meta-optimizers."
        )
    norms = [group.norm for group in table.groups if group.norm != PUBLISHED_NORM]
    lines += [NORMS[norm] for norm in dict.fromkeys(norms)]
    methods = {method for method, _ in table.labels}
    if any(table.reconstructed(label) for _, label in table.labels):
        lines.append(f"* {RECONSTRUCTED}.")
    if table.repaired:
        lines.append(f"† {REPAIR}.")
    if BASELINE in methods:
        lines.append("Nearest centroid, on raw pixels: nothing is trained.")
    if any(table.step_ms(label) for _, label in table.labels):
        size = image_size(table.dataset)
        lines.append(
            f"Inner step: one 1-shot task of {size}×{size} images in colour at the width of the row, as timed alone."
        )
    lines += budget.facts(table.groups)
    seeds = [
        len(cell.measured)
        for group in table.groups
        for row in group.rows
        for cell in row.cells.values()
        if row.method != BASELINE
    ]
    if seeds and min(seeds) < statistics.FEW_SEEDS:
        lines.append(
            f"Few seeds ({max(1, min(seeds))} in places): the interval over tasks says how well one trained model is "
            "measured, not how much another seed would change it."
        )
    return lines
