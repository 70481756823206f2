"""How a data set lies on disk: one uint8 array, one index.

``<root>/<name>/images-<hash>.npy`` holds every image, class after class, ``[N, C, H, W]`` uint8, only ever mapped into
memory. ``<root>/<name>/index.json`` names that array and says what is in it. The array is written first and under its
own hash, and the index is replaced in one rename, so that a reader sees the old set or the new one, whole (one that
read the index before and finds its array gone reads the index again), and an interrupted import leaves nothing behind
but a ``.part`` file, which the next import removes. Opening a set finds out whether it is still what was imported
(:mod:`benchmark.data.intact`).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.intact import HEADER, pixel_digest, record
from benchmark.data.writing import ArrayWriter, written
from benchmark.errors import UserError
from benchmark.files import write_atomic

SCHEMA = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassInfo:
    """One class. ``groups`` are the sizes of runs of images that belong together (a glyph's faces), else empty."""

    name: str
    split: str
    count: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by class. ``images`` is uint8 ``[N, C, H, W]``, memory-mapped, class after class as in ``classes``.

    ``kind`` is ``"images"`` or ``"regression"`` (no images: tasks are drawn from a formula). With ``rotations`` = 4
    every stored class stands for four, itself and its turns by 90°, 180° and 270°.
    """

    name: str
    images: np.ndarray
    image_shape: tuple[int, ...]
    classes: tuple[ClassInfo, ...]
    hash: str
    kind: str = "images"
    rotations: int = 1
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, list[str]]:
        """Class names by split; rotated classes are called ``name@90``, ``name@180``, ``name@270``."""
        turns = [""] + [f"@{90 * turn}" for turn in range(1, self.rotations)]
        return {s: [c.name + turn for c in self.classes if c.split == s for turn in turns] for s in SPLITS}


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of imported sets: ``root``, else ``$BENCHMARK_DATA``, else the user's cache folder (XDG)."""
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("BENCHMARK_DATA"):
        return Path(os.environ["BENCHMARK_DATA"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "inner-optimizer-benchmark"


def write_index(folder: Path, name: str, array: Path, pixels: str, classes: Sequence[ClassInfo], **rest: Any) -> None:
    """Make the finished array the set: replace ``index.json`` in one rename, then remove arrays no index names.

    ``rest``: ``image_shape`` and ``info``. The set's hash covers pixels, class names, order and split.
    """
    listed: list[dict[str, Any]] = [
        {"name": c.name, "split": c.split, "count": c.count} | ({"groups": list(c.groups)} if c.groups else {})
        for c in classes
    ]
    index = {"schema": SCHEMA, "name": name, "hash": set_hash(pixels, classes), "array": array.name}
    text = json.dumps(index | rest | {"classes": listed}, ensure_ascii=False, separators=(",", ":"))
    write_atomic(folder / "index.json", text.encode())
    record(array, pixels)
    for old in folder.glob("images-*.npy"):
        if old != array:
            old.unlink(missing_ok=True)


def set_hash(pixels: str, classes: Sequence[ClassInfo]) -> str:
    """sha256 of the pixels' hash and of every class's name, split, count and groups."""
    text = json.dumps([pixels, [[c.name, c.split, c.count, list(c.groups)] for c in classes]])
    return hashlib.sha256(text.encode()).hexdigest()


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of an imported set, or None where there is none."""
    try:
        with open(folder / "index.json", encoding="utf-8") as file:
            index = json.load(file)
        _check_index(index)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{folder / 'index.json'} is not an index of this version; import the data set again"
        ) from error
    return index


def _check_index(index: Any) -> None:
    """ValueError, or another plain error, unless the index has the fields that :func:`write_index` writes."""
    if index["schema"] != SCHEMA or not all(isinstance(index[key], str) for key in ("name", "hash", "array")):
        raise ValueError("schema, name, hash or array")
    shape, classes = index["image_shape"], index["classes"]
    if index["array"] != Path(index["array"]).name or not isinstance(index["info"], dict):
        raise ValueError("array or info")
    if not isinstance(shape, list) or len(shape) != 3 or not all(_is_count(n) for n in shape):
        raise ValueError("image_shape")
    if not isinstance(classes, list):
        raise ValueError("classes")
    for c in classes:
        groups = c.get("groups", [c["count"]])
        if not isinstance(c["name"], str) or c["split"] not in SPLITS or not _is_count(c["count"]):
            raise ValueError("classes")
        if not all(_is_count(n) for n in groups) or sum(groups) != c["count"]:
            raise ValueError("groups")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40


def open_dataset(folder: Path, *, trusted: bool = False) -> Dataset | None:
    """Map an imported set, or None where there is none. :class:`UserError` if it is not what was imported.

    The pixels are read only where this version of the file was not read before; with `trusted` not even then.
    """
    index = read_index(folder)
    while index is not None:
        path = folder / index["array"]
        try:
            return _mapped(path, index, trusted=trusted)
        except (OSError, ValueError) as error:
            now = read_index(folder) if isinstance(error, FileNotFoundError) else index
            if now is not None and now["array"] == index["array"]:
                raise UserError(f"{path} is missing or damaged ({error}); import the data set again") from error
            index = now  # an import has replaced the set since its index was read
    return None


def _mapped(path: Path, index: dict[str, Any], *, trusted: bool) -> Dataset:
    """The set of an index whose array is at `path`. ValueError, or an OSError, if that is not what was imported."""
    classes = tuple(ClassInfo(c["name"], c["split"], c["count"], tuple(c.get("groups", ()))) for c in index["classes"])
    shape = (sum(c.count for c in classes), *index["image_shape"])
    if path.stat().st_size != HEADER + int(np.prod(shape)):
        raise ValueError("wrong size")
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError("wrong shape")
    if not trusted and set_hash(pixel_digest(path, shape[1:]), classes) != index["hash"]:
        raise ValueError(f"its SHA-256 is not that of {path.parent.name}/index.json")
    if isinstance(images.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        images.base.madvise(mmap.MADV_RANDOM)
    return Dataset(index["name"], images, tuple(index["image_shape"]), classes, index["hash"], info=index["info"])


def store(folder: Path, name: str, images: np.ndarray, classes: Sequence[ClassInfo], info: dict[str, Any]) -> None:
    """Store a set that fits in memory in a folder held by :func:`writing`."""
    with written(folder.parent, name):
        writer = ArrayWriter(folder, images.shape[1:])
        try:
            writer.write(0, images)
            pixels, array = writer.close(len(images))
        finally:
            writer.abort()
        write_index(folder, name, array, pixels, classes, image_shape=list(images.shape[1:]), info=info)
