"""Importing: a source and a plan become one array and one index, or nothing at all.

An importer (:mod:`benchmark.data.importing.formats`) looks at a source and says which classes there are, in which
split, and where their images lie: an :class:`ImportPlan`. Here the plan is carried out: images are decoded in parallel
as they come, written to their places, and the set is made visible in one rename. Whatever goes wrong before that (a
full disk, an interrupt, too many corrupt images) leaves the data folder as it was.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.importing import ProgressCallback
from benchmark.data.importing.decode import IMAGE_SUFFIXES, ImageFormat, QueuedImage, decode_all
from benchmark.data.importing.sources import Source
from benchmark.data.storage import SPLITS, ClassInfo, read_index, write_index
from benchmark.data.writing import ArrayWriter, writing, written
from benchmark.errors import UserError

MAX_BAD_SHARE = 0.01  # of images that cannot be decoded


@dataclass(frozen=True)
class PlannedClass:
    """A class and its images: file names in the source, or the images themselves (decoded or encoded)."""

    name: str
    split: str
    images: Sequence[str] | Sequence[bytes] | Sequence[np.ndarray] | np.ndarray


@dataclass(frozen=True)
class ImportPlan:
    """What to import. ``parts`` are lists of classes that are carried out one after another (a pickle at a time)."""

    form: str  # which of the known forms the source has
    image_format: ImageFormat
    parts: Iterator[list[PlannedClass]]
    info: dict[str, Any] = field(default_factory=dict)
    split: str = "the official one"  # where it comes from
    size: str = "as the literature has it"  # why
    left_out: dict[str, str] = field(default_factory=dict)  # files without a place, with the reason
    empty: list[str] = field(default_factory=list)  # folders without images


@dataclass(frozen=True)
class Imported:
    """What an import did; :mod:`benchmark.data.importing.summary` puts it in words."""

    name: str
    images: int
    classes: int
    form: str
    bad: list[tuple[str, str]]  # (name, reason) of images that could not be decoded
    split: str
    size: str
    left_out: dict[str, str]  # every other file that is in no class, with the reason
    empty: list[str]
    replaced: str | None  # the hash of the set that had the name before


def build(
    plan: ImportPlan, source: Source, root: Path, name: str, progress: ProgressCallback | None = None
) -> Imported:
    """Carry out a plan. Errors: :class:`UserError`, and nothing is left behind."""
    with writing(root, name) as folder, written(root, source.path.name):
        before = _hash_before(folder)
        writer = ArrayWriter(folder, plan.image_format.shape)
        try:
            used: set[str] = set()
            classes, bad, total = _write_parts(plan, source, writer, used, progress)
            classes = _without(classes, {position for position, _, _ in bad}, total, source, bad)
            pixels, array = writer.close(total, [position for position, _, _ in bad])
            info = {
                "source": source.path.name,
                "source_hash": source.fingerprint(),
                "form": plan.form,
                "image": {**asdict(plan.image_format), "resize": "Lanczos"},
                **plan.info,
                "split": plan.split,
                "left_out": dict(Counter((left_out := _left_out(plan, source, used)).values())),
                "skipped": sorted(f"{image}: {reason}" for _, image, reason in bad),
            }
            write_index(folder, name, array, pixels, classes, image_shape=list(plan.image_format.shape), info=info)
        finally:
            writer.abort()
    named = [(image, reason) for _, image, reason in bad]
    return Imported(
        name, total - len(bad), len(classes), plan.form, named, plan.split, plan.size, left_out, plan.empty, before
    )


def _hash_before(folder: Path) -> str | None:
    """The hash of the set that this import replaces; None where there is none that can be read."""
    with contextlib.suppress(UserError):
        index = read_index(folder)
        return str(index.get("hash")) if index else None
    return None


def _left_out(plan: ImportPlan, source: Source, used: set[str]) -> dict[str, str]:
    """Every file of the source that is in no class, and why. Nothing is known of sets that lie in pickles or tables."""
    if not used:
        return {}
    found = source.left_out | plan.left_out
    for name in source.sizes:
        if name not in used and name not in found:
            is_image = name.lower().endswith(IMAGE_SUFFIXES)
            found[name] = "images that are not among those of the set" if is_image else "files that are no images"
    return found


Bad = list[tuple[int, str, str]]  # position, name, reason


def _write_parts(
    plan: ImportPlan, source: Source, writer: ArrayWriter, used: set[str], progress: ProgressCallback | None
) -> tuple[list[ClassInfo], Bad, int]:
    classes: list[ClassInfo] = []
    bad: Bad = []
    total = done = 0
    for part in plan.parts:
        first = total
        classes += [ClassInfo(c.name, c.split, len(c.images)) for c in part]
        total += sum(len(c.images) for c in part)
        used |= {image for c in part for image in c.images if isinstance(image, str)}
        for positions, images, failed in decode_all(_queue(part, source, first), plan.image_format):
            for start, stop in _runs(positions):
                writer.write(positions[start], images[start:stop])
            bad += failed
            done += len(positions)
            if progress is not None:
                progress(done, total)
    _check_classes(classes, source)
    return classes, bad, total


def _runs(positions: list[int]) -> Iterator[tuple[int, int]]:
    """Slices of consecutive positions: each is one write."""
    start = 0
    for i in range(1, len(positions) + 1):
        if i == len(positions) or positions[i] != positions[i - 1] + 1:
            yield start, i
            start = i


def _queue(part: list[PlannedClass], source: Source, first: int) -> Iterator[QueuedImage]:
    """Every image of a part with its position; files in the order in which the source reads them best."""
    wanted: dict[str, int] = {}
    position = first
    for planned in part:
        for number, image in enumerate(planned.images):
            if isinstance(image, str):
                if image in wanted:
                    raise UserError(f"{image} is listed twice in {source.path.name}")
                wanted[image] = position
            else:
                yield position, f"{planned.name}[{number}]", image
            position += 1
    if wanted:
        for name, content in source.stream(list(wanted)):
            yield wanted.pop(name), name, content
    for name, place in wanted.items():
        yield place, name, FileNotFoundError("not in the archive")


def _check_classes(classes: list[ClassInfo], source: Source) -> None:
    if not classes:
        raise UserError(f"no classes of images found in {source.path.name}; expected folders of images, one a class")
    twice = [name for name, count in Counter(c.name for c in classes).items() if count > 1]
    if twice:
        raise UserError(f"class {twice[0]!r} appears twice in {source.path.name}")
    for c in classes:
        if c.split not in SPLITS or not c.count:
            raise UserError(f"class {c.name!r} of {source.path.name} has {c.count} images in split {c.split!r}")


def _without(classes: list[ClassInfo], dropped: set[int], total: int, source: Source, bad: Bad) -> list[ClassInfo]:
    """The classes less the images that could not be decoded; too many of them refuse the import."""
    if not dropped:
        return classes
    named = "; ".join(f"{image} ({reason})" for _, image, reason in bad[:3]) + ("; …" if len(bad) > 3 else "")
    if len(dropped) > MAX_BAD_SHARE * total:
        raise UserError(f"{len(dropped)} of {total} images of {source.path.name} are corrupt: {named}; get it again")
    kept, start = [], 0
    for c in classes:
        count = c.count - sum(position in dropped for position in range(start, start + c.count))
        start += c.count
        if not count:
            raise UserError(f"every image of class {c.name!r} of {source.path.name} is corrupt: {named}")
        kept.append(ClassInfo(c.name, c.split, count))
    return kept
