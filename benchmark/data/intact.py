"""Is the array on disk the one that was imported? It is read once for each version of the file, not once for each use.

The SHA-256 of the pixels is kept beside the array in ``verified.json`` with the version of the file that it was taken
of: size, times and inode. An import writes it; a set that was copied, moved or damaged since has another version, and
is read again when it is opened. ``data verify`` always reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.errors import UserError
from benchmark.files import read_json, write_atomic

HEADER = 128  # bytes of the .npy header, padded
VERIFIED = "verified.json"
_BLOCK, _IMAGES = 16 << 20, 1024  # bytes, and images, read together

_known: dict[tuple[str, tuple[int, ...]], str] = {}
"""What this process has found: for folders that cannot be written."""


def pixel_digest(array: Path, image_shape: Sequence[int]) -> str:
    """The SHA-256 of an array's shape and pixels, as it was found for this version of the file."""
    version = _version(array)
    key = str(array), version
    if key not in _known:
        found = _recorded(array, version)
        _known[key] = found or read_digest(array, image_shape)
        if found is None:
            record(array, _known[key])
    return _known[key]


def read_digest(array: Path, image_shape: Sequence[int]) -> str:
    """The SHA-256 of shape and pixels, read from the file now."""
    digest = hashlib.sha256(repr(tuple(int(n) for n in image_shape)).encode())
    with open(array, "rb", buffering=0) as file:
        file.seek(HEADER)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def pixel_hash(images: np.ndarray) -> str:
    """The same of images ``[N, C, H, W]`` as they are in memory."""
    digest = hashlib.sha256(repr(tuple(int(n) for n in images.shape[1:])).encode())
    for start in range(0, len(images), _IMAGES):
        digest.update(np.ascontiguousarray(images[start : start + _IMAGES]).data)
    return digest.hexdigest()


def record(array: Path, digest: str) -> None:
    """Keep `digest` as that of the array as it is now, where the folder can be written."""
    content = {"array": array.name, "version": list(_version(array)), "pixels": digest}
    with contextlib.suppress(UserError):  # a folder of somebody else: each process reads the array once
        write_atomic(array.with_name(VERIFIED), json.dumps(content).encode())


def _recorded(array: Path, version: tuple[int, ...]) -> str | None:
    with contextlib.suppress(UserError):
        found = read_json(array.with_name(VERIFIED))
        if found.get("array") == array.name and found.get("version") == list(version):
            return str(found.get("pixels"))
    return None


def _version(array: Path) -> tuple[int, ...]:
    found = os.stat(array)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
