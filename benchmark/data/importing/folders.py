"""Any folder or archive of class folders as a data set.

The class of an image is the folder it lies in. Three folders ``train``, ``val`` and ``test`` that share no class are
taken for the split by class that they are; otherwise (none of them, or the same classes in each, as in CIFAR-100)
images are gathered by class and the classes are split at random by a seed, or by lists.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmark.data.importing.build import ImportPlan, PlannedClass
from benchmark.data.importing.decode import ImageFormat
from benchmark.data.importing.formats import images_by
from benchmark.data.importing.sources import BROKEN, Source
from benchmark.data.storage import SPLITS
from benchmark.errors import UserError

SHARES = (0.64, 0.16)  # of classes for train and val; the rest is test
LARGEST = 84  # pixels; the size of smaller images is kept
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def folders(
    source: Source,
    *,
    image_size: int | None = None,
    grey: bool = False,
    split_seed: int = 0,
    splits: Path | None = None,
) -> ImportPlan:
    """A plan for class folders. ``splits``: a JSON table split → class names, or a folder of ``train.txt`` etc."""
    groups = images_by(source, lambda name: name.rsplit("/", 1)[0])
    if not groups:
        raise UserError(f"no classes of images found in {source.path.name}; expected folders of images, one a class")
    prefix = _common(list(groups))
    by_split: dict[str, dict[str, list[str]]] = {}
    for folder, names in groups.items():
        parts = folder.split("/")[prefix:]
        split = _SPLIT_FOLDERS.get(parts[0].lower(), "") if len(parts) > 1 else ""
        label = "/".join(parts[1:] if split else parts) or folder.rsplit("/", 1)[-1]
        by_split.setdefault(split, {}).setdefault(label, []).extend(names)
    classes: dict[str, list[str]] = {}
    for part in by_split.values():
        for label, names in part.items():
            classes.setdefault(label, []).extend(names)
    given = set(by_split) == set(SPLITS) and len(classes) == sum(map(len, by_split.values()))
    if splits is not None:
        planned, how = _by_lists(classes, splits, source), f"lists of {splits.name}"
    elif given:
        planned = [PlannedClass(c, s, by_split[s][c]) for s in SPLITS for c in sorted(by_split[s])]
        how = "folders train, val, test"
    else:
        planned, how = _at_random(classes, split_seed, source), f"at random, seed {split_seed}"
    size = image_size or _first_size(planned[0].images, source)
    options = {"split": how, "image_size": size, "grey": grey}
    return ImportPlan("class folders", ImageFormat(1 if grey else 3, size), iter([planned]), {"options": options})


def _common(names: list[str]) -> int:
    """How many leading folders all class folders share (their own names and split folders not counted)."""
    parts = [name.split("/") for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        if parts[0][shared].lower() in _SPLIT_FOLDERS:
            break
        shared += 1
    return shared


def _first_size(images: object, source: Source) -> int:
    """min(84, shorter side) of the first image that can be read."""
    from PIL import Image

    assert isinstance(images, list)
    for name in images[:20]:
        try:
            with source.open(name) as file, Image.open(file) as image:
                return min(LARGEST, *image.size)
        except (*BROKEN, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
            continue
    raise UserError(f"the first images of {source.path.name} cannot be read, first {images[0]}; are these images?")


def _at_random(classes: Mapping[str, list[str]], seed: int, source: Source) -> list[PlannedClass]:
    names = sorted(classes)
    if len(names) < 3:
        raise UserError(f"{source.path.name} has {len(names)} classes; at least 3 are needed for train, val and test")
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(names)), kind="stable")
    train = max(1, round(SHARES[0] * len(names)))
    val = max(1, round(SHARES[1] * len(names)))
    train = min(train, len(names) - val - 1)
    split = {i: SPLITS[(rank >= train) + (rank >= train + val)] for rank, i in enumerate(order)}
    return [PlannedClass(name, s, classes[name]) for s in SPLITS for i, name in enumerate(names) if split[i] == s]


def _by_lists(classes: Mapping[str, list[str]], path: Path, source: Source) -> list[PlannedClass]:
    lists = read_lists(path)
    short = {label.rsplit("/", 1)[-1]: label for label in classes}
    planned, seen = [], set()
    for split, names in lists.items():
        for name in names:
            label = name if name in classes else short.get(name)
            if label is None:
                raise UserError(f"{path.name} lists the {split} class {name!r}, which {source.path.name} does not have")
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
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"split lists {path}: {error}; expected a JSON table or a folder of train.txt, val.txt, test.txt"
        ) from error
    return {split: list(lists[split]) for split in SPLITS}


def slug(path: Path) -> str:
    """A short name for a set read from a path."""
    stem = re.sub(r"(\.tar)?\.(zip|tar|gz|tgz|bz2|xz)$", "", path.resolve().name)
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.") or "folder"
