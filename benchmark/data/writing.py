"""The writing side of imported sets: a folder held by one process, an array that grows, nothing left when it fails."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from benchmark.data.intact import HEADER
from benchmark.errors import UserError
from benchmark.files import acquire, locked, settle


def held(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a folder of data, made where it is not, against other processes."""
    return locked(folder, kind="data folder", advice="choose one by --data-root or $BENCHMARK_DATA")


@contextlib.contextmanager
def writing(root: Path, name: str) -> Iterator[Path]:
    """The folder of ``name``, held by this process alone; what an interrupted import left in it is removed first."""
    folder = root / name
    with held(folder):
        for stale in folder.glob("*.part"):
            stale.unlink(missing_ok=True)
        _sweep(root, folder)
        yield folder


def _sweep(root: Path, mine: Path) -> None:
    """Remove what killed imports of other sets left, where no process holds their folder: it may be gigabytes."""
    for stale in root.glob("*/images-*.part"):
        if stale.parent != mine:
            with contextlib.suppress(OSError), open(stale.parent / ".lock", "a") as lock:
                if acquire(lock):
                    stale.unlink(missing_ok=True)


@contextlib.contextmanager
def written(root: Path, what: str) -> Iterator[None]:
    """A full disk, and whatever else keeps a set from being written, as one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk of {root} is full; nothing was imported, choose another --data-root") from error
        raise UserError(f"importing {what} failed ({error}); nothing was imported") from error


class ArrayWriter:
    """Writes images ``[C, H, W]`` at any position of a ``.npy`` whose length is known only at the end.

    Plain writes, not a writable map: a full disk is then an error that can be caught.
    """

    def __init__(self, folder: Path, image_shape: Sequence[int]) -> None:
        self.folder, self.image_shape = folder, tuple(int(n) for n in image_shape)
        self.bytes = int(np.prod(self.image_shape))
        self.path = folder / f"images-{os.getpid()}-{secrets.token_hex(4)}.part"
        self._file = open(self.path, "xb+", buffering=0)  # noqa: SIM115

    def write(self, position: int, images: np.ndarray) -> None:
        """Images ``[n, C, H, W]`` uint8 from ``position`` on."""
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise ValueError(f"expected uint8 [n, {self.image_shape}], got {images.dtype} {images.shape}")
        block = memoryview(np.ascontiguousarray(images).reshape(-1).data)
        self._file.seek(HEADER + position * self.bytes)
        while block:
            block = block[self._file.write(block) :]

    def close(self, count: int, drop: Sequence[int] = ()) -> tuple[str, Path]:
        """Keep the first ``count`` images less those at ``drop``: the pixels' sha256 and ``images-<hash>.npy``."""
        left_out, kept = set(drop), 0
        digest = hashlib.sha256(repr(self.image_shape).encode())
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            self._file.seek(HEADER + start * self.bytes)
            block = _read(self._file, (stop - start) * self.bytes)
            if left_out:  # close the gaps: what is read is always ahead of what is written
                keep = np.array([i not in left_out for i in range(start, stop)])
                block = np.frombuffer(block, np.uint8).reshape(-1, self.bytes)[keep].tobytes()
                self.write(kept, np.frombuffer(block, np.uint8).reshape(-1, *self.image_shape))
            digest.update(block)
            kept += len(block) // self.bytes
        self._file.truncate(HEADER + kept * self.bytes)
        self._file.seek(0)
        self._file.write(_npy_header((kept, *self.image_shape)))
        self._file.close()
        final = self.folder / f"images-{digest.hexdigest()[:16]}.npy"
        settle(self.path, final)
        return digest.hexdigest(), final

    def abort(self) -> None:
        """Remove what was written; nothing to do after ``close``."""
        self._file.close()
        self.path.unlink(missing_ok=True)


_BLOCK = 1024  # images read together when hashing


def _read(file: IO[bytes], count: int) -> bytes:
    block = file.read(count)
    while len(block) < count:
        more = file.read(count - len(block))
        if not more:
            raise OSError("the array being written is shorter than expected")
        block += more
    return block


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Version 1.0 of numpy's header, padded to a fixed length so that it can be written last."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11) + b"\n"
