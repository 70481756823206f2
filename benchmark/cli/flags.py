"""Flags and output that several verbs share."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.screen import Screen

RESULTS = Path("results")
SHOWN = 60
"""Letters of a long path that an error repeats."""


def add_results(parser: argparse._ActionsContainer, default: Path = RESULTS) -> None:
    parser.add_argument("--results", type=folder, default=default, metavar="DIR", help=f"default: {default}")


def add_reports(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--reports", type=folder, default=Path("reports"), metavar="DIR", help="default: reports")


def add_data_root(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--data-root",
        type=place,
        metavar="DIR",
        help="imported data sets; default: $BENCHMARK_DATA or the user's cache folder",
    )


def add_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="[METHOD.]KEY=VALUE",
        help="an option of one method, or of every method; repeatable",
    )


def method_options(texts: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["md.sigma=exp", "adapt=head"]`` → options by method, which may be named by an alias."""
    from optimizers import aliases

    found: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for text in texts:
        key, equals, written = text.partition("=")
        method, dot, name = key.rpartition(".")
        method = aliases.get(method, method)
        if not equals or not name:
            raise UserError(f"--option takes [METHOD.]KEY=VALUE, got {text!r}")
        if dot and method not in methods:
            raise UserError(f"--option {text}: {method!r} is not among --methods{nearest(method, methods)}")
        value: Any = written
        with contextlib.suppress(ValueError):
            value = json.loads(written.lower() if written.lower() in ("true", "false") else written)
        for each in [method] if dot else methods:
            found[each][name] = value
    return found


def without(words: Sequence[str], *, valued: Sequence[str], flags: Sequence[str] = ()) -> tuple[str, ...]:
    """A command line without some flags: `valued` ones with what follows them, and plain `flags`."""
    kept: list[str] = []
    value_follows = False
    for word in words:
        flag, equals, _ = word.partition("=")
        if value_follows:
            value_follows = False
        elif flag in valued:
            value_follows = not equals
        elif word not in flags:
            kept.append(word)
    return tuple(kept)


def integers(flag: str) -> Callable[[str], tuple[int, ...]]:
    """The type of a flag that takes whole numbers separated by commas, each once."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(dict.fromkeys(int(part) for part in text.split(",")))
        except ValueError:
            raise UserError(f"{flag} must be whole numbers separated by commas, got {text!r}") from None

    return parse


def output() -> Screen:
    """Standard output; in a pipe 200 columns wide, whatever the terminal is."""
    return Screen() if sys.stdout.isatty() else Screen(width=200)


def log() -> Screen:
    """Standard error."""
    return Screen(stderr=True)


def folder(text: str) -> Path:
    """The type of a flag that takes a folder, which need not be there yet: :func:`place`, and no file."""
    path = place(text)
    if path.is_file():
        raise UserError(f"{path} is a file and cannot be written or read as a folder; name a folder")
    return path


def place(text: str) -> Path:
    """The type of a flag that takes a file or folder: ``~`` is the user's own; what can be no path is refused."""
    if not text.strip():
        raise UserError("a path that a flag was given is empty; name a file or folder, or leave the flag out")
    path = Path(text)
    try:
        path = path.expanduser()
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # the verb says so, or makes it
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} letters)"
        raise UserError(f"{shown}: no path that can be used here ({reason}); choose another one") from error
    return path
