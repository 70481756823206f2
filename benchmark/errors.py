"""Errors a user can cause and mend: shown as one line, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One line that says what was wrong, what was expected, and what to do."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """``" (did you mean 'md'?)"``, or an empty string where nothing is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
