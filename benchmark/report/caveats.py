"""What a careful reader should be warned of before believing a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmark import statistics
from benchmark.recipes import BASELINE
from benchmark.report.claims.verdict import join
from benchmark.report.group import TableGroup
from benchmark.report.published import RECONSTRUCTED, TITLES, method_title
from benchmark.report.words import between
from benchmark.runs.store import CONTINUED, ENDED, Run

VERSIONS = {
    "version": "versions of this suite",
    "commit": "commits",
    "torch": "torch versions",
    "python": "Python versions",
    "device": "devices",
}
"""Entries of a run's environment that should agree among runs that are compared."""

PAPER_ITERATIONS = 60_000
"""Meta-steps of the published recipes of MAML and mirror descent."""

PAPER_METHODS = [method for method in TITLES if method not in (BASELINE, "md-released", "md-convex")]


def _made_by(run: Run, key: str) -> list[Any]:
    """The values of an entry of the environment that the run was made under: of its begin, and where it went on."""
    return [stage[key] for stage in (run.environment, *run.environment.get(CONTINUED, [])) if key in stage]


def warnings(groups: Sequence[TableGroup]) -> list[str]:
    """Every warning, in the order of their weight."""
    if not groups:
        return ["There are no runs: nothing is compared."]
    places: dict[str, list[str]] = {}
    for group in groups:
        for text in _of_group(group):
            places.setdefault(text, []).append(f"{group.ways}-way {group.title}, {group.protocol}")
    everywhere = len(groups)
    texts = [text if len(where) == everywhere > 1 else f"{'; '.join(where)}: {text}" for text, where in places.items()]
    return [*_of_images(groups), *texts]


def _of_images(groups: Sequence[TableGroup]) -> Iterator[str]:
    """Data sets that stand for several sets of images here."""
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        name, images = group.source
        found.setdefault(name, {})[images[:8] or "not recorded"] = None
    for name, hashes in found.items():
        if len(hashes) > 1:
            yield (
                f"{name} stands for {len(hashes)} different sets of images ({join(sorted(hashes))}): "
                "each has its own table, and none is compared with another."
            )


def _of_group(group: TableGroup) -> Iterator[str]:
    cells = [cell for row in group.rows for cell in row.cells.values()]
    runs = [run for cell in cells for run in cell.runs]
    trained = [run for run in runs if run.spec["method"] != BASELINE]
    diverged = [
        f"{cell.label} {cell.shots}-shot ({cell.diverged} of {len(cell.runs)})" for cell in cells if cell.diverged
    ]
    if diverged:
        yield f"diverged: {join(diverged)}. Such runs are in no mean."
    lost = [
        f"{cell.label} {cell.shots}-shot ({cell.score.excluded} of {cell.score.count + cell.score.excluded} tasks)"
        for cell in cells
        if cell.score and cell.score.excluded
    ]
    if lost:
        yield f"diverged on single tasks, which are in no mean: {join(lost)}."
    skipped = [f"{run.name} ({count:,})" for run in trained if (count := int(run.status.get("skipped_steps", 0)))]
    if skipped:
        yield f"meta-steps that were not finite were skipped: {join(skipped)}."
    finished = [run for run in trained if run.state == "finished" and run.spec["iterations"]]
    last = [run.name for run in finished if run.status.get("best_score", 0) is None]
    if last:
        yield f"no validation had a finite loss on every task, so the last meta-parameters were measured: {join(last)}."
    unfinished = [f"{run.name} ({run.state})" for run in runs if run.state not in ENDED]
    if unfinished:
        yield f"not finished: {join(unfinished)}."
    for key, name in VERSIONS.items():
        values = sorted({str(value) for run in runs for value in _made_by(run, key) if value})
        if len(values) > 1:
            yield f"mixed {name}: {join(values)}."
    if any(str(commit).endswith("+") for run in runs for commit in _made_by(run, "commit")):
        yield "some runs were made with files that differ from their commit (marked +)."
    yield from _protocol(group, trained)
    counts = [
        len({run.spec["seed"] for run in cell.measured}) for cell in cells if cell.method != BASELINE and cell.measured
    ]
    if counts and min(counts) < statistics.FEW_SEEDS:
        few = "one seed" if max(counts) == 1 else f"{between(counts)} seeds"
        yield f"few seeds ({few}): intervals over tasks do not show what another training run would change."
    missing = [
        f"{row.label} has no {shots}-shot run" for row in group.rows for shots in group.shots if shots not in row.cells
    ]
    absent = [method_title(method) for method in PAPER_METHODS if method not in {row.method for row in group.rows}]
    if absent:
        missing.append(f"no run of {join(absent)}")
    if missing:
        yield f"missing rows: {'; '.join(missing)}."
    marked = [row.label for row in group.rows if row.reconstructed]
    if marked:
        yield f"{join(marked)}: {RECONSTRUCTED}."


def _protocol(group: TableGroup, runs: Sequence[Run]) -> Iterator[str]:
    """Differences of protocol between rows that stand in one column."""
    for shots in group.shots:
        column = [run for run in runs if run.spec["shots"] == shots]
        for knob, name in (("query_test", "query images per class at test"), ("tasks", "numbers of test tasks")):
            values = sorted({int(run.spec[knob]) for run in column})
            if len(values) > 1:
                yield f"{shots}-shot rows differ in {name}: {join([str(value) for value in values])}."
    longest = max((int(run.spec["iterations"]) for run in runs), default=0)
    if 0 < longest < PAPER_ITERATIONS:
        yield f"trained for at most {longest:,} iterations, the published recipes for {PAPER_ITERATIONS:,}."
