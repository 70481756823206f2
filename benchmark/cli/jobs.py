"""``--jobs N``: N processes side by side on one machine, each of which takes runs from the plan until none is left.

Each is this very command, with its share of the cores or a GPU of its own, beside the others as tasks of an array job
are: a run that another one holds is left to it. Only the starting process listens to the terminal, and passes on what
it is told; the others end when it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from benchmark.engine.shutdown import (
    DROP_AFTER_S,
    asked,
    end_with_parent,
    hearing,
    heed,
    request,
    stopping,
    tell,
    watched_over,
)

STOP_S = DROP_AFTER_S + 8.0
"""How long the processes may take to end once a signal was passed on to them: to drop a step, and to write."""


def side_by_side(words: Sequence[str], count: int, device: str) -> int:
    """Carry out the command line `words` in `count` processes; the largest exit status of them.

    On a ``device`` of type cuda process i has GPU i of those that this one sees, counted round; its share of the cores
    it has in any case.
    """
    gpus = visible_gpus() if device == "cuda" else []
    jobs = _Jobs()
    with hearing(dict.fromkeys(stopping(), jobs.pass_on)):
        for share in range(count):
            if asked() is None:
                place = (share_of_cores(share, count), gpus[share % len(gpus)] if gpus else "")
                jobs.start(tuple(words), place)
        status = jobs.status()
        heed()
    return status


class _Jobs:
    """The processes that were started: told of signals, waited for, and ended where they do not listen."""

    def __init__(self) -> None:
        self.processes: list[BaseProcess] = []
        self.readers: list[threading.Thread] = []
        self.lifelines: list[Connection] = []
        self.deadline = float("inf")

    def start(self, words: tuple[str, ...], place: tuple[tuple[int, ...], str]) -> None:
        context = get_context("spawn")
        ear, mouth = context.Pipe(duplex=False)
        lifeline_end, lifeline = context.Pipe(duplex=False)
        process = context.Process(target=_carry_out, args=(words, place, mouth, lifeline_end))
        process.start()
        self.processes.append(process)
        if asked() is not None:  # while it was started, so that nobody told it
            process.kill()
        self.lifelines.append(lifeline)
        mouth.close()
        lifeline_end.close()
        reader = threading.Thread(target=_repeat, args=(ear,), daemon=True)
        reader.start()
        self.readers.append(reader)

    def status(self) -> int:
        """Wait for all; the largest exit status."""
        while (alive := [each for each in self.processes if each.is_alive()]) and time.monotonic() < self.deadline:
            wait([each.sentinel for each in alive], timeout=0.5)
        self.end()
        for reader in self.readers:
            reader.join()
        return max((abs(process.exitcode or 0) for process in self.processes), default=0)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def pass_on(self, number: int, frame: object) -> None:
        """SIGINT as SIGTERM, which is silent where a process loads its modules still."""
        if not request(number, self.end):
            return
        self.deadline = time.monotonic() + STOP_S
        for process in self.processes:
            tell(process, signal.SIGTERM if number == signal.SIGINT else number)


def share_of_cores(share: int, count: int) -> tuple[int, ...]:
    """The cores of process number `share` of `count`: as many for each, and one for each where there are too few."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    return tuple(cores[share::count]) or (cores[share % len(cores)],)


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them: by number, or as it names them here."""
    import torch

    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name.strip() for name in named.split(",")][:count] if named.strip() else [str(n) for n in range(count)]


def _carry_out(words: tuple[str, ...], place: tuple[tuple[int, ...], str], mouth: Any, lifeline: Any) -> None:
    """The main of one of the processes: what it says goes to the starting one, and its tables nowhere."""
    os.setpgrp()  # a terminal's Ctrl-C reaches the starting process alone
    watched_over()
    threading.Thread(target=end_with_parent, args=(lifeline,), daemon=True).start()
    os.dup2(mouth.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # new streams: the old ones may hold the position of a file, which a pipe has not
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
    cores, gpu = place
    if cores:
        os.sched_setaffinity(0, cores)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    from benchmark.cli.parser import main

    sys.exit(main(words, requeues=False))


def _repeat(ear: Any) -> None:
    """Say on standard error what a process says, line by line so that lines stay whole."""
    with open(os.dup(ear.fileno()), encoding="utf-8", errors="replace") as lines:
        for line in lines:
            sys.stderr.write(line)
            sys.stderr.flush()
