"""Results on disk: one directory per run, every file written whole or not at all.

::

    results/<run name>/
        spec.json         the resolved spec, the environment it ran in, the command that made it
        status.json       state, iteration, wall time, best checkpoint; rewritten as the run goes
        training.csv      iteration, loss                        (query loss of each meta-step)
        validation.csv    iteration, accuracy, accuracy_ci95, nll
        evaluation.csv    one row per new task: accuracy, nll, support_nll_k and grad_norm_k for k = 0 … K
        checkpoint.pt     meta-parameters and optimizer state; checkpoint.prev.pt is the one before

Reading needs no torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.spec import SCHEMA, RunSpec

if TYPE_CHECKING:
    import pandas as pd

STATES = ("running", "interrupted", "finished", "diverged", "failed", "oom")
MAGIC = b"inner-optimizer-benchmark checkpoint 1\n"


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, or a crash, sees the old file or the new one, never a torn one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# Checkpoints


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Save `payload` (tensors and plain values) with its SHA-256; the file it replaces stays as ``*.prev.pt``."""
    import torch

    buffer = io.BytesIO()
    torch.save(payload, buffer)
    body = buffer.getvalue()
    if path.exists():
        os.replace(path, path.with_suffix(".prev.pt"))
    write_atomic(path, MAGIC + hashlib.sha256(body).digest() + body)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The payload of one file. Raises :class:`UserError` when the file is not exactly what was written."""
    import torch

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    head, body = data[: len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if not head.startswith(MAGIC):
        raise UserError(f"{path}: not a checkpoint of this benchmark")
    if hashlib.sha256(body).digest() != head[len(MAGIC) :]:
        raise UserError(f"{path}: damaged (its SHA-256 does not match)")
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: refused, holds more than tensors and plain values") from error


def read_latest_checkpoint(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The newest whole checkpoint at `path`, or None where there is none yet; and a remark, empty if all is well.

    Raises :class:`UserError` if checkpoints exist and every one of them is bad: never a silent fresh start.
    """
    candidates = [each for each in (path, path.with_suffix(".prev.pt")) if each.exists()]
    remarks = []
    for candidate in candidates:
        try:
            payload = read_checkpoint(candidate)
        except UserError as error:
            remarks.append(str(error))
        else:
            return payload, f"{remarks[0]}; going on from the one before" if remarks else ""
    if candidates:
        raise UserError(f"{'; '.join(remarks)}; delete the run's directory to start it afresh")
    return None, ""


# Runs


@dataclass(frozen=True)
class Run:
    """One run directory, read."""

    path: Path
    spec: dict[str, Any]
    environment: dict[str, Any]
    command: list[str]
    status: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state(self) -> str:
        return str(self.status.get("state", "running"))

    @functools.cached_property
    def training(self) -> pd.DataFrame | None:
        return _read_csv(self.path / "training.csv")

    @functools.cached_property
    def validation(self) -> pd.DataFrame | None:
        return _read_csv(self.path / "validation.csv")

    @functools.cached_property
    def evaluation(self) -> pd.DataFrame | None:
        """Per-task measurements; None unless the run is finished."""
        return _read_csv(self.path / "evaluation.csv") if self.state == "finished" else None


def load_run(path: Path) -> Run:
    """Read one run directory; :class:`UserError` names the file and field that is not as written by this suite."""
    document = _read_json(path / "spec.json")
    if document.get("schema") != SCHEMA:
        raise UserError(f"{path / 'spec.json'}: schema {document.get('schema')!r}, expected {SCHEMA}")
    try:
        spec = RunSpec.from_dict(document["spec"])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path / 'spec.json'}: {error}") from error
    status = _read_json(path / "status.json") if (path / "status.json").exists() else {"state": "running"}
    if status.get("state") not in STATES:
        raise UserError(f"{path / 'status.json'}: state {status.get('state')!r}, expected one of {', '.join(STATES)}")
    return Run(path, spec.to_dict(), document.get("environment", {}), document.get("command", []), status)


def load_runs(results: Path) -> list[Run]:
    """Every run below `results`, by name. A directory without spec.json is no run; a bad one raises `UserError`."""
    if not results.is_dir():
        raise UserError(f"{results}: no such results folder; make one with 'python -m benchmark run'")
    return [load_run(path) for path in sorted(results.iterdir()) if (path / "spec.json").exists()]


class RunDirectory:
    """The writing side of one run. Its lock is held from :meth:`claim` to the end of the ``with`` block."""

    def __init__(self, results: Path, spec: RunSpec) -> None:
        self.spec = spec
        self.path = results / spec.name
        self.checkpoint = self.path / "checkpoint.pt"
        self.status: dict[str, Any] = {}

    def state(self) -> str | None:
        """Its state on disk, or None if it was never started."""
        return load_run(self.path).state if (self.path / "spec.json").exists() else None

    @contextlib.contextmanager
    def claim(self, environment: dict[str, Any], command: list[str]) -> Iterator[None]:
        """Own the run: :class:`UserError` if another process does. Records spec, environment and command."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "run.lock", "w") as lock:  # stays on disk: unlinking a held lock lets two owners in
            if not _lock(lock):
                raise UserError(f"{self.path.name} is being run by another process; wait for it or stop it")
            if (self.path / "spec.json").exists():
                self.status = dict(load_run(self.path).status)
            else:
                document = {
                    "schema": SCHEMA,
                    "name": self.spec.name,
                    "spec": self.spec.to_dict(),
                    "environment": environment,
                    "command": command,
                }
                write_json(self.path / "spec.json", document)
            yield

    def set_status(self, state: str, **values: Any) -> None:
        self.status |= {"state": state, **values, "updated": now()}
        write_json(self.path / "status.json", self.status)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        write_atomic(self.path / f"{name}.csv", table.to_csv(index=False).encode())


def is_alive(path: Path) -> bool:
    """Whether a process holds the run at `path` right now."""
    try:
        with open(path / "run.lock") as lock:
            return not _lock(lock)
    except OSError:
        return False


def _lock(file: IO[str]) -> bool:
    """Take the advisory lock of `file`, held until it is closed; False if another process has it."""
    try:
        import fcntl
    except ImportError:  # no advisory locks on this platform
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def _read_csv(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not path.exists():
        return None
    try:
        # pandas 3 reads every float exactly by itself and warns when asked to
        return pd.read_csv(path) if pd.__version__ >= "3" else pd.read_csv(path, float_precision="round_trip")
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from error
