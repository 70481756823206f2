"""The command line: verbs, and the one line that a wrong one gets.

Modules that need torch are imported by the verbs that use them, so that help and reports come at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import benchmark
from benchmark import screen
from benchmark.engine.shutdown import hearing, request
from benchmark.errors import UserError, nearest
from benchmark.runs import slurm

PROG = "python -m benchmark"
VERBS = (
    *("run", "tune", "study", "report", "compare", "export", "list"),
    *("status", "merge", "verify", "time", "data", "doctor"),
)
"""Each is a module of this package with ``HELP``, ``add_arguments(parser)`` and ``main(arguments)``."""
LISTING = ("run", "tune", "time", "verify")
"""Those of them with flags that take lists."""


class Parser(argparse.ArgumentParser):
    """argparse with errors that are one line and name the nearest right word."""

    given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = args or ()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if "are required:" in message:  # perhaps one was given and misspelt
            flags = (word.partition("=")[0] for word in self.given if word.startswith("--"))
            message = next((f"unrecognized arguments: {flag}" for flag in flags if flag not in self.words()), message)
        choice = re.match(r"argument (--\S+): invalid choice: (.*?) \(choose from (.*)\)$", message)
        if choice:
            raise UserError(f"{choice[1]}: {choice[2]} is none of {choice[3]}; see {self.prog} --help")
        wrong = re.search(r"unrecognized arguments: (\S+)|invalid choice: '([^']*)'", message)
        verb = next((word for word in self.given if word in VERBS), "")
        of = f"{PROG} {verb}" if verb and self.prog == PROG else self.prog
        if wrong and wrong[1] and not wrong[1].startswith("-"):
            lists = "; a list is written with commas and without spaces: maml,metasgd" if verb in LISTING else ""
            raise UserError(f"unexpected word {wrong[1]!r}{lists}; see {of} --help")
        if wrong:
            word = (wrong[1] or wrong[2]).partition("=")[0]
            known = [each for each in self.words() if each != word and each.startswith("-") == bool(wrong[1])]
            raise UserError(f"unknown {'flag' if wrong[1] else 'verb'} {word!r}{nearest(word, known)}; see {of} --help")
        raise UserError(f"{message}; see {self.prog} --help")

    def words(self) -> list[str]:
        """Every flag and verb of this parser, and of the verb that was given or else of all."""
        found: list[str] = []
        for action in self._actions:
            found += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                found += list(action.choices)
                given = [verb for verb in action.choices if verb in self.given] or list(action.choices)
                for verb in given:
                    found += action.choices[verb].words()
        return found


def main(arguments: Sequence[str] | None = None, *, requeues: bool = True) -> int:
    """Run one command; returns its exit status: 0, 1 for a run or output that failed, 2 for a wrong command.

    A job of Slurm whose time is nearly up goes back into the queue, unless another process sees to that (`requeues`).
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _wait_patiently()
    screen.prepare()
    try:
        with _terminated_cleanly(), _warnings_on_one_line():
            slurm.export_ranks()
            parser = _parser()
            if "_ARGCOMPLETE" in os.environ:  # the shell asks what could come next
                importlib.import_module("argcomplete").autocomplete(parser)
            options = parser.parse_args(arguments)
            options.command_line = shlex.join(["python", "-m", "benchmark", *arguments])
            status = int(options.verb(options) or 0)
            if lost := screen.lost():
                screen.warn(f"error: what was to be printed is lost ({lost}); all else is done")
                return status or 1
            return status
    except UserError as error:
        screen.warn(f"error: {error}")
        return 2
    except BrokenPipeError:  # the reader of a help text left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        screen.warn(f"error: {where}{error.strerror}; choose another place, or make room")
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as ending:
        if requeues:
            try:
                slurm.requeue_if_warned(ending.code)
            except UserError as error:
                screen.warn(f"error: {error}")
        raise


@contextlib.contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """A signal ends the command as an error does: what is half done is taken back.

    Where what it raises is lost, as in a library that takes any error while it loads for a missing part, it is asked
    for still: a run stops before it begins.
    """

    def end(number: int, frame: object) -> None:
        if request(number):
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    untouched = (signal.SIG_DFL, signal.default_int_handler)  # not where somebody ignores it
    heard = {number for number in numbers if signal.getsignal(number) in untouched} | slurm.warning_signals()
    with hearing(dict.fromkeys(heard, end)):
        yield


@contextlib.contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        screen.warn(f"warning: {message}")

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


def _wait_patiently() -> None:
    """Let threads that wait for each other sleep after a moment.

    GNU OpenMP's spin for milliseconds, on cores that another process may need; beside busy processes that is many
    times slower than a short spin, which costs next to nothing on an idle machine. It is read when torch is loaded,
    so this comes before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _parser() -> Parser:
    parser = Parser(prog=PROG, description=benchmark.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=benchmark.__version__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=Parser)

    for name in VERBS:
        verb = importlib.import_module(f"benchmark.cli.{name}")
        made = verbs.add_parser(name, help=verb.HELP, description=verb.HELP, allow_abbrev=False)
        verb.add_arguments(made)
        made.set_defaults(verb=verb.main)
    return parser
