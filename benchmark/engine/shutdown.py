"""Graceful shutdown: the step ends or is dropped, what was computed is kept, a second signal ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.engine.group import Group

DROP_AFTER_S = 7.0
"""How long the step that goes on may take to end by itself once a stop is asked for."""

REPEATED = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name))
"""Signals that come more than once for one reason: a scheduler warns every process of a job that its time is nearly up,
and that a terminal is closed is told by the system and by the shell."""


def stopping() -> tuple[int, ...]:
    """The signals that ask for a stop. SIGHUP is not among them where it is ignored, as under nohup."""
    return (signal.SIGINT, signal.SIGTERM, *(n for n in REPEATED if signal.getsignal(n) is not signal.SIG_IGN))


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

    The signals of :data:`REPEATED` ask, too, and are never a second one. Nor is anything to a ``patient`` process, one
    of several: it is signalled by the scheduler and by the process that started it, which ends it if it does not
    listen.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal: int | None = None
        self.patient = patient

    def __bool__(self) -> bool:
        return self.signal is not None

    def agreed(self, group: Group) -> bool:
        """Whether any process of the group was asked; if so all of them stop with the same exit status."""
        number = group.largest(self.signal or signal.SIGINT if self else 0)
        if number:
            self.signal = number  # and not else: a signal may have come in the meantime
        return bool(number)

    @property
    def exit_status(self) -> int:
        return 128 + (self.signal or signal.SIGINT)

    @contextlib.contextmanager
    def installed(self) -> Iterator[Stop]:
        """Handle the signals inside the ``with`` block."""

        def ask(number: int, frame: object) -> None:
            if self.signal is not None:
                if self.patient or number in REPEATED:
                    return
                os._exit(128 + number)
            self.signal = number
            _alarm(DROP_AFTER_S)

        def drop(number: int, frame: object) -> None:
            raise Dropped("interrupted; the step that went on was dropped")

        handlers: dict[int, Callable[[int, Any], None]] = dict.fromkeys(stopping(), ask)
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
