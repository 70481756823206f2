"""Zips and tars, alone, in a folder, or one inside the other, read where they are.

An archive that holds an absolute path, a ``..``, a link or a device is refused before anything is read from it, and so
is one with too many members or one that expands to far more than its own size (a zip bomb).
"""

from __future__ import annotations

import contextlib
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

from benchmark.data.importing.decode import IMAGE_SUFFIXES
from benchmark.data.importing.sources import BROKEN, MAX_MEMBERS, Folder, Lone, Source, content
from benchmark.data.importing.tables import SUFFIX, Tables, table_files
from benchmark.errors import UserError

MAX_BYTES = 200 << 30  # expanded
MAX_RATIO, RATIO_FREE_BYTES = 200, 256 << 20  # expanded / archived, looked at beyond so many bytes
MAX_INNER = 16  # archives in an archive or folder that are looked into
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Zip(Source):
    """A zip. `file`: its bytes, seekable, where it is no file of its own; `packed` their number."""

    def __init__(self, path: Path, file: IO[bytes] | None = None, packed: int | None = None) -> None:
        self._file = file or open(path, "rb")  # noqa: SIM115
        with _closing_on_error(self._file):
            self._zip = zipfile.ZipFile(self._file)
            members = self._zip.infolist()
            for member in members:
                kind = stat.S_IFMT(member.external_attr >> 16)
                check_name(path, member.filename, regular=kind in (0, stat.S_IFREG, stat.S_IFDIR))
                if member.flag_bits & 1:
                    raise UserError(f"{path.name} is encrypted ({member.filename}); unpack it first")
            check_limits(path, len(members), sum(m.file_size for m in members), packed)
            folders = {m.filename.rstrip("/") for m in members if m.is_dir()}
            super().__init__(path, {m.filename: m.file_size for m in members if not m.is_dir()}, folders)

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(name)

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class Tar(Source):
    """A tar, compressed or not. Members are read in the order in which they lie: one pass for any number of files.

    Of members with one name the last counts, as for tar itself. `opened` gives its bytes from the start, where it is no
    file of its own; `packed` is their number.
    """

    def __init__(self, path: Path, opened: Callable[[], IO[bytes]] | None = None, packed: int | None = None) -> None:
        self._opened = opened or (lambda: open(path, "rb"))  # noqa: SIM115
        self._file = self._opened()
        with _closing_on_error(self._file):
            self._tar = tarfile.open(fileobj=self._file)  # noqa: SIM115
            self._places: dict[str, int] = {}  # file → offset of its last member
            sizes, folders = self._members(path, packed)
            super().__init__(path, sizes, folders)

    def _members(self, path: Path, packed: int | None) -> tuple[dict[str, int], set[str]]:
        sizes, folders, total = {}, set(), 0
        for count, member in enumerate(self._tar, 1):
            check_name(path, member.name, regular=member.isreg() or member.isdir())
            total += member.size
            check_limits(path, count, total, packed)
            if member.isreg():
                sizes[_clean(member.name)] = member.size
                self._places[_clean(member.name)] = member.offset
            else:
                folders.add(_clean(member.name))
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(self._tar.offset)
        if self._tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of archive")
        return sizes, folders

    def open(self, name: str) -> IO[bytes]:
        member = next(m for m in self._tar.getmembers() if m.offset == self._places[name])
        file = self._tar.extractfile(member)
        assert file is not None  # a regular file
        return file

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Exception]]:
        wanted = set(names)
        with self._opened() as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                name = _clean(member.name)
                if name in wanted and member.offset == self._places[name]:
                    wanted.discard(name)
                    found = tar.extractfile(member)
                    assert found is not None
                    try:
                        yield name, content(found, member.size)
                    except BROKEN as error:
                        yield name, error
                    if not wanted:
                        return

    def close(self) -> None:
        self._tar.close()
        self._file.close()


class Nested(Source):
    """Archives inside a folder or archive, each seen as a folder of its own name (Omniglot is published so)."""

    def __init__(self, outer: Source, inner: dict[str, Source]) -> None:
        sizes = {name: size for name, size in outer.sizes.items() if name not in inner}
        folders = set(outer.folders)
        for name, source in inner.items():
            sizes |= {f"{name}/{member}": size for member, size in source.sizes.items()}
            folders |= {f"{name}/{folder}" for folder in source.folders}
        super().__init__(outer.path, sizes, folders)
        self.left_out |= outer.left_out
        for name, source in inner.items():
            self.left_out |= {f"{name}/{member}": reason for member, reason in source.left_out.items()}
        self._outer, self._inner = outer, inner

    def open(self, name: str) -> IO[bytes]:
        source, own = self._place(name)
        return source.open(own)

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Exception]]:
        wanted: dict[int, tuple[Source, dict[str, str]]] = {}
        for name in names:
            source, own = self._place(name)
            wanted.setdefault(id(source), (source, {}))[1][own] = name
        for source, named in wanted.values():
            for own, found in source.stream(list(named)):
                yield named[own], found

    def _place(self, name: str) -> tuple[Source, str]:
        for prefix, source in self._inner.items():
            if name.startswith(prefix + "/"):
                return source, name[len(prefix) + 1 :]
        return self._outer, name

    def close(self) -> None:
        for source in (*self._inner.values(), self._outer):
            source.close()


@contextlib.contextmanager
def _closing_on_error(file: IO[bytes] | Source) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise


def check_name(path: Path, name: str, *, regular: bool) -> None:
    """Refuse an archive for a member that could reach outside it, or whose name cannot be written down."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise UserError(f"{path.name} holds the unsafe path {name!r}; nothing was imported")
    if not regular:
        raise UserError(f"{path.name} holds a link or device, {name!r}; nothing was imported")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UserError(f"{path.name} holds a name that is not UTF-8, {name!r}; nothing was imported")


def check_limits(path: Path, members: int, expanded: int, packed: int | None = None) -> None:
    """Refuse an archive that holds or expands to too much; `packed` are its own bytes, else those of the file."""
    if members > MAX_MEMBERS:
        raise UserError(f"{path.name} holds more than {MAX_MEMBERS} files; nothing was imported")
    if expanded > MAX_BYTES or (
        expanded > RATIO_FREE_BYTES and expanded > MAX_RATIO * (path.stat().st_size if packed is None else packed)
    ):
        raise UserError(f"{path.name} expands to more than {expanded >> 20} MiB, a zip bomb; nothing was imported")


def _clean(name: str) -> str:
    return name[2:] if name.startswith("./") else name


def open_source(path: Path) -> Source:
    """A folder, zip or tar (gz, bz2, xz), or tables in one or alone, whose rows are then its files.

    :class:`UserError` for anything else, and for unsafe or broken ones.
    """
    found = _opened(path)
    has_images = any(name.lower().endswith(IMAGE_SUFFIXES) for name in found.sizes)
    if has_images or not table_files(found):
        return found
    with _closing_on_error(found):
        return Tables(found)


def _opened(path: Path) -> Source:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"no file or folder {str(path)!r}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    expected = f"expected one of: a folder, {', '.join(ARCHIVES)}, {SUFFIX}"
    if stat.S_ISDIR(found.st_mode):
        return _with_inner(Folder(path))
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{str(path)!r} is a pipe, socket or device, and no file; {expected}")
    if path.suffix.lower() == SUFFIX:
        return Lone(path)
    try:
        if zipfile.is_zipfile(path):
            return _with_inner(Zip(path))
        if tarfile.is_tarfile(path):
            return _with_inner(Tar(path))
        with open(path, "rb") as file:
            head = file.read(6)
    except BROKEN as error:
        raise UserError(f"{path.name} is damaged or cut short ({error}); get it again") from error
    if head.startswith((b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
        raise UserError(f"{path.name} is damaged or cut short (no end of archive), or holds no archive; get it again")
    raise UserError(f"{str(path)!r} is no folder, zip or tar; {expected}")


def _with_inner(outer: Source) -> Source:
    """`outer` with the archives in it, unless it holds images of its own: archives beside those are their origin."""
    names = [name for name in outer.sizes if name.lower().endswith(ARCHIVES)]
    if not names or len(names) > MAX_INNER or any(name.lower().endswith(IMAGE_SUFFIXES) for name in outer.sizes):
        return outer
    inner: dict[str, Source] = {}
    name = ""
    try:
        for name in names:
            inner[name] = _inner(outer, name)
    except (*BROKEN, UserError) as error:
        for source in (*inner.values(), outer):
            source.close()
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} in {outer.path} is damaged or cut short ({error}); get it again") from error
    return Nested(outer, inner)


def _inner(outer: Source, name: str) -> Source:
    path, size = outer.path / name, outer.sizes[name]
    if name.lower().endswith(".zip"):
        return Zip(path, outer.open(name), size)
    return Tar(path, lambda: outer.open(name), size)
