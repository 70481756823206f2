"""Any folder or archive of class folders as a data set.

:mod:`benchmark.data.importing.layout` says which classes and parts there are. Parts ``train``, ``val`` and ``test``
that share no class are the split by class that they are. Parts that hold the same classes split images and not classes
(CIFAR-100, Tiny-ImageNet): their images are gathered by class, and the classes are split at random by a seed, as they
are where there are no parts. Lists settle the split whatever the parts are; what is in between is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmark.data.importing.build import ImportPlan, PlannedClass
from benchmark.data.importing.decode import ImageFormat, size_of
from benchmark.data.importing.layout import Layout, folders_without_images, read_layout
from benchmark.data.importing.sources import Source
from benchmark.data.storage import SPLITS
from benchmark.errors import UserError

SHARES = (0.64, 0.16)  # of classes for train and val; the rest is test
LARGEST = 84  # pixels; the size of smaller images is kept
SIDES = (1, 1024)  # pixels that may be asked for
LOOKED_AT = 256  # images whose size is looked at


def folders(
    source: Source,
    *,
    image_size: int | None = None,
    grey: bool = False,
    split_seed: int | None = None,
    splits: Path | None = None,
) -> ImportPlan:
    """A plan for class folders. ``splits``: a JSON table split → class names, or a folder of ``train.txt`` etc."""
    check_options(image_size, split_seed)
    layout = read_layout(source)
    if not layout.parts:
        raise UserError(f"no classes of images found in {source.path.name}; expected folders of images, one a class")
    planned, how = plan_split(layout, source.path.name, split_seed=split_seed, splits=splits)
    chosen = {name for c in planned for name in c.images}
    unlisted = {name: "in classes that the lists do not name" for names in layout.classes.values() for name in names}
    layout.left_out |= {name: reason for name, reason in unlisted.items() if name not in chosen}
    size, why = (image_size, "as asked for") if image_size else _size(planned, source)
    return ImportPlan(
        "class folders",
        ImageFormat(1 if grey else 3, size),
        iter([planned]),
        {"options": {"split": how, "image_size": size, "grey": grey}},
        split=how,
        size=why,
        left_out=layout.left_out,
        empty=folders_without_images(source),
    )


def check_options(image_size: int | None, split_seed: int | None) -> None:
    """:class:`UserError` for a size or a seed that can be none."""
    if image_size is not None and not SIDES[0] <= image_size <= SIDES[1]:
        raise UserError(f"--image-size must lie between {SIDES[0]} and {SIDES[1]} pixels, got {image_size}")
    if split_seed is not None and not 0 <= split_seed < 2**63:
        raise UserError(f"--split-seed must be a whole number from 0 on, got {split_seed}")


def plan_split(
    layout: Layout, name: str, *, split_seed: int | None, splits: Path | None
) -> tuple[list[PlannedClass], str]:
    """Every class with its split, and where that comes from; `name` is the source's."""
    if splits is not None:
        if split_seed is not None:
            raise UserError("--splits LISTS leaves nothing to draw; give either it or --split-seed")
        return _by_lists(layout.classes, splits, name), f"lists of {splits.name}"
    parts = {part: set(classes) for part, classes in layout.parts.items() if part}
    if "" in layout.parts and parts:
        outside = min(layout.parts[""])
        raise UserError(
            f"{name} has {_shown(layout, parts)} and, beside them, {outside!r}; move it away, or give --splits LISTS"
        )
    for part in parts:
        if len(layout.folders[part]) > 1:
            found = " and ".join(f"{folder}/" for folder in sorted(layout.folders[part]))
            raise UserError(f"{name} has {found}, two folders for {part}; keep one, or give --splits LISTS")
    overlap = sum(map(len, parts.values())) > len(layout.classes)
    if overlap and not all(classes <= max(parts.values(), key=len) for classes in parts.values()):
        both = min(c for c in layout.classes if sum(c in classes for classes in parts.values()) > 1)
        raise UserError(
            f"{name}: class {both!r} is in two of {_shown(layout, parts)}, which do not hold the same classes either; "
            "take it out of one, or give --splits LISTS"
        )
    if len(parts) > 1 and not overlap:
        missing = [split for split in SPLITS if split not in parts]
        if missing:
            raise UserError(
                f"{name} has {_shown(layout, parts)} with different classes, but no {' and no '.join(missing)}; "
                "give --splits LISTS, or put all class folders into one folder to split them at random"
            )
        if split_seed is not None:
            raise UserError(f"{name} has its own split, {_shown(layout, parts)}; leave --split-seed out")
        by_part = layout.parts
        return [PlannedClass(c, s, by_part[s][c]) for s in SPLITS for c in sorted(by_part[s])], "folders " + ", ".join(
            next(iter(layout.folders[s])) for s in SPLITS
        )
    seed = split_seed or 0
    why = "there are no parts" if not parts else f"{_shown(layout, parts)} holds all labels"
    if overlap:
        why = f"{_shown(layout, parts)} hold the same classes, so their images are put together"
    return _at_random(layout.classes, seed, name), f"at random by class, seed {seed}: {why}"


def _shown(layout: Layout, parts: Mapping[str, object]) -> str:
    """``train/, val/ and test/``, as the folders are called."""
    found = [f"{folder}/" for split in SPLITS if split in parts for folder in sorted(layout.folders[split])]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _size(planned: Sequence[PlannedClass], source: Source) -> tuple[int, str]:
    """min(84, median of the shorter sides) over images spread evenly over all, and these words."""
    names = [str(name) for c in planned for name in c.images]
    step = -(-len(names) // LOOKED_AT)
    sides = []
    for _, found in source.stream(names[::step]):
        with contextlib.suppress(ValueError):  # decoding will say so by name
            sides.append(min(size_of(found)))
    if not sides:
        raise UserError(f"the first images of {source.path.name} cannot be read, first {names[0]}; are these images?")
    median = sorted(sides)[len(sides) // 2]
    if min(sides) == max(sides):
        why = f"shorter sides are all {median}"
    else:
        why = f"shorter sides are {min(sides)} to {max(sides)}, median {median}"
    most = f", at most {LARGEST} is kept" if median > LARGEST else ""
    return min(LARGEST, median), f"{why} in {len(sides)} images looked at{most}"


def _at_random(classes: Mapping[str, list[str]], seed: int, where: str) -> list[PlannedClass]:
    names = sorted(classes)
    if len(names) < 3:
        raise UserError(f"{where} has {len(names)} classes; at least 3 are needed for train, val and test")
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(names)), kind="stable")
    train = max(1, round(SHARES[0] * len(names)))
    val = max(1, round(SHARES[1] * len(names)))
    train = min(train, len(names) - val - 1)
    split = {i: SPLITS[(rank >= train) + (rank >= train + val)] for rank, i in enumerate(order)}
    return [PlannedClass(name, s, classes[name]) for s in SPLITS for i, name in enumerate(names) if split[i] == s]


def _by_lists(classes: Mapping[str, list[str]], path: Path, where: str) -> list[PlannedClass]:
    lists = read_lists(path)
    short: dict[str, list[str]] = {}
    for label in classes:
        short.setdefault(label.rsplit("/", 1)[-1], []).append(label)
    planned, seen = [], set()
    for split, names in lists.items():
        for name in names:
            labels = [name] if name in classes else short.get(name, [])
            if not labels:
                raise UserError(f"{path.name} lists the {split} class {name!r}, which {where} does not have")
            if len(labels) > 1:
                raise UserError(f"{path.name} lists {name!r}, which can be {labels[0]!r} or {labels[1]!r}; say which")
            (label,) = labels
            if label in seen:
                raise UserError(f"{path.name} lists class {name!r} twice; a class belongs to one split")
            seen.add(label)
            planned.append(PlannedClass(label, split, classes[label]))
    return planned


def read_lists(path: Path) -> dict[str, list[str]]:
    """Class names by split, from a JSON table or a folder of text files."""
    try:
        if path.is_dir():
            texts = {split: (path / f"{split}.txt").read_text(encoding="utf-8") for split in SPLITS}
            return {
                split: [line.strip() for line in text.splitlines() if line.strip()] for split, text in texts.items()
            }
        lists = json.loads(path.read_text(encoding="utf-8"))
        if set(lists) != set(SPLITS) or not all(isinstance(n, str) for names in lists.values() for n in names):
            raise ValueError("expected the keys train, val and test with lists of class names")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"split lists {path}: {error}; expected a JSON table or a folder of train.txt, val.txt, test.txt"
        ) from error
    return {split: list(lists[split]) for split in SPLITS}


def slug(path: Path) -> str:
    """A short name for a set read from a path."""
    stem = re.sub(r"(\.tar)?\.(zip|tar|gz|tgz|bz2|xz)$", "", path.resolve().name)
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.")[:200] or "folder"
