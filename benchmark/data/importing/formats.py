"""The forms in which the field's data sets lie on people's disks, each recognised by what it holds.

Every function looks at a source's file names, decides which form it is, and returns an
:class:`benchmark.data.importing.build.ImportPlan`. Files are put in order by name, so that the same data in two forms
(an archive of pictures, a pickle with their file names) give the same array.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from benchmark.data.importing import unpickle
from benchmark.data.importing.build import ImportPlan, PlannedClass
from benchmark.data.importing.decode import IMAGE_SUFFIXES, ImageFormat
from benchmark.data.importing.sources import Source, read_text, reading
from benchmark.data.storage import SPLITS
from benchmark.errors import UserError

Lists = Mapping[str, Sequence[str]]  # split → class names
PICKLED = ("fc100", "cifar-fs", "miniimagenet", "tieredimagenet")  # sets that are shared as pickles by split
HALVES = ("images_background", "images_evaluation")  # of Omniglot


@cache
def split_rows(name: str) -> list[list[str]]:
    """Rows ``split class …`` of an official split."""
    text = resources.files("benchmark.data").joinpath(f"splits/{name}.txt").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines()]


def class_lists(name: str) -> dict[str, list[str]]:
    """Official class names by split."""
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, label, *rest in split_rows(name):
        if name == "omniglot":  # an alphabet and its first and last character
            first, last = map(int, rest)
            lists[split] += [f"{label}/character{number:02d}" for number in range(first, last + 1)]
        else:
            lists[split].append(label)
    return lists


def images_by(source: Source, label: Callable[[str], str]) -> dict[str, list[str]]:
    """Image files by class, each class in order of file name."""
    groups: dict[str, list[str]] = {}
    for name in source.sizes:
        if name.lower().endswith(IMAGE_SUFFIXES) and "/" in name:
            groups.setdefault(label(name), []).append(name)
    return {key: sorted(names, key=lambda n: (n.rsplit("/", 1)[1], n)) for key, names in groups.items()}


def parent(name: str) -> str:
    return name.split("/")[-2]


def listed(groups: Mapping[str, Any], lists: Lists, source: Source, what: str) -> list[PlannedClass]:
    """The classes of official lists; :class:`UserError` names those that are missing."""
    missing = [name for names in lists.values() for name in names if name not in groups]
    if missing:
        total = sum(map(len, lists.values()))
        raise UserError(
            f"{source.path.name} has {total - len(missing)} of the {total} classes of {what}; missing: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        )
    return [PlannedClass(name, split, groups[name]) for split, names in lists.items() for name in names]


def by_label(images: Any, labels: Sequence[int], names: Mapping[int, str], split: str) -> list[PlannedClass]:
    """Images and a label each, as pickles have them, gathered by class; order is kept."""
    labels_array = np.asarray(labels)
    if labels_array.ndim != 1 or len(labels_array) != len(images):
        raise UserError(f"the {split} pickle has {len(images)} images and labels of shape {labels_array.shape}")
    planned = []
    for label in np.unique(labels_array):
        rows = np.flatnonzero(labels_array == label)
        chosen = images[rows] if isinstance(images, np.ndarray) else [images[row] for row in rows]
        planned.append(PlannedClass(names.get(int(label), f"{split}-{int(label)}"), split, chosen))
    return planned


def load_pickle(source: Source, name: str, *keys: str) -> Any:
    """A pickle's content; with ``keys``, a table that has them all."""
    with reading(source, name) as file:
        content = unpickle.load(file, name)
    if keys and not (isinstance(content, dict) and all(key in content for key in keys)):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{name} is not of a known form: expected a table with {', '.join(keys)}, found {found}")
    return content


def pick(source: Source, pattern: str) -> dict[str, str]:
    """Split → file for the files whose base name matches ``pattern``, whose group 1 is the split."""
    found: dict[str, str] = {}
    for name in sorted(source.sizes):
        if match := re.fullmatch(pattern, name.rsplit("/", 1)[-1]):
            if match[1] in found:
                raise UserError(f"{source.path.name} has two files for {match[1]}: {found[match[1]]} and {name}")
            found[match[1]] = name
    return found


def complete(found: Mapping[str, str], source: Source) -> bool:
    """Whether there is a file for each split; some but not all is an error."""
    missing = [split for split in SPLITS if split not in found]
    if found and missing:
        raise UserError(f"{source.path.name} has {', '.join(found.values())} but no such file for {', '.join(missing)}")
    return bool(found)


def split_pickles(source: Source, image_format: ImageFormat, lists: Lists, what: str) -> ImportPlan | None:
    """One pickle a split with ``data`` ``[N, H, W, 3]`` and ``labels``, as many repositories share their sets.

    Nothing but the size of the images, the number of classes and their names where there are any tells one set from
    another: :class:`UserError` where they are not those of `what`. Of miniImageNet's
    ``…_train_phase_{train,val,test}`` the last two hold other images of the training classes, kept apart for
    pre-training; they are not part of the benchmark.
    """
    found = pick(source, r"(?!.*train_phase_(?:val|test))(?:.*_)?(train|val|test)(?:_ordered)?\.(?:pickle|pkl)")
    if not complete(found, source):
        return None

    def parts() -> Iterator[list[PlannedClass]]:
        for split in SPLITS:
            content = load_pickle(source, found[split], "data", "labels")
            names = {int(v): str(k) for k, v in (content.get("catname2label") or {}).items()}
            planned = by_label(content["data"], content["labels"], names, split)
            _require_set(planned, split, found[split], image_format.size, lists, what)
            yield planned

    return ImportPlan("split pickles (data, labels)", image_format, parts())


def _require_set(planned: Sequence[PlannedClass], split: str, file: str, size: int, lists: Lists, what: str) -> None:
    """:class:`UserError` unless images of ``size`` × ``size`` and the classes let a pickle be a split of `what`."""
    own = {name: where for where, names in lists.items() for name in names}
    for c in planned:
        for shape in {getattr(image, "shape", ()) for image in c.images}:
            if shape[:2] != (size, size):
                raise UserError(
                    f"{file} has images of shape {list(shape)}, expected {size}×{size} pixels as {what} has them; is "
                    "it of another set? Import it by that one's name"
                )
        if own.get(c.name, "" if re.fullmatch(r"n\d{8}", c.name) else c.split) != c.split:
            place = f"has in {own[c.name]}" if c.name in own else "does not have"
            raise UserError(
                f"{file} has the class {c.name}, which {what} {place}; is it of another set? "
                "Import it by that one's name"
            )
    count, due = len(planned), len(lists[split])
    for other in PICKLED:
        if count != due and count == len(class_lists(other)[split]):
            raise UserError(f"{file} has {count} classes as {other} has, not {due} as {what}; is it of {other}?")


def cifar(source: Source, image_format: ImageFormat, lists: Lists, what: str) -> ImportPlan:
    """CIFAR-100 as torchvision's python pickles or as class folders (train and test together), or split pickles."""
    if (plan := split_pickles(source, image_format, lists, what)) is not None:
        return plan
    metas = [name for name in source.sizes if name.rsplit("/", 1)[-1] == "meta"]
    for meta in metas:
        folder = meta[: -len("meta")]
        if folder + "train" in source.sizes and folder + "test" in source.sizes:
            return ImportPlan(
                "CIFAR-100 python pickles", image_format, iter([_cifar_pickles(source, folder, lists, what)])
            )
    groups = images_by(source, parent)
    return ImportPlan("class folders", image_format, iter([listed(groups, lists, source, what)]))


def _cifar_pickles(source: Source, folder: str, lists: Lists, what: str) -> list[PlannedClass]:
    names = load_pickle(source, folder + "meta", "fine_label_names")["fine_label_names"]
    halves = [load_pickle(source, folder + half, "data", "fine_labels", "filenames") for half in ("train", "test")]
    pixels = np.concatenate([half["data"] for half in halves])
    if pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise UserError(f"{folder}train: expected data of shape [N, 3072], got {list(pixels.shape)}")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, H, W, C]
    labels = np.concatenate([half["fine_labels"] for half in halves])
    files = [file.decode() if isinstance(file, bytes) else file for half in halves for file in half["filenames"]]
    order = np.array(sorted(range(len(files)), key=files.__getitem__))
    groups = {_text(name): images[order[labels[order] == label]] for label, name in enumerate(names)}
    return listed({name: found for name, found in groups.items() if len(found)}, lists, source, what)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def omniglot(source: Source, image_format: ImageFormat) -> ImportPlan:
    """``images_background`` and ``images_evaluation`` / alphabet / character / 20 drawings, as zips or folders.

    Omniglot's repository has ``images_background_small1`` and ``…_small2`` beside them: some of the drawings again.
    """

    def label(name: str) -> str:
        return "/".join(name.split("/")[-3:-1])

    groups = images_by(source, label)
    left_out: dict[str, str] = {}
    for character, names in groups.items():
        halves = [name for name in names if any(word.partition(".")[0] in HALVES for word in name.split("/"))]
        if halves:
            groups[character] = halves
            left_out |= dict.fromkeys(set(names) - set(halves), f"of classes that {' and '.join(HALVES)} have already")
    planned = listed(groups, class_lists("omniglot"), source, "Omniglot (background and evaluation)")
    for c in planned:
        for one, other in itertools.pairwise(map(str, c.images)):  # in order of file name
            if one.rpartition("/")[2] == other.rpartition("/")[2]:
                raise UserError(f"{source.path.name} has one drawing of {c.name} twice, {one} and {other}; keep one")
    return ImportPlan("alphabet / character folders", image_format, iter([planned]), left_out=left_out)


def cub(source: Source, image_format: ImageFormat) -> ImportPlan:
    """``CUB_200_2011`` with ``images.txt`` (the images it lists, no others) or just its class folders."""
    lists = class_lists("cub")
    index = next((name for name in source.sizes if name.rsplit("/", 1)[-1] == "images.txt"), None)
    if index is None:
        planned = listed(images_by(source, parent), lists, source, "CUB-200-2011")
        return ImportPlan("class folders", image_format, iter([planned]))
    folder = index[: -len("images.txt")] + "images/"
    groups: dict[str, list[str]] = {}
    for line in read_text(source, index).splitlines():
        if line.strip():
            path = line.split()[-1]
            groups.setdefault(path.split("/")[0], []).append(folder + path)
    lost = [name for names in groups.values() for name in names if name not in source.sizes]
    if lost:
        raise UserError(f"images.txt lists {len(lost)} images that {source.path.name} does not have, first {lost[0]}")
    groups = {name: sorted(names) for name, names in groups.items()}
    return ImportPlan(
        "CUB_200_2011 with images.txt", image_format, iter([listed(groups, lists, source, "CUB-200-2011")])
    )


def unique(planned: Iterable[PlannedClass], taken: set[str]) -> list[PlannedClass]:
    """ImageNet has two cranes: a name met again gets its split and a number."""
    result = []
    for c in planned:
        name, number = c.name, 2
        while name in taken:
            name, number = f"{c.name} ({c.split} {number})", number + 1
        taken.add(name)
        result.append(PlannedClass(name, c.split, c.images))
    return result
