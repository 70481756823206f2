"""Errors a user can cause and mend: shown as one line, exit status 2, no traceback."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """One line that says what was wrong, what was expected, and what to do."""


class MissingData(UserError):
    """A data set that is known by its name is not on this machine."""


@contextlib.contextmanager
def advising(what: str) -> Iterator[None]:
    """A :class:`UserError` inside the block that says only what is wrong says what to do about it, too."""
    try:
        yield
    except UserError as error:
        raise error if ";" in str(error) else UserError(f"{error}; {what}") from error


def nearest(word: str, choices: Iterable[str]) -> str:
    """``" (did you mean 'md'?)"``, or an empty string where nothing is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
