"""How a data set lies on disk: one uint8 array, one index.

``<root>/<name>/images-<hash>.npy`` holds every image, class after class, ``[N, C, H, W]`` uint8, only ever mapped into
memory. ``<root>/<name>/index.json`` names that array and says what is in it. The array is written first and under
its own hash, and the index is replaced in one rename, so that a reader sees the old set or the new one, whole, and an
interrupted import leaves nothing behind but a ``.part`` file, which the next import removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.errors import UserError

try:  # POSIX; elsewhere imports of the same set are not kept apart, but each stays whole
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

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


@contextlib.contextmanager
def writing(root: Path, name: str) -> Iterator[Path]:
    """The folder of ``name``, held by this process alone; what an interrupted import left in it is removed first."""
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"cannot write to the data folder {folder} ({error.strerror}); choose one by --data-root or $BENCHMARK_DATA"
        ) from error
    with lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.glob("*.part"):
            stale.unlink(missing_ok=True)
        yield folder


class ArrayWriter:
    """Writes images ``[n, C, H, W]`` one chunk after another into a ``.npy`` whose length is known only at the end."""

    def __init__(self, folder: Path, image_shape: Sequence[int]) -> None:
        self.folder, self.image_shape, self.count = folder, tuple(image_shape), 0
        self.path = folder / f"images-{os.getpid()}-{secrets.token_hex(4)}.part"
        self._file = open(self.path, "xb")  # noqa: SIM115
        self._hash = hashlib.sha256(repr(self.image_shape).encode())
        self._file.write(b"\0" * _HEADER)

    def append(self, images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise ValueError(f"expected uint8 [n, {self.image_shape}], got {images.dtype} {images.shape}")
        block = np.ascontiguousarray(images).data
        self._file.write(block)
        self._hash.update(block)
        self.count += len(images)

    def close(self) -> tuple[str, Path]:
        """The content's hash and the finished array ``images-<hash>.npy``."""
        self._file.seek(0)
        self._file.write(_npy_header((self.count, *self.image_shape)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        digest = self._hash.hexdigest()
        final = self.folder / f"images-{digest[:16]}.npy"
        os.replace(self.path, final)
        return digest, final

    def abort(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


_HEADER = 128  # bytes of the .npy header, padded


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Version 1.0 of numpy's header, padded to a fixed length so that it can be written last."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11) + b"\n"


def write_index(
    folder: Path,
    name: str,
    array: Path,
    digest: str,
    image_shape: Sequence[int],
    classes: Sequence[ClassInfo],
    info: dict[str, Any],
) -> None:
    """Make the finished array the set: replace ``index.json`` in one rename, then remove arrays no index names."""
    index = {
        "schema": SCHEMA,
        "name": name,
        "hash": digest,
        "array": array.name,
        "image_shape": list(image_shape),
        "info": info,
        "classes": [
            {"name": c.name, "split": c.split, "count": c.count} | ({"groups": list(c.groups)} if c.groups else {})
            for c in classes
        ],
    }
    part = folder / "index.json.part"
    with open(part, "w") as file:
        json.dump(index, file, ensure_ascii=False, indent=None, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / "index.json")
    for old in folder.glob("images-*.npy"):
        if old != array:
            old.unlink(missing_ok=True)


def content_hash(images: np.ndarray) -> str:
    """sha256 of shape and bytes, as the writer computed it."""
    digest = hashlib.sha256(repr(tuple(int(n) for n in images.shape[1:])).encode())
    for start in range(0, len(images), 4096):
        digest.update(np.ascontiguousarray(images[start : start + 4096]).data)
    return digest.hexdigest()


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of an imported set, or None where there is none."""
    try:
        with open(folder / "index.json") as file:
            index = json.load(file)
        if index["schema"] != SCHEMA:
            raise KeyError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'index.json'} is not an index of this version; import the data set again"
        ) from error
    return index


def open_dataset(folder: Path) -> Dataset | None:
    """Map an imported set, or None where there is none. Reads the index only: instant whatever the set's size."""
    index = read_index(folder)
    if index is None:
        return None
    classes = tuple(ClassInfo(c["name"], c["split"], c["count"], tuple(c.get("groups", ()))) for c in index["classes"])
    shape = (sum(c.count for c in classes), *index["image_shape"])
    path = folder / index["array"]
    try:
        if path.stat().st_size != _HEADER + int(np.prod(shape)):
            raise ValueError("wrong size")
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError("wrong shape")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); import the data set again") from error
    if isinstance(images.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        images.base.madvise(mmap.MADV_RANDOM)
    return Dataset(index["name"], images, tuple(index["image_shape"]), classes, index["hash"], info=index["info"])


def store(root: Path, name: str, images: np.ndarray, classes: Sequence[ClassInfo], info: dict[str, Any]) -> None:
    """Store a set that fits in memory; larger ones go through :class:`ArrayWriter` chunk by chunk."""
    with writing(root, name) as folder:
        writer = ArrayWriter(folder, images.shape[1:])
        try:
            writer.append(images)
            digest, array = writer.close()
        except BaseException:
            writer.abort()
            raise
        write_index(folder, name, array, digest, images.shape[1:], classes, info)
