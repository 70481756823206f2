"""Reading a folder, a zip or a tar as people have them, without unpacking and without trust.

A :class:`Source` lists its files and reads them; nothing is ever extracted to disk. Whatever a source has and cannot
give (a link to nothing, a device, a hidden file) it names with the reason in ``left_out``, so that an import can
account for everything that was there. Archives are in :mod:`benchmark.data.importing.archives`.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from benchmark.errors import UserError

MAX_MEMBERS = 3_000_000
MAX_IMAGE_BYTES = 64 << 20
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)
HIDDEN = "hidden, or left there by the system"


class Source:
    """Files by name, ``/`` between folders.

    ``sizes`` maps each file to its size in bytes, ``folders`` are all folders, and ``left_out`` maps what the source
    cannot give to the reason.
    """

    def __init__(self, path: Path, sizes: dict[str, int], folders: Collection[str] = ()) -> None:
        self.path, self.folders = path, set(folders)
        self.left_out = {name: HIDDEN for name in sizes if is_hidden(name)}
        self.sizes = {name: size for name, size in sizes.items() if name not in self.left_out}

    def open(self, name: str) -> IO[bytes]:
        raise NotImplementedError

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Exception]]:
        """(name, content) of the wanted files, in whatever order is quickest; an unreadable file gives its error."""
        for name in names:
            try:
                with self.open(name) as file:
                    yield name, content(file, self.sizes[name])
            except BROKEN as error:
                yield name, error

    def fingerprint(self) -> str:
        """sha256 of an archive's bytes; of a folder, its file names and sizes."""
        if self.path.is_dir():
            return hashlib.sha256(repr(sorted(self.sizes.items())).encode()).hexdigest()
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def content(file: IO[bytes], size: int) -> bytes:
    """A file's bytes, never more than it said it had."""
    if size > MAX_IMAGE_BYTES:
        raise OSError(f"{size} bytes, more than the {MAX_IMAGE_BYTES} an image may have")
    found = file.read(size + 1)
    if len(found) != size:
        raise OSError(f"expected {size} bytes, found {'more' if len(found) > size else len(found)}")
    return found


class Folder(Source):
    """A plain folder; links are followed, each folder once. A folder that cannot be read is a :class:`UserError`.

    ``times`` are the times at which its files were last changed, in ns.
    """

    def __init__(self, path: Path) -> None:
        self.times: dict[str, int] = {}
        sizes: dict[str, int] = {}
        folders: set[str] = set()
        left_out: dict[str, str] = {}
        seen = _system_folders()
        if (first := path.stat()) and (first.st_dev, None) in seen:
            raise UserError(f"{path} is a folder of the system and holds no data; name a folder of images")
        due, seen = [("", path)], seen | {(first.st_dev, first.st_ino)}
        while due:
            prefix, folder = due.pop()
            below = []
            for entry in _entries(folder, path):
                name = prefix + _utf8(entry.name, path)
                try:
                    found = entry.stat()
                except OSError as error:
                    left_out[name] = "a link to nothing" if entry.is_symlink() else str(error.strerror)
                    continue
                if stat.S_ISDIR(found.st_mode):
                    if is_hidden(name + "/"):
                        left_out[name + "/"] = HIDDEN
                    elif (found.st_dev, None) in seen or (found.st_dev, found.st_ino) in seen:
                        left_out[name + "/"] = "a folder of the system, or one met already under another name"
                    else:
                        seen.add((found.st_dev, found.st_ino))
                        folders.add(name)
                        below.append((name + "/", folder / entry.name))
                elif stat.S_ISREG(found.st_mode):
                    sizes[name], self.times[name] = found.st_size, found.st_mtime_ns
                else:
                    left_out[name] = "no file (a pipe, socket or device)"
            if len(sizes) + len(folders) + len(left_out) > MAX_MEMBERS:
                raise UserError(f"{path} holds more than {MAX_MEMBERS} files; name the folder of images itself")
            due += reversed(below)
        super().__init__(path, sizes, folders)
        self.left_out |= left_out

    def open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb")

    def version(self) -> str:
        """sha256 of names, sizes and times: another one where any file was changed."""
        listed = sorted((name, size, self.times[name]) for name, size in self.sizes.items())
        return hashlib.sha256(repr(listed).encode()).hexdigest()


class Lone(Source):
    """A single file, as the only one of a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, {path.name: path.stat().st_size})

    def open(self, name: str) -> IO[bytes]:
        return open(self.path, "rb")


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        shown = _utf8(str(folder), root)
        raise UserError(
            f"folder {shown} cannot be read ({error.strerror}); make it readable or take it away, nothing was imported"
        ) from error


def _utf8(name: str, root: Path) -> str:
    """`name`, unless it is none that can be written down."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the name {name!a} in {ascii(str(root))[1:-1]} is not UTF-8; rename it, nothing was imported"
        ) from error
    return name


def _system_folders() -> set[tuple[int, int | None]]:
    """The devices of file systems that the kernel makes up: they hold no data, and some lead to everywhere else."""
    devices = set()
    for place in ("/proc", "/sys"):
        with contextlib.suppress(OSError):
            if os.path.ismount(place):
                devices.add((os.stat(place).st_dev, None))
    return devices  # type: ignore[return-value]


_SYSTEM = re.compile(r"(^|/)(__MACOSX/|\.|Thumbs\.db$|desktop\.ini$)")


def is_hidden(name: str) -> bool:
    """What systems leave in archives and folders: ``__MACOSX/``, ``._x``, ``.DS_Store``, ``Thumbs.db``."""
    return _SYSTEM.search(name) is not None


@contextlib.contextmanager
def reading(source: Source, name: str) -> Iterator[IO[bytes]]:
    """One file opened for reading; damage becomes a :class:`UserError` that names it."""
    try:
        with source.open(name) as file:
            yield file
    except BROKEN as error:
        raise UserError(f"{name} in {source.path.name} cannot be read ({error})") from error


def read_text(source: Source, name: str) -> str:
    """A small text file."""
    with reading(source, name) as file:
        return file.read(MAX_IMAGE_BYTES).decode("utf-8-sig", errors="replace")
