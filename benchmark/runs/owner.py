"""Who is at a run: one process at a time, whichever of the machines that share the folder it is on.

Two means, because neither is enough alone. The lock of ``run.lock`` binds all processes under one kernel and ends with
its holder; over NFS it may bind nobody on another machine. So an owner also makes a claim, a file that says who it is::

    owner.<n>.claim    host, kernel (its boot id), pid, Slurm job and restarts, whether it was given back

Generation n + 1 is made by linking a whole file to a name that must not be there, which one process alone can do, on
NFS too. The highest generation is the owner, and its file is never removed, so that generations only grow. An owner
touches its claim every :data:`BEAT_S` seconds, and looks before it writes whether the claim is still the highest.

A claim that was not given back is *over* when its process is known to be gone: it was under this kernel, whose lock is
free; or its job has ended or begun again; or, where nothing else is known, it has been silent for :data:`LEASE_S`.
Times are compared by the clock of the file system alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from benchmark.errors import UserError
from benchmark.files import PART, acquire
from benchmark.runs import slurm

LOCK = "run.lock"

BEAT_S = 5.0
"""How often an owner touches its claim."""

QUIET_S = 20.0
"""How long one must have been silent whose job is over: the scheduler may not reach a node whose processes live on."""

LEASE_S = 180.0
"""How long one must have been silent of whom nothing else is known: longer than what NFS may hold back."""


class TakenOver(UserError):
    """Another process owns the run by now: this one was taken for dead."""


@dataclass(frozen=True)
class Owner:
    """A claim, read."""

    generation: int
    host: str = ""
    kernel: str = ""
    pid: int = 0
    job: str = ""
    label: str = ""
    restarts: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"{self.host}, job {self.label}" if self.label else f"{self.host}, process {self.pid}"


def _here(generation: int) -> Owner:
    job = slurm.this_job()
    where = {"job": job.id, "label": job.label, "restarts": job.restarts} if job else {}
    return Owner(generation, socket.gethostname(), kernel(), os.getpid(), **where)  # type: ignore[arg-type]


def kernel() -> str:
    """What differs between machines, and between two starts of one; locks hold within it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return socket.gethostname()


def latest(folder: Path) -> Owner | None:
    """The claim of the highest generation in a run's folder."""
    generation = max(_generations(folder), default=0)
    if not generation:
        return None
    try:
        fields = json.loads(_claim(folder, generation).read_bytes())
        return Owner(**{**fields, "generation": generation})
    except (OSError, ValueError, TypeError):  # of another version, or cut by a power failure: known by its age alone
        return Owner(generation)


def standing(folder: Path) -> tuple[str, Owner | None]:
    """``free``, ``held`` by a process that lives, or ``silent``: not known yet, time will tell; and the owner."""
    owner = latest(folder)
    try:
        with _opened(folder / LOCK) as lock:
            free = _try(lock, shared=True)  # or two who look at once would take each other for an owner
    except FileNotFoundError:
        return "free", owner
    except OSError:
        free = None
    return ("held" if free is False else _judge(folder, owner, locked=bool(free))), owner


def take(folder: Path, lock: IO[str]) -> Holding | None:
    """Own the run whose open lock file this is, or None while another process does, or may."""
    free = _try(lock)
    if free is False:
        return None
    owner = latest(folder)
    if _judge(folder, owner, locked=bool(free)) == "free":
        claim = Holding(folder, _here(1 + (owner.generation if owner else 0)))
        if claim.make():
            return claim
    if free:
        _unlock(lock)
    return None


class Holding:
    """The claim of this process to a run."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self.folder, self.owner = folder, owner

    @property
    def path(self) -> Path:
        return _claim(self.folder, self.owner.generation)

    def make(self) -> bool:
        """Whether the claim is ours: nobody made it before, and there is none higher."""
        try:
            with self._written(self.owner) as written:
                _link(written, self.path)
        except (FileExistsError, FileNotFoundError):  # another one was first, and removed what it found half written
            return False
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from error
        others = [each for each in _generations(self.folder) if each != self.owner.generation]
        if others and max(others) > self.owner.generation:
            self.path.unlink(missing_ok=True)
            return False
        for each in others:
            _claim(self.folder, each).unlink(missing_ok=True)
        return True

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Touch the claim within the block, and give it back at its end."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                with contextlib.suppress(OSError):  # gone, if it was taken over: require() says so
                    os.utime(self.path)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(OSError):  # a full disk: then it counts as silent
                self._give_back()

    def require(self) -> None:
        """:class:`TakenOver` unless the claim is still the highest."""
        try:
            found = max(_generations(self.folder), default=0)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read ({error.strerror})") from error
        if found != self.owner.generation:
            now = latest(self.folder) or "nobody"
            raise TakenOver(f"{self.folder.name}: is owned by {now} now, which took this process for dead")

    def _give_back(self) -> None:
        if max(_generations(self.folder), default=0) == self.owner.generation:
            with self._written(Owner(**{**asdict(self.owner), "released": True})) as written:
                os.rename(written, self.path)

    @contextlib.contextmanager
    def _written(self, owner: Owner) -> Iterator[Path]:
        path = self.folder / f".claim.{secrets.token_hex(8)}{PART}"
        try:
            path.write_text(json.dumps(asdict(owner)) + "\n")
            yield path
        finally:
            path.unlink(missing_ok=True)


def _judge(folder: Path, owner: Owner | None, *, locked: bool) -> str:
    """``free``, ``held`` or ``silent``; `locked`: the lock was free and is ours, so that nobody here is at the run."""
    if owner is None or owner.released or (locked and owner.kernel == kernel()):
        return "free"
    silent_s = _silent_s(folder, owner)
    asked, job = slurm.find(owner.job) if owner.job else (False, None)
    if asked:
        if job is None or job.state == "PENDING" or job.restarts > owner.restarts:
            return "free" if silent_s > QUIET_S else "silent"
        if job.state != "RUNNING":  # suspended, say, or on its way out
            return "held"
    if silent_s > LEASE_S:
        return "free"
    return "held" if silent_s < QUIET_S else "silent"


def _silent_s(folder: Path, owner: Owner) -> float:
    """Seconds since the claim was touched, by the clock of the file system where it can be asked."""
    try:
        with open(_claim(folder, owner.generation), "rb") as file:  # NFS asks its server when a file is opened
            touched = os.fstat(file.fileno()).st_mtime
    except OSError:
        return 0.0
    probe = folder / f".clock.{secrets.token_hex(8)}{PART}"
    try:
        with open(probe, "wb") as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_mtime - touched
    except OSError:  # a reader who may not write
        return time.time() - touched
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _claim(folder: Path, generation: int) -> Path:
    return folder / f"owner.{generation}.claim"


def _generations(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (re.fullmatch(r"owner\.([1-9]\d{0,17})\.claim", name) for name in names)
    return [int(match[1]) for match in found if match]


def _link(written: Path, path: Path) -> None:
    """Give a whole file a name that must not be there; where links are not known, make the name, then write."""
    try:
        os.link(written, path)
    except FileExistsError:
        raise
    except OSError:
        with open(path, "xb") as file:
            file.write(written.read_bytes())


def _opened(path: Path) -> IO[str]:
    """For writing where that is allowed: NFS gives no other an exclusive lock."""
    try:
        return open(path, "r+")
    except OSError:
        return open(path)


def _try(lock: IO[str], *, shared: bool = False) -> bool | None:
    """Whether the lock is ours now; None where the file system knows none."""
    try:
        return acquire(lock, shared=shared)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF):
            return None
        raise


def _unlock(lock: IO[str]) -> None:
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_UN)
