"""Reading a folder, a zip or a tar as people have them, without unpacking and without trust.

A :class:`Source` lists its files and reads them; nothing is ever extracted to disk. An archive that holds an absolute
path, a ``..``, a link or a device is refused before anything is read from it, and so is one with too many members or
one that expands to far more than its own size (a zip bomb).
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
MAX_BYTES = 200 << 30  # expanded
MAX_RATIO, RATIO_FREE_BYTES = 200, 256 << 20  # expanded / archived, looked at beyond so many bytes
MAX_IMAGE_BYTES = 64 << 20
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)


class Source:
    """Files by name, ``/`` between folders. ``sizes`` maps each to its size in bytes."""

    def __init__(self, path: Path, sizes: dict[str, int]) -> None:
        self.path, self.sizes = path, sizes

    def open(self, name: str) -> IO[bytes]:
        raise NotImplementedError

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Exception]]:
        """(name, content) of the wanted files, in whatever order is quickest; an unreadable file gives its error."""
        for name in names:
            try:
                with self.open(name) as file:
                    yield name, _content(file, self.sizes[name])
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


def _content(file: IO[bytes], size: int) -> bytes:
    """A file's bytes, never more than it said it had."""
    if size > MAX_IMAGE_BYTES:
        raise OSError(f"{size} bytes, more than the {MAX_IMAGE_BYTES} an image may have")
    content = file.read(size + 1)
    if len(content) != size:
        raise OSError(f"expected {size} bytes, found {'more' if len(content) > size else len(content)}")
    return content


class Folder(Source):
    """A plain folder; links are followed, each folder once."""

    def __init__(self, path: Path) -> None:
        sizes, seen = {}, set()
        for top, folders, files in os.walk(path, followlinks=True):
            real = os.path.realpath(top)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            prefix = os.path.relpath(top, path)
            prefix = "" if prefix == "." else prefix.replace(os.sep, "/") + "/"
            with os.scandir(top) as entries:
                sizes.update({prefix + e.name: e.stat().st_size for e in entries if e.name in files and e.is_file()})
        super().__init__(path, _useful(sizes))

    def open(self, name: str) -> IO[bytes]:
        return open(self.path / name, "rb")


class Zip(Source):
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        with _closing_on_error(self._zip):
            super().__init__(path, self._sizes(path))

    def _sizes(self, path: Path) -> dict[str, int]:
        members = self._zip.infolist()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            check_name(path, member.filename, regular=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if member.flag_bits & 1:
                raise UserError(f"{path.name} is encrypted ({member.filename}); unpack it first")
        check_limits(path, len(members), sum(m.file_size for m in members))
        return _useful({m.filename: m.file_size for m in members if not m.is_dir()})

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(name)

    def close(self) -> None:
        self._zip.close()


class Tar(Source):
    """A tar, compressed or not. Members are read in the order in which they lie: one pass for any number of files."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115
        with _closing_on_error(self._tar):
            super().__init__(path, self._sizes(path))

    def _sizes(self, path: Path) -> dict[str, int]:
        sizes, total = {}, 0
        for count, member in enumerate(self._tar, 1):
            check_name(path, member.name, regular=member.isreg() or member.isdir())
            total += member.size
            check_limits(path, count, total)
            if member.isreg():
                sizes[_clean(member.name)] = member.size
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(self._tar.offset)
        if self._tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of archive")
        return _useful(sizes)

    def open(self, name: str) -> IO[bytes]:
        member = next(m for m in self._tar.getmembers() if m.isreg() and _clean(m.name) == name)
        file = self._tar.extractfile(member)
        assert file is not None  # a regular file
        return file

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Exception]]:
        wanted = set(names)
        with tarfile.open(self.path) as tar:
            for member in tar:
                name = _clean(member.name)
                if name in wanted:
                    wanted.discard(name)
                    file = tar.extractfile(member)
                    assert file is not None
                    try:
                        yield name, _content(file, member.size)
                    except BROKEN as error:
                        yield name, error

    def close(self) -> None:
        self._tar.close()


class Nested(Source):
    """Zips inside a folder or archive, each seen as a folder of its own name (Omniglot is published so)."""

    def __init__(self, outer: Source, inner: dict[str, Source]) -> None:
        sizes = {name: size for name, size in outer.sizes.items() if name not in inner}
        for name, source in inner.items():
            sizes |= {f"{name}/{member}": size for member, size in source.sizes.items()}
        super().__init__(outer.path, sizes)
        self._outer, self._inner = outer, inner

    def open(self, name: str) -> IO[bytes]:
        for prefix, source in self._inner.items():
            if name.startswith(prefix + "/"):
                return source.open(name[len(prefix) + 1 :])
        return self._outer.open(name)

    def close(self) -> None:
        for source in (*self._inner.values(), self._outer):
            source.close()


@contextlib.contextmanager
def _closing_on_error(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[None]:
    try:
        yield
    except BaseException:
        archive.close()
        raise


def check_name(path: Path, name: str, *, regular: bool) -> None:
    """Refuse an archive for a member that could reach outside it."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise UserError(f"{path.name} holds the unsafe path {name!r}; nothing was imported")
    if not regular:
        raise UserError(f"{path.name} holds a link or device, {name!r}; nothing was imported")


def check_limits(path: Path, members: int, expanded: int) -> None:
    """Refuse an archive that holds or expands to too much."""
    if members > MAX_MEMBERS:
        raise UserError(f"{path.name} holds more than {MAX_MEMBERS} files; nothing was imported")
    if expanded > MAX_BYTES or (expanded > RATIO_FREE_BYTES and expanded > MAX_RATIO * path.stat().st_size):
        raise UserError(f"{path.name} expands to more than {expanded >> 20} MiB, a zip bomb; nothing was imported")


def _clean(name: str) -> str:
    return name[2:] if name.startswith("./") else name


def _useful(sizes: dict[str, int]) -> dict[str, int]:
    """Less what systems leave in archives and folders: ``__MACOSX``, ``._x``, ``.DS_Store``, ``Thumbs.db``."""
    hidden = re.compile(r"(^|/)(__MACOSX/|\.|Thumbs\.db$)")
    return {name: size for name, size in sizes.items() if not hidden.search(name)}


def open_source(path: Path) -> Source:
    """A folder, zip or tar (gz, bz2, xz); :class:`UserError` for anything else, and for unsafe or broken archives."""
    if not path.exists():
        raise UserError(f"no file or folder {str(path)!r}")
    if path.is_dir():
        return _with_zips(Folder(path))
    try:
        if zipfile.is_zipfile(path):
            return Zip(path)
        if tarfile.is_tarfile(path):
            return Tar(path)
    except BROKEN as error:
        raise UserError(f"{path.name} is damaged or cut short ({error}); get it again") from error
    raise UserError(f"{str(path)!r} is no folder, zip or tar; expected one of: a folder, {', '.join(ARCHIVES)}")


def _with_zips(folder: Folder) -> Source:
    zips = [name for name in folder.sizes if name.lower().endswith(".zip")]
    if not zips or len(zips) > 16:
        return folder
    try:
        return Nested(folder, {name: Zip(folder.path / name) for name in zips})
    except BROKEN as error:
        raise UserError(f"a zip in {folder.path} is damaged or cut short ({error}); get it again") from error


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
