"""Text on its way to a person: everything is shown, nothing is obeyed, and nothing else is lost when it cannot be.

Names, messages and titles come from files and archives of strangers. A terminal obeys control characters in them, and
a line break in a name forges a line. Here, where text is shown, both become visible: ``\\x1b``, ``\\n``.

A reader that leaves (``| head -1``) or a full disk behind standard output costs what would have been printed, not the
work: printing stops, the verb goes on, and the command says so at its end (:func:`lost`).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

from rich.console import Console
from rich.text import Text

_OBEYED = re.compile(  # controls but tab and line feed, marks that hide or reorder text, halves of characters
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


NARROW = 60
"""Columns of a terminal below which a table has but the run and what matters most of it."""


def visible(text: str) -> str:
    """`text` with all that a terminal would obey, but tabs and line breaks, written out: ``\\x1b``."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """:func:`visible`, on one line: ``\\n`` for a line break."""
    return visible(text.replace("\n", "\\n"))


def say(text: str = "") -> None:
    """Print `text` on one line of standard output."""
    with kept_going(sys.stdout):
        print(one_line(text))


def warn(text: str) -> None:
    """Print `text` on one line of standard error."""
    with kept_going(sys.stderr):
        print(one_line(text), file=sys.stderr)


class Screen(Console):
    """rich's console, on which every string is :func:`visible`."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(visible(text), **how)

    def print(self, *objects: Any, **how: Any) -> None:
        with kept_going(self.file):
            super().print(*objects, **how)

    def say(self, text: str) -> None:
        """Print `text` as it is, on one line however long."""
        self.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


_lost: list[str] = []


def lost() -> str:
    """Why output was lost; empty where none was, or where its reader left."""
    with kept_going(sys.stdout):
        sys.stdout.flush()
    return _lost[0] if _lost else ""


def prepare() -> None:
    """Make standard output and error take all that will be written: no character is an error, no stream is missing."""
    _lost.clear()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def kept_going(stream: IO[str]) -> Iterator[None]:
    """What cannot be written to `stream` is given up, and so is all that comes after it."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _lost.append(error.strerror or str(error))
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
