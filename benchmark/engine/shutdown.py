"""Graceful shutdown: the step ends or is dropped, what was computed is kept, a second signal ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

DROP_AFTER_S = 7.0
"""How long the step that goes on may take to end by itself once a stop is asked for."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


class Dropped(Interrupted):
    """A step took longer than :data:`DROP_AFTER_S` to end: it is lost, the last checkpoint serves."""


class Stop:
    """SIGINT and SIGTERM ask for a stop; true from then on. A second one ends the process at once, 128 + signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

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
                os._exit(128 + number)
            self.signal = number
            _alarm(DROP_AFTER_S)

        def drop(number: int, frame: object) -> None:
            raise Dropped("interrupted; the step that went on was dropped")

        handlers = {signal.SIGINT: ask, signal.SIGTERM: ask}
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
