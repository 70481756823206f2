"""The command line: verbs, and the one line that a wrong one gets.

Modules that need torch are imported by the verbs that use them, so that help and reports come at once.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rich.console import Console

import benchmark
from benchmark import flags as flags_
from benchmark import run_verb, show_verbs, study_verb, timing_verb, tune_verb, verify_verb
from benchmark.data import cli as data_cli
from benchmark.errors import UserError, nearest
from benchmark.report import cli as report_cli

PROG = "python -m benchmark"
READING = {
    "report": "tables and figures from results",
    "compare": "two methods or two results folders: paired difference, ratio of cost",
    "export": "one tidy table of everything in results",
}
"""Verbs that read results and need no torch."""


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
        wrong = re.search(r"unrecognized arguments: (\S+)|invalid choice: '([^']*)'", message)
        if wrong:
            word = (wrong[1] or wrong[2]).partition("=")[0]
            known = [each for each in self.words() if each != word]  # a right word in a wrong place
            raise UserError(
                f"unknown {'flag' if wrong[1] else 'verb'} {word!r}{nearest(word, known)}; see {self.prog} --help"
            )
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for a run that failed, 2 for a wrong command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _wait_patiently()
    try:
        options = _parser().parse_args(arguments)
        options.command_line = shlex.join(["python", "-m", "benchmark", *arguments])
        status = int(options.verb(options) or 0)
        sys.stdout.flush()  # here, where a reader that left is caught, and not at exit
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


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

    def verb(name: str, text: str, act: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(verb=act)
        return made

    run_verb.add_arguments(verb("run", "meta-train methods, then measure them on new tasks", run_verb.main))
    tune_verb.add_arguments(verb("tune", "choose step sizes alike for all methods, by meta-validation", tune_verb.main))
    study_verb.add_arguments(verb("study", "tune, run and report what a study file says", study_verb.main))
    for name, text in READING.items():
        flags, act = getattr(report_cli, f"add_{name}_arguments"), getattr(report_cli, name)
        flags(verb(name, text, functools.partial(_with_output, act)))
    about = "methods, data sets, networks, presets, runs; or one method in full"
    show_verbs.add_list_arguments(verb("list", about, show_verbs.list_))
    flags_.add_results(verb("status", "where each run stands", show_verbs.status))
    verify_verb.add_arguments(verb("verify", "prove methods right; the geometry they learned", verify_verb.main))
    timing_verb.add_arguments(verb("time", "per-step cost of each method, beside other libraries", timing_verb.main))
    data_cli.add_arguments(verb("data", "import, list and look at data sets", data_cli.main))
    return parser


def _with_output(act: Callable[[argparse.Namespace, Console], int], arguments: argparse.Namespace) -> int:
    return act(arguments, flags_.output())
