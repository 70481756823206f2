"""What there is: the field's data sets by name, how to get each, and anybody's own folders by path."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.data.storage import SPLITS, Dataset, data_root, open_dataset, read_index
from benchmark.errors import MissingData, UserError, nearest

Root = str | os.PathLike[str] | None
LONGEST_NAME = 250  # bytes; file systems end at 255
COMMAND = "python -m benchmark data"


@dataclass(frozen=True)
class KnownDataset:
    """One data set of the literature. ``classes`` counts train / val / test, ``per_class`` the images of each."""

    name: str
    title: str
    channels: int
    size: int
    classes: tuple[int, int, int]
    per_class: int | None
    wants: str  # what PATH may be
    fetchable: bool = False
    image_format: dict[str, Any] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """How to get it, in one line."""
        fetch = f"`{COMMAND} fetch {self.name}`, or " if self.fetchable else ""
        return f"{fetch}`{COMMAND} import {self.name} PATH` (PATH: {self.wants})"


_CIFAR = "CIFAR-100 as class folders or as cifar-100-python, an archive or a folder"
ENTRIES = {
    entry.name: entry
    for entry in (
        KnownDataset(
            "miniimagenet",
            "miniImageNet (Vinyals et al. 2016; Ravi & Larochelle 2017)",
            3,
            84,
            (64, 16, 20),
            600,
            "mini-imagenet-cache-*.pkl, images with the CSVs, synset folders, an ILSVRC2012 train folder, or "
            "timm/mini-imagenet's Parquet files",
        ),
        KnownDataset(
            "tieredimagenet",
            "tieredImageNet (Ren et al. 2018)",
            3,
            84,
            (351, 97, 160),
            None,
            "the *_images_png.pkl and *_labels.pkl, or synset folders such as ILSVRC2012 train",
        ),
        KnownDataset("cifar-fs", "CIFAR-FS (Bertinetto et al. 2019)", 3, 32, (64, 16, 20), 600, _CIFAR, fetchable=True),
        KnownDataset("fc100", "FC100 (Oreshkin et al. 2018)", 3, 32, (60, 20, 20), 600, _CIFAR, fetchable=True),
        KnownDataset(
            "omniglot",
            "Omniglot (Lake et al. 2015; split of Vinyals et al. 2016)",
            1,
            28,
            (1028, 172, 423),
            20,
            "images_background and images_evaluation, zips or folders",
            fetchable=True,
            image_format={"invert": True},
        ),
        KnownDataset(
            "cub",
            "CUB-200-2011 (Wah et al. 2011; split of Chen et al. 2019)",
            3,
            84,
            (100, 50, 50),
            None,
            "CUB_200_2011.tgz or the folder in it",
            image_format={"margin": 12},
        ),
    )
}
ROTATED = "omniglot-rotated"
BUILT_IN = {
    "glyphs": "530 letters in 10 to 16 faces of the fonts matplotlib ships, distorted; drawn on first use",
    "sine": "sine regression (Finn et al. 2017), mean squared error; drawn from a formula",
}


def names() -> list[str]:
    """Every name that ``load`` knows without a path."""
    return [*BUILT_IN, *ENTRIES, ROTATED]


def load(name: str, root: Root = None, *, trusted: bool = False, **options: Any) -> Dataset:
    """Open a data set by name, or any folder or archive of class folders by its path.

    Options: ``rotations`` (omniglot; turns by 90° as further classes, the same as the name ``omniglot-rotated``); for
    a path ``image_size``, ``grey``, ``split_seed``, ``splits``. Errors: :class:`UserError` says how to get what is
    missing, or that a set is not what was imported; with `trusted` its pixels are not looked at.
    """
    base = data_root(root)
    rotations = bool(options.pop("rotations", False)) or name == ROTATED
    stored = "omniglot" if name == ROTATED else name
    if rotations and stored != "omniglot":
        raise UserError(f"rotations as new classes are an option of omniglot, not of {name}")
    if stored in BUILT_IN or stored in ENTRIES or _imported(base, stored):
        if options:
            raise UserError(f"data set {name} has no option {next(iter(options))!r}; set it where it is imported")
        dataset = _load_known(stored, base, trusted=trusted)
        return dataclasses.replace(dataset, name=ROTATED, rotations=4) if rotations else dataset
    if os.sep in name or name.startswith((".", "~")) or Path(name).exists():
        return _load_path(Path(name).expanduser(), base, options)
    custom = [entry["name"] for entry in available(root) if entry["state"] == "imported"]
    raise UserError(
        f"unknown data set {name!r}{nearest(name, [*names(), *custom])}; "
        f"expected one of {', '.join(names())}, or the path of a folder or archive of class folders"
    )


def _imported(base: Path, name: str) -> bool:
    return is_name(name) and (base / name / "index.json").is_file()


def is_name(name: str) -> bool:
    """Whether a set can have this name: letters, digits, dashes, dots and underscores, no dot or dash first."""
    return re.fullmatch(r"\w[\w.-]*", name) is not None and len(name.encode()) <= LONGEST_NAME


def _load_known(name: str, base: Path, *, trusted: bool) -> Dataset:
    if name == "glyphs":
        from benchmark.data.glyphs import load_glyphs

        return load_glyphs(base)
    if name == "sine":
        from benchmark.data.sine import load_sine

        return load_sine()
    dataset = open_dataset(base / name, trusted=trusted)
    if dataset is None:
        raise MissingData(f"data set {name!r} is not in {base}; get it by {ENTRIES[name].how}")
    return dataset


def _load_path(path: Path, base: Path, options: dict[str, Any]) -> Dataset:
    """Import a path on first use, under a key of where it lies, what it holds and the options; then open it."""
    from benchmark.data.importing.folders import slug
    from benchmark.data.importing.sources import Folder

    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"no data set, file or folder {str(path)!r}") from error
    content = Folder(path).version() if path.is_dir() else (found.st_size, found.st_mtime_ns)
    text = repr((str(path.resolve()), content, sorted((key, str(value)) for key, value in options.items())))
    key = f"{slug(path)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    dataset = open_dataset(base / key)
    if dataset is None:
        import_dataset(key, path, base, **options)
        dataset = open_dataset(base / key)
        assert dataset is not None
    return dataclasses.replace(dataset, name=f"{slug(path)}-{dataset.hash[:8]}")


def planner(name: str, options: dict[str, Any]) -> Callable[[Any], Any]:
    """The function source → plan of a data set."""
    from benchmark.data.importing import folders, formats, imagenet
    from benchmark.data.importing.decode import ImageFormat

    entry = ENTRIES.get(name)
    if entry is None:
        return lambda source: folders.folders(source, **options)
    if options:
        raise UserError(f"{name} is imported as the literature has it: no option {next(iter(options))!r}")
    image_format = ImageFormat(entry.channels, entry.size, **entry.image_format)
    if name in ("cifar-fs", "fc100"):
        return lambda source: formats.cifar(source, image_format, formats.class_lists(name), entry.title)
    return {
        "miniimagenet": lambda source: imagenet.mini_imagenet(source, image_format),
        "tieredimagenet": lambda source: imagenet.tiered_imagenet(source, image_format),
        "omniglot": lambda source: formats.omniglot(source, image_format),
        "cub": lambda source: formats.cub(source, image_format),
    }[name]


def import_dataset(
    name: str, path: str | os.PathLike[str], root: Root = None, *, progress: Any = None, **options: Any
) -> Any:
    """Import a set from what the user has; returns :class:`benchmark.data.importing.build.Imported`.

    A name of the catalogue is read by its official split; any other name becomes a set of its own from class folders,
    with the options of :func:`benchmark.data.importing.folders.folders`.
    """
    from benchmark.data.importing.archives import open_source
    from benchmark.data.importing.build import build

    name = "omniglot" if name == ROTATED else name
    if name in BUILT_IN:
        raise UserError(f"{name} is built in and needs no import")
    if not is_name(name):
        raise UserError(f"{name!r} cannot name a data set: letters, digits, dashes and dots, no path")
    if not str(path):
        raise UserError("the path to import is empty; give an archive or a folder")
    options = {key: value for key, value in options.items() if value is not None and value is not False}
    plan = planner(name, options)
    with open_source(Path(path).expanduser()) as source:
        return build(plan(source), source, data_root(root), name, progress)


def differences(dataset: Dataset) -> list[str]:
    """Where an imported set departs from the published counts of its name: one line each, none if it does not."""
    entry = ENTRIES.get(dataset.name)
    if entry is None:
        return []
    found = []
    for split, expected in zip(SPLITS, entry.classes, strict=True):
        count = sum(c.split == split for c in dataset.classes)
        if count != expected:
            found.append(f"{count} {split} classes where {entry.title} has {expected}")
    odd = [c for c in dataset.classes if entry.per_class is not None and c.count != entry.per_class]
    if odd:
        found.append(
            f"{len(odd)} classes without exactly {entry.per_class} images (first {odd[0].name!r}: {odd[0].count})"
        )
    return found


def available(root: Root = None) -> list[dict[str, Any]]:
    """Every known set, then the user's own: name, title, state (built in, imported, missing, damaged), how."""
    base = data_root(root)
    rows = [{"name": name, "title": title, "state": "built in", "how": ""} for name, title in BUILT_IN.items()]
    for entry in ENTRIES.values():
        rows.append({"name": entry.name, "title": entry.title, "state": _state(base / entry.name), "how": entry.how})
        if entry.name == "omniglot":
            title = "Omniglot with turns by 90° as classes of their own"
            rows.append({**rows[-1], "name": ROTATED, "title": title})
    own = sorted(path.parent.name for path in base.glob("*/index.json")) if base.is_dir() else []
    for name in own:
        if name not in names():
            rows.append({"name": name, "title": "your own", "state": _state(base / name), "how": ""})
    return rows


def _state(folder: Path) -> str:
    try:
        return "missing" if read_index(folder) is None else "imported"
    except UserError:
        return "damaged"
