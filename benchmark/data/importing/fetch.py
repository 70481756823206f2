"""Downloading the public sets: Omniglot and CIFAR-100, from the addresses and with the checksums torchvision keeps.

A download that stops is resumed where it stopped; one whose checksum is wrong, or that turns out to be a web page, is
removed and refused. What was downloaded is removed once it is imported; its folder stays, with the lock that another
process may be waiting for.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmark.data.importing import ProgressCallback
from benchmark.data.writing import held
from benchmark.errors import UserError, nearest
from benchmark.files import settle

TIMEOUT_S = 30
_BLOCK = 1 << 18


def addresses(name: str) -> dict[str, tuple[str, str]]:
    """File name → (URL, md5) of a public data set."""
    if name in ("omniglot", "omniglot-rotated"):
        from torchvision.datasets import Omniglot

        return {
            f"{part}.zip": (f"{Omniglot.download_url_prefix}/{part}.zip", md5)
            for part, md5 in Omniglot.zips_md5.items()
        }
    if name in ("cifar-fs", "fc100"):
        from torchvision.datasets import CIFAR100

        return {CIFAR100.filename: (CIFAR100.url, CIFAR100.tgz_md5)}
    from benchmark.data.catalogue import ENTRIES, names

    if name in ENTRIES:
        raise UserError(f"{name} has no public address: {ENTRIES[name].how}")
    raise UserError(f"nothing to fetch for {name!r}{nearest(name, names())}; expected omniglot, cifar-fs or fc100")


@contextlib.contextmanager
def fetched(name: str, root: Path, progress: ProgressCallback | None = None) -> Iterator[Path]:
    """The downloaded file, or the folder of several; files are removed when the block ends well, else kept to go on."""
    files = addresses(name)
    folder = root / ".downloads" / Path(next(iter(files))).stem
    with held(folder):
        for file, (url, md5) in files.items():
            download(url, folder / file, md5, progress)
        yield folder if len(files) > 1 else folder / next(iter(files))
        for file in files:
            (folder / file).unlink(missing_ok=True)


def download(url: str, path: Path, md5: str, progress: ProgressCallback | None = None) -> None:
    """Fetch ``url`` into ``path``, resuming ``path.part``. Errors: :class:`UserError`."""
    if path.is_file() and _md5(path) == md5:
        return
    part = path.with_name(path.name + ".part")
    _receive(url, part, progress)
    found = _md5(part)
    if found != md5:
        part.unlink()
        raise UserError(f"{url} has checksum {found}, expected {md5}: a wrong or damaged file; removed, fetch again")
    settle(part, path)


def _receive(url: str, part: Path, progress: ProgressCallback | None) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if "text/html" in answer.headers.get("Content-Type", ""):
                raise UserError(
                    f"{url} answered with a web page, not a file; download it by hand and use `data import`"
                )
            resumed = answer.status == http.client.PARTIAL_CONTENT
            done = start if resumed else 0
            total = done + int(answer.headers.get("Content-Length") or 0)
            with open(part, "ab" if resumed else "wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, total)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # all of it is here already, or the checksum will say that it is not
            raise UserError(
                f"{url} answered {error.code} {error.reason}; download it by hand and use `data import`"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"fetching {url} stopped ({reason}); run the same command again to go on") from error
    if total and done < total:
        raise UserError(f"fetching {url} stopped at {done} of {total} bytes; run the same command again to go on")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
