"""``--jobs N``: N processes side by side on one machine, each of which takes runs from the plan until none is left.

Each is this very command, with its share of the cores or a GPU of its own, beside the others as tasks of an array job
are: a run that another one holds is left to it. Only the starting process listens to the terminal, and passes on what
it is told; the others end when it is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from typing import Any

from benchmark.engine.shutdown import end_with_parent, stopping


def side_by_side(words: Sequence[str], count: int, device: str) -> int:
    """Carry out the command line `words` in `count` processes; the largest exit status of them.

    On a ``device`` of type cuda process i has GPU i of those that this one sees, counted round; its share of the cores
    it has in any case.
    """
    gpus = visible_gpus() if device == "cuda" else []
    context = get_context("spawn")
    processes, lifelines, readers = [], [], []
    for share in range(count):
        ear, mouth = context.Pipe(duplex=False)
        lifeline_end, lifeline = context.Pipe(duplex=False)
        place = (share_of_cores(share, count), gpus[share % len(gpus)] if gpus else "")
        process = context.Process(target=_carry_out, args=(tuple(words), place, mouth, lifeline_end))
        process.start()
        mouth.close()
        lifeline_end.close()
        reader = threading.Thread(target=_repeat, args=(ear,), daemon=True)
        reader.start()
        processes.append(process)
        lifelines.append(lifeline)
        readers.append(reader)
    with _signals_passed_on([process.pid for process in processes if process.pid]) as told:
        for process in processes:
            process.join()
    for reader in readers:
        reader.join()
    if told:
        raise SystemExit(128 + told[0])
    return max(abs(process.exitcode or 0) for process in processes)


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


@contextlib.contextmanager
def _signals_passed_on(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Within the block signals go to the processes `numbers`; yields those that came."""
    told: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        told.append(number)
        for each in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    before = {number: signal.signal(number, pass_on) for number in stopping()}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
