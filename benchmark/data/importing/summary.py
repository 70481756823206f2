"""What an import made, in words: form, split, size, classes and images, the tasks they allow, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.data.importing.build import Imported
from benchmark.data.storage import SPLITS, Dataset

QUERIES = 15
"""Query images of a class in the usual protocol."""

NAMED = 3
"""Files left out for one reason that are named; their number is always said."""


def lines(done: Imported, dataset: Dataset) -> Iterator[str]:
    """One line for each thing that a user should check before training on the set."""
    yield f"form      {done.form}"
    yield f"split     {done.split}"
    yield f"size      {'×'.join(map(str, dataset.image_shape))}: {done.size}"
    for split in SPLITS:
        counts = [c.count for c in dataset.classes if c.split == split]
        if not counts:
            yield f"{split:<9} no class"
            continue
        each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
        yield f"{split:<9} {_number(len(counts), 'class', 'classes')}, {sum(counts):,} images, {each} each"
    yield f"tasks     {_tasks(dataset)}"
    yield from _left_out(done)
    if done.replaced is not None and done.replaced != dataset.hash:
        yield (
            f"replaced  the set that had this name (hash {done.replaced[:12]}, now {dataset.hash[:12]}): "
            "runs on it are of other images, and none is continued or compared"
        )


def _number(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _tasks(dataset: Dataset) -> str:
    ways = min(len(names) for names in dataset.splits.values())
    smallest = min(dataset.classes, key=lambda c: c.count)
    room = smallest.count - QUERIES
    with_queries = f"{room} shots with {QUERIES} query images, " if room > 0 else ""
    most = f"up to {ways} ways; the smallest class, {smallest.name} ({smallest.split}), has {smallest.count} images: "
    if smallest.count < 2:
        return most + "no task, which needs a support and a query image of each class"
    return most + f"up to {with_queries}{smallest.count - 1} with one"


def _left_out(done: Imported) -> Iterator[str]:
    for image, reason in done.bad:
        yield f"left out  {image}: {reason}"
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(done.left_out.items()):
        by_reason.setdefault(reason, []).append(name)
    for folder in done.empty:
        by_reason.setdefault("folders without images", []).append(folder + "/")
    for reason, names in by_reason.items():
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        yield f"left out  {len(names):,}, {reason}: {', '.join(names[:NAMED])}{more}"
