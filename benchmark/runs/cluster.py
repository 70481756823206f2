"""A cluster file: what each job of an array asks of Slurm, as a small TOML file.

::

    partition = "main"               # optional, as are account, qos and constraint
    account = "vision"
    jobs = 16                        # tasks of the array; each takes runs from the plan until none is left
    time = "12:00:00"                # of one job: [days-]hours:minutes:seconds, or minutes
    warn = 120                       # seconds before its end at which a job writes its checkpoint and requeues itself
    memory = "8G"                    # of one node
    cpus = 4                         # of one node
    gpus = 0                         # of one node
    nodes = 1                        # of one job: with several, a process a GPU or core of each shares every run
    setup = ["module load python", "source .venv/bin/activate"]

Everything is checked when the file is read.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.files import read_toml

LEAST = {"jobs": 1, "warn": 10, "cpus": 1, "gpus": 0, "nodes": 1}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster file, read."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    jobs: int = 8
    time: str | int = "4:00:00"
    warn: int = 120
    memory: str = "4G"
    cpus: int = 1
    gpus: int = 0
    nodes: int = 1
    setup: tuple[str, ...] = ()

    @property
    def minutes(self) -> int:
        """The time of one job, rounded up to whole minutes, in which Slurm counts."""
        return -(-seconds(self.time) // 60)

    @property
    def processes(self) -> int:
        """How many srun starts: one, which starts its own workers, or on several nodes one for each GPU or core."""
        return self.nodes * (self.gpus or self.cpus) if self.nodes > 1 else 1

    @property
    def cores(self) -> int:
        """Cores of each of these."""
        return max(1, self.cpus * self.nodes // self.processes)


def read(path: Path) -> Cluster:
    """The cluster in a TOML file; :class:`UserError`, in one line, for whatever is wrong in it."""
    document = read_toml(path)
    try:
        return _cluster(document)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _cluster(document: dict[str, Any]) -> Cluster:
    keys = [field.name for field in dataclasses.fields(Cluster)]
    for key, value in document.items():
        if key not in keys:
            raise UserError(f"unknown key {key!r}{nearest(key, keys)}")
        if key in LEAST:
            if not isinstance(value, int) or isinstance(value, bool) or value < LEAST[key]:
                raise UserError(f"{key} must be a whole number from {LEAST[key]} on, got {value!r}")
        elif key == "setup":
            if not isinstance(value, list) or not all(_is_line(line) for line in value):
                raise UserError(f"setup must be a list of shell commands, a line each, got {value!r}")
            document = {**document, "setup": tuple(value)}
        elif key != "time" and (not _is_line(value) or re.search(r"\s", value)):
            raise UserError(f"{key} must be a word, got {value!r}")
    cluster = Cluster(**document)
    if not re.fullmatch(r"[1-9]\d*[KMGT]?", cluster.memory):
        raise UserError(f'memory must be a number with K, M, G or T, such as "8G", got {cluster.memory!r}')
    if 60 * cluster.minutes <= cluster.warn:
        raise UserError(f"a job of {cluster.minutes} min is warned {cluster.warn} s before its end; make time longer")
    return cluster


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def seconds(time: Any) -> int:
    """``"1-12:00:00"``, ``"12:00:00"``, ``"30:00"`` or whole minutes, in seconds."""
    if isinstance(time, int) and not isinstance(time, bool) and time > 0:
        return 60 * time
    match = re.fullmatch(r"(?:(\d{1,3})-)?(?:(\d{1,4}):)?(\d{1,2}):(\d{2})", time) if isinstance(time, str) else None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    total = ((24 * days + hours) * 60 + minutes) * 60 + rest
    if not total:
        raise UserError(f'time must be "[days-]hours:minutes:seconds" or whole minutes, got {time!r}')
    return total
