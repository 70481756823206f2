"""Graceful shutdown: the step ends or is dropped, what was computed is kept, a second signal ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

DROP_AFTER_S = 7.0
"""How long the step that goes on may take to end by itself once a stop is asked for."""


WARNINGS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""What a scheduler sends when the time of a job is nearly up."""


def end_with_parent(lifeline: Any) -> None:
    """Wait on a pipe whose other end the starting process holds, and end with it, whatever this process does."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


class Dropped(Interrupted):
    """A step took longer than :data:`DROP_AFTER_S` to end: it is lost, the last checkpoint serves."""


class Stop:
    """SIGINT and SIGTERM ask for a stop; true from then on. A second one ends the process at once, 128 + signal.

    SIGUSR1 and SIGUSR2 (:data:`WARNINGS`) ask, too, and are never a second one: a scheduler sends them to every process
    of a job before it ends the job. Nor is anything to a ``patient`` process, one of several: it is signalled by the
    scheduler and by the process that started it, which ends it if it does not listen.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal: int | None = None
        self.patient = patient

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        return 128 + (self.signal or signal.SIGINT)

    @contextlib.contextmanager
    def installed(self) -> Iterator[Stop]:
        """Handle the signals inside the ``with`` block."""

        def ask(number: int, frame: object) -> None:
            if self.signal is not None:
                if self.patient or number in WARNINGS:
                    return
                os._exit(128 + number)
            self.signal = number
            _alarm(DROP_AFTER_S)

        def drop(number: int, frame: object) -> None:
            raise Dropped("interrupted; the step that went on was dropped")

        handlers = {signal.SIGINT: ask, signal.SIGTERM: ask} | dict.fromkeys(WARNINGS, ask)
        if hasattr(signal, "SIGALRM"):
            handlers[signal.SIGALRM] = drop
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield self
        finally:
            settle()
            for number, handler in before.items():
                signal.signal(number, handler)


def settle() -> None:
    """The step ended: it is not dropped any more."""
    _alarm(0.0)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
