"""The writing side of a run's directory: owned by one process at a time, every file written whole or not at all.

A run is owned as :mod:`benchmark.runs.owner` tells, so that two processes with the same plan never write the same run
and a process that is gone owns nothing. What lies in the directory is told by :mod:`benchmark.runs.store`,
which reads it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.files import PART, now, write_atomic, write_json
from benchmark.runs import owner, schema_one
from benchmark.runs.store import CONTINUED, ENDED, Run, document_digest, is_run, load_run
from benchmark.spec import SCHEMA, RunSpec

if TYPE_CHECKING:
    import pandas as pd


class Held(UserError):
    """Another process is at this run."""


class RunDirectory:
    """The writing side of one run. It is owned from :meth:`claim` to the end of the ``with`` block."""

    def __init__(self, results: Path, spec: RunSpec) -> None:
        self.spec = spec
        self.path = results / spec.name
        self.checkpoint = self.path / "checkpoint.pt"
        self.partial = self.path / "evaluation.partial.csv"
        self.status: dict[str, Any] = {}
        self._claim: owner.Holding | None = None

    def place(self) -> Path:
        """Where the run lies: at `path`, or still under its name of schema 1."""
        former = schema_one.name(self.spec)
        if former is None or is_run(self.path):
            return self.path
        found = self.path.with_name(former)
        return found if is_run(found) else self.path

    def run(self) -> Run | None:
        """What is on disk, or None if the run was never started."""
        place = self.place()
        return load_run(place) if is_run(place) else None

    def state(self) -> str:
        """The state of a run that is on disk."""
        return load_run(self.place()).state

    @contextlib.contextmanager
    def claim(
        self,
        environment: dict[str, Any],
        command: list[str],
        *,
        tuning: dict[str, Any] | None = None,
        card: dict[str, Any] | None = None,
        patience_s: float = 2.0,
    ) -> Iterator[None]:
        """Own the run: :class:`Held` if another process does for longer than `patience_s`.

        Records spec, environment, command, tuning and card, removes what a killed process left half written, and gives
        a folder of schema 1 its new name.
        """
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(self._open_lock())
            deadline = time.monotonic() + patience_s
            while (claim := owner.take(Path(lock.name).parent, lock)) is None:
                if time.monotonic() > deadline:
                    raise Held(f"{self.path.name} is being run by another process; wait for it or stop it")
                time.sleep(0.1)
            self._take_new_name()
            claim.folder = self.path
            stack.enter_context(claim.kept())
            self._claim = claim
            for left in self.path.glob(f".*{PART}"):
                left.unlink(missing_ok=True)
            before = self.run()
            if before is None:
                self._write_spec(environment, command, {"tuning": tuning, "card": card})
            elif RunSpec.from_dict(before.spec) != self.spec:
                raise UserError(f"{self.path}: holds the run of another spec with the same name")
            else:
                self.status = dict(before.status)
                learned = self._images(before, environment) | self._elsewhere(before, environment)
                if before.schema != SCHEMA or learned:
                    tables = {"tuning": before.tuning, "card": before.card}
                    self._write_spec(before.environment | learned, before.command, tables)
            yield

    def _open_lock(self) -> IO[str]:
        """The file whose lock is the run's; a folder that takes its new name takes it along."""
        while True:
            place = self.place()
            if place.is_symlink():
                raise UserError(f"{place}: is a link and may lead out of the results folder; put a real folder there")
            try:
                if place == self.path:
                    place.mkdir(parents=True, exist_ok=True)
                return open(place / owner.LOCK, "w")  # stays on disk: unlinking a held lock admits two
            except OSError as error:
                if place == self.path or place.exists():  # else another process gave it its new name just now
                    raise UserError(f"{place}: cannot be written ({error.strerror})") from error

    def _take_new_name(self) -> None:
        place = self.place()
        if place != self.path:
            try:
                place.rename(self.path)
            except OSError as error:
                raise UserError(f"{place}: cannot be renamed to {self.path.name} ({error.strerror})") from error

    def require_ours(self) -> None:
        """:class:`benchmark.runs.owner.TakenOver` if another process owns the run by now."""
        if self._claim is not None:
            self._claim.require()

    def _images(self, before: Run, environment: dict[str, Any]) -> dict[str, Any]:
        """The hash of the images, for a run that was claimed when there were none yet and has learned nothing."""
        found = environment.get("dataset_hash")
        if not found or before.environment.get("dataset_hash") or before.status.get("iteration", 0):
            return {}
        return {} if self.checkpoint.exists() or before.state == "finished" else {"dataset_hash": found}

    def _elsewhere(self, before: Run, environment: dict[str, Any]) -> dict[str, Any]:
        """What else made the run's numbers from here on, where it goes on on another machine or by other code."""
        done = before.status.get("iteration", 0)
        if not done or before.state in ENDED:
            return {}
        stages = before.environment.get(CONTINUED, [])
        last = functools.reduce(operator.or_, stages, before.environment)
        kept = {"dataset_hash", "started"}  # of the whole run
        changed = {key: value for key, value in environment.items() if key not in kept and last.get(key) != value}
        if not changed:
            return {}
        return {CONTINUED: [*stages, {"after": done, "started": environment.get("started"), **changed}]}

    def _write_spec(self, environment: dict[str, Any], command: list[str], tables: dict[str, Any]) -> None:
        document = {
            "schema": SCHEMA,
            "name": self.spec.name,
            "spec": self.spec.to_dict(),
            "environment": environment,
            "command": command,
        } | {name: table for name, table in tables.items() if table}
        write_json(self.path / "spec.json", document | {"sha256": document_digest(document)})

    def set_status(self, state: str, **values: Any) -> None:
        """Rewrite status.json; for a finished run with the hashes of its tables."""
        self.require_ours()
        self.status |= {"state": state, **values, "updated": now()}
        self.status.pop("sha256", None)
        if state == "finished":
            tables = (self.path / f"{name}.csv" for name in ("training", "validation", "evaluation"))
            self.status["sha256"] = {
                each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in tables if each.exists()
            }
        write_json(self.path / "status.json", self.status)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        self.require_ours()
        write_atomic(self.path / f"{name}.csv", table.to_csv(index=False).encode())


def is_alive(path: Path) -> bool:
    """Whether a process holds the run at `path` right now, or may."""
    return owner.standing(path)[0] != "free"
