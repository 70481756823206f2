"""Graceful shutdown: the step ends or is dropped, what was computed is kept, a second signal ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from benchmark.engine.group import Group

DROP_AFTER_S = 7.0
"""How long the step that goes on may take to end by itself once a stop is asked for."""

REPEATED = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, name))
"""Signals that come more than once for one reason: a scheduler warns every process of a job that its time is nearly up,
and that a terminal is closed is told by the system and by the shell."""


@dataclass
class _Process:
    """One record for all blocks that hear signals, so that what one of them heard all of them know."""

    asked: int | None = None
    watched: bool = False
    blocks: int = 0


_process = _Process()


def stopping() -> tuple[int, ...]:
    """The signals that ask for a stop. SIGHUP is not among them where it is ignored, as under nohup."""
    return (signal.SIGINT, signal.SIGTERM, *(n for n in REPEATED if signal.getsignal(n) is not signal.SIG_IGN))


def watched_over() -> None:
    """From now on a second signal is nothing to this process, one of several.

    It is signalled by the scheduler and by the process that started it, which ends it if it does not listen.
    """
    _process.watched = True


def asked() -> int | None:
    """The signal that asked this process to stop, inside a block of :func:`hearing`."""
    return _process.asked


def request(number: int, end: Callable[[], None] = lambda: None) -> bool:
    """Note that a signal asks for a stop; true for the first. A second one ends the process at once, after `end()`.

    The signals of :data:`REPEATED` are never a second one, nor is any to a process that is :func:`watched_over`.
    """
    if _process.asked is None:
        _process.asked = number
        return True
    if not _process.watched and number not in REPEATED:
        end()
        os._exit(128 + number)
    return False


def heed() -> None:
    """End the process, :class:`SystemExit`, if a signal asked it to stop."""
    if _process.asked is not None:
        raise SystemExit(128 + _process.asked)


def tell(process: BaseProcess, number: int) -> None:
    """Send a signal to a process that this one started; to none that has ended, whose number may be another's."""
    if process.pid is not None and process.is_alive():
        with contextlib.suppress(ProcessLookupError):  # it ended this moment
            os.kill(process.pid, number)


@contextlib.contextmanager
def hearing(handlers: Mapping[int, Callable[[int, Any], None]]) -> Iterator[None]:
    """Handle signals by `handlers` inside the block, of the main thread; the outermost forgets at its end."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    _process.blocks += 1
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _process.blocks -= 1
        if _process.blocks == 0:
            _process.asked = None


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
    """True once a signal has asked for a stop, by a block around this one or before it, too; 128 + signal ends it."""

    def __init__(self) -> None:
        self.told: int | None = None
        """What the processes agreed on, where there are several."""

    @property
    def signal(self) -> int | None:
        return self.told or _process.asked

    def __bool__(self) -> bool:
        return self.signal is not None

    def agreed(self, group: Group) -> bool:
        """Whether any process of the group was asked; if so all of them stop with the same exit status."""
        number = group.largest(self.signal or signal.SIGINT if self else 0)
        if number:
            self.told = number  # and not else: a signal may have come in the meantime
        return bool(number)

    def heed(self, group: Group) -> None:
        """End the process, :class:`SystemExit`, if any of the group was asked to stop; all of them ask at once."""
        if self.agreed(group):
            raise SystemExit(self.exit_status)

    @property
    def exit_status(self) -> int:
        return 128 + (self.signal or signal.SIGINT)

    @contextlib.contextmanager
    def installed(self) -> Iterator[Stop]:
        """Handle the signals inside the ``with`` block: a step that goes on has :data:`DROP_AFTER_S` left to end."""

        def ask(number: int, frame: object) -> None:
            if request(number):
                _alarm(DROP_AFTER_S)

        def drop(number: int, frame: object) -> None:
            raise Dropped("interrupted; the step that went on was dropped")

        with hearing({signal.SIGALRM: drop} if hasattr(signal, "SIGALRM") else {}):
            try:
                with hearing(dict.fromkeys(stopping(), ask)):
                    yield self
            finally:
                settle()


def settle() -> None:
    """The step ended: it is not dropped any more."""
    _alarm(0.0)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
