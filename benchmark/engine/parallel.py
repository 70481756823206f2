"""Processes that work together: started on this machine, watched and ended, or joined where ``torchrun`` started them.

Every process runs the same function with its own :class:`~benchmark.engine.group.Group`.

The starting process only watches: it passes a signal on (at a second one it ends everything at once; a worker that has
not begun yet is ended at once), and when a worker dies it gives the others a moment to write down what happened, ends
them, and says so. Workers end when the process that started them is gone.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from benchmark.engine.group import Group, joined
from benchmark.engine.shutdown import end_with_parent, hearing, heed, request, stopping, tell, watched_over

GRACE_S = 20.0
"""How long the other workers may take to end by themselves once one has failed, or has ended because it was asked."""

STOP_S = 9.0
"""How long they may take once a signal was passed on to them."""


class WorkerDied(SystemExit):
    """A worker ended without a word (killed, out of memory). Uncaught: one line on stderr and exit status 1."""


def default_workers(device: torch.device, meta_batch: int) -> int:
    """One process per GPU, or per CPU core (workers of one thread beat one of many), at most one per task.

    On a device that was named by its number, ``cuda:1``, one.
    """
    if device.index is not None:
        return 1
    places = torch.cuda.device_count() if device.type == "cuda" else cores()
    return max(1, min(places, meta_batch))


def cores() -> int:
    """CPU cores this process may use: those it is bound to, and no more than Slurm gave it."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, int(os.environ.get("SLURM_CPUS_PER_TASK") or bound))


def under_torchrun() -> bool:
    """Whether this process is a worker already."""
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def launch(
    run: Callable[..., Any], args: Sequence[Any] = (), workers: int = 1, device: torch.device | None = None
) -> Any:
    """``run(group, *args)`` in `workers` processes; returns what rank 0 returns.

    `run` and `args` are pickled, so `run` is a function of a module. An exception of a worker is raised here; a worker
    that dies raises :class:`WorkerDied`. Under ``torchrun`` this process is one of the workers already: it joins
    them, and `workers` is not used. Cores are divided evenly among the workers.
    """
    device = device or torch.device("cpu")
    if under_torchrun():
        watched_over()
        with joined(device, int(os.environ.get("LOCAL_RANK", 0))) as group:
            return run(group, *args)
    if workers == 1:
        return run(Group(), *args)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        return _Workers(run, args, workers, device, Path(folder) / "rendezvous").result()


# A worker


def _work(
    rank: int, size: int, device: torch.device, rendezvous: str, begun: Any, report: Any, lifeline: Any, pickled: bytes
) -> None:
    """The main of a worker process: join, say that it has begun, run, report how it ended, ``(kind, value, when)``."""

    def tell(kind: str, value: Any) -> None:
        report.send_bytes(pickle.dumps((kind, value, time.time())))  # plain pickle: torch's own shares tensors by file

    with contextlib.suppress(OSError):
        os.setpgrp()  # a terminal's Ctrl-C reaches the starting process alone, which passes it on once
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)  # until the work begins there is nothing to put in order
    _mask(signal.SIG_UNBLOCK)
    watched_over()
    threading.Thread(target=end_with_parent, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or max(1, cores() // size)))
    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    run, args = pickle.loads(pickled)
    with joined(device, rank, init_method=f"file://{rendezvous}", rank=rank, world_size=size) as group:
        begun[rank] = True
        try:  # reported before the group is left: what the others then run into comes later
            value = run(group, *args)
            tell("returned", value if rank == 0 else None)
        except SystemExit as ending:
            tell("exited", ending.code)
        except BaseException as error:
            error.add_note("".join(traceback.format_exception(error)).strip())
            tell("raised", _portable(error))


STOPPING = (signal.SIGINT, signal.SIGTERM)


def _mask(how: int) -> None:
    """Hold back the signals that stop, or let them come again: a process that is started inherits which are held."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(how, STOPPING)


def _portable(error: BaseException) -> BaseException:
    """The error itself if it can travel to another process, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)).strip())


# The process that started them


class _Workers:
    """Starts the workers, passes signals on, and waits until all have ended."""

    def __init__(
        self, run: Callable[..., Any], args: Sequence[Any], size: int, device: torch.device, rendezvous: Path
    ) -> None:
        self.size, self.device, self.rendezvous = size, device, str(rendezvous)
        self.pickled = pickle.dumps((run, tuple(args)))
        self.workers: list[BaseProcess] = []
        self.reports: list[connection.Connection] = []
        self.lifelines: list[connection.Connection] = []
        self.begun: Any = ()
        """Whether each has begun, in memory that all share: a signal's handler may look at it at any moment."""
        self.deadline = float("inf")

    def _start(self) -> None:
        """Start all, unless a signal says not to. A Ctrl-C while one loads its modules waits until it can be heard."""
        context = get_context("spawn")
        self.begun = context.RawArray("b", self.size)
        resource_tracker.ensure_running()  # or it is started with the first worker, and lets the signals come
        for rank in range(self.size):
            heed()
            report, report_end = context.Pipe(duplex=False)
            lifeline_end, lifeline = context.Pipe(duplex=False)
            given = (rank, self.size, self.device, self.rendezvous, self.begun, report_end, lifeline_end, self.pickled)
            worker = context.Process(target=_work, args=given, daemon=True)
            _mask(signal.SIG_BLOCK)
            try:
                worker.start()
            finally:
                self.workers.append(worker)
                self.reports.append(report)
                self.lifelines.append(lifeline)
                _mask(signal.SIG_UNBLOCK)
            report_end.close()
            lifeline_end.close()

    def result(self) -> Any:
        """Wait; return rank 0's value or raise the first failure."""
        with self._signals_passed_on():
            try:
                self._start()
                endings = self._wait()
            finally:
                self._end()
            if [kind for kind, _, _ in endings.values()] != ["returned"] * self.size:
                heed()  # also where some did not listen and were ended
        for rank, (kind, value, _) in sorted(endings.items(), key=lambda each: each[1][2]):  # the first is the cause
            if kind == "died":
                raise WorkerDied(f"worker {rank} died ({value}); the same command goes on from the last checkpoint")
            if kind == "raised":
                raise value
            if kind == "exited":  # asked to stop; what the others ran into then is no cause
                raise SystemExit(endings[0][1] if 0 in endings and endings[0][0] == "exited" else value)
        return endings[0][1]

    def _end(self) -> None:
        for worker in self.workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()

    def _wait(self) -> dict[int, tuple[str, Any, float]]:
        endings: dict[int, tuple[str, Any, float]] = {}
        while len(endings) < len(self.workers) and time.monotonic() < self.deadline:
            open_ranks = [rank for rank in range(len(self.workers)) if rank not in endings]
            ready = connection.wait([self.reports[rank] for rank in open_ranks], timeout=0.5)
            for rank in open_ranks:
                if self.reports[rank] in ready:
                    endings[rank] = self._ending(rank)
                    if endings[rank][0] != "returned":
                        self.deadline = min(self.deadline, time.monotonic() + GRACE_S)
        return endings

    def _ending(self, rank: int) -> tuple[str, Any, float]:
        try:
            return pickle.loads(self.reports[rank].recv_bytes())
        except (EOFError, OSError):  # closed without a report, or in the midst of one
            self.workers[rank].join(1.0)
            code = self.workers[rank].exitcode
            return "died", f"signal {-code}" if code is not None and code < 0 else f"exit status {code}", 0.0

    @contextlib.contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        def pass_on(number: int, frame: object) -> None:
            if not request(number, self._end):
                return
            self.deadline = time.monotonic() + STOP_S
            for rank, worker in enumerate(self.workers):
                tell(worker, number if self.begun[rank] else signal.SIGKILL)

        with hearing(dict.fromkeys(stopping(), pass_on)):
            yield
