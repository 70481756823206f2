"""Errors that a caller can cause: each says what was wrong, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadOption(ValueError):
    """An option of a method that does not exist, or a value it cannot take."""


class UnknownMethod(ValueError):
    """A name that no method has."""


class Misfit(ValueError):
    """Weights that do not fit what they are to be loaded into."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'md'?)"``, or an empty string where nothing is near."""
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def choice(option: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`; otherwise :class:`BadOption` names the option and what it takes."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise BadOption(f"{option}={value!r}: expected one of {', '.join(allowed)}{nearest(str(value), allowed)}")
    return value
