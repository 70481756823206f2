"""What a step costs: every method, and other people's code, on the very same work, side by side.

All works take turns, round after round, so that whatever else the machine does falls on all alike; what is reported is
the median, and ratios of medians. Times are of one task on the chosen device:

* *adapt step*: one inner step of adapting without a graph, forward and backward pass included;
* *transform*: of that, the method's own part, ``params`` and ``step``;
* *meta-gradient*: K inner steps, the query loss, and the gradient of every meta-parameter;
* *evaluation*: K inner steps and the query set, no graph;
* *episode*: drawing the images of a task from a data set in memory.

Multiply-adds of the transform and floating-point operations of a meta-gradient are counted as they are dispatched
(:mod:`optimizers.counting`); the latter are set against the best large multiplication that this machine does in the
same session.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

import optimizers
from benchmark import data, networks
from benchmark.adapt import adapt, support_gradient
from benchmark.data.storage import ClassInfo
from benchmark.engine.allocator import keep_large_buffers
from benchmark.engine.counting import flops, peak_bytes
from benchmark.metagrad import Task, evaluate_batch, meta_gradient
from benchmark.runs.environment import device_name
from benchmark.timing import peers
from benchmark.timing.peers import Job
from optimizers.base import InnerOptimizer
from optimizers.counting import step_multiply_adds

SHORTEST_S = 0.1
"""Shorter works are repeated within a turn until a turn is about this long."""


@dataclass
class Work:
    """One thing to time: whose, what, how to run it once, and how long its turns took per run."""

    owner: str
    quantity: str
    run: Callable[[], Any]
    clock: Callable[[Callable[[], Any]], float]
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        self.clock(self.run)
        self.repeats = max(1, min(1000, round(SHORTEST_S / max(self.clock(self.run), 1e-9))))

    def take_turn(self) -> None:
        self.seconds.append(statistics.fmean(self.clock(self.run) for _ in range(self.repeats)))


def measure(
    methods: Sequence[str],
    jobs: Sequence[Job],
    *,
    rounds: int = 7,
    with_peers: bool = False,
    device: torch.device | None = None,
    strategy: str = "auto",
    tasks: int = 1,
    clock: str = "wall",
    on_turn: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """One row per owner (method or peer) and job; see :data:`benchmark.report.findings.TIMING` for the columns.

    `tasks` go through a meta-gradient or an evaluation together, and times are per task. Peers run on the CPU. The
    `clock` is ``wall`` time, or ``cpu``, the processor time of all threads: less disturbed by what else runs.
    """
    device = device or torch.device("cpu")
    keep_large_buffers()
    tables = []
    turn = clock_of(device, clock)
    with ExitStack() as stack:
        peer = stack.enter_context(peers.process(clock)) if with_peers else None
        for job in jobs:
            subjects = {name: subject(name, job, device) for name in methods}
            works = [w for name in methods for w in works_of(name, *subjects[name], job, device, strategy, tasks, turn)]
            if peer is not None:
                peer.prepare(job)
                works += list(_peer_works(peer))
            multiply, operations = multiplication(device)
            peak = Work("machine", "multiply", multiply, turn)
            works += [Work("data", "episode", episode(job, device), turn), peak]
            for work in works:
                on_turn(f"{job.image_size}×{job.image_size}, {job.channels} channels: warming up {work.owner}")
                work.warm_up()
            for number in range(rounds):
                on_turn(f"{job.image_size}×{job.image_size}, {job.channels} channels: round {number + 1} of {rounds}")
                for work in works:
                    work.take_turn()
            peak_flops = operations / min(peak.seconds)
            tables.append(
                _table(works, subjects, job, peak_flops, device, strategy).assign(
                    clock=clock, tasks=tasks, strategy=strategy
                )
            )
    return pd.concat(tables, ignore_index=True)


def subject(name: str, job: Job, device: torch.device) -> tuple[InnerOptimizer, torch.Tensor | None]:
    """A fresh optimizer by registry name, and one task's noise."""
    torch.manual_seed(0)
    network = networks.create("cnn4", job.ways, job.image_shape, job.channels)
    optimizer = optimizers.create(name, network).to(device)
    noise = optimizer.noise(torch.Generator().manual_seed(0))
    return optimizer, None if noise is None else noise.to(device)


def works_of(
    name: str,
    optimizer: InnerOptimizer,
    noise: torch.Tensor | None,
    job: Job,
    device: torch.device,
    strategy: str,
    tasks: int,
    clock: Callable[[Callable[[], Any]], float],
) -> Iterator[Work]:
    """The four works of one optimizer."""
    task = Task(*(t.to(device) for t in vars(job.task()).values()))
    batch = Task(*(torch.stack([t] * tasks) for t in vars(task).values()))
    drawn = None if noise is None else torch.stack([noise] * tasks)
    with torch.no_grad():
        state = optimizer.init_state(noise)
        params = optimizer.params(state)
    grads = support_gradient(optimizer, params, task.support_x, task.support_y, create_graph=False)[1]

    def transform() -> None:
        with torch.no_grad():
            optimizer.params(optimizer.step(state, grads, 0))

    def steps() -> None:
        adapt(optimizer, task.support_x, task.support_y, job.steps, noise=noise, trace=False)

    yield Work(name, "adapt_step", steps, lambda run: clock(run) / job.steps)
    yield Work(name, "transform", transform, clock)
    yield Work(
        name,
        "meta_gradient",
        lambda: meta_gradient(optimizer, batch, job.steps, strategy, noise=drawn),
        lambda run: clock(run) / tasks,
    )
    yield Work(
        name,
        "evaluation",
        lambda: evaluate_batch(optimizer, batch, job.steps, strategy, drawn),
        lambda run: clock(run) / tasks,
    )


def _peer_works(peer: peers.Process) -> Iterator[Work]:
    for owner, quantity in peers.WORK:
        yield Work(owner, quantity, lambda o=owner, q=quantity: peer.seconds(o, q), lambda run: run())  # type: ignore[misc]


def clock_of(device: torch.device, kind: str = "wall") -> Callable[[Callable[[], Any]], float]:
    """The function that runs a work once and returns its seconds."""
    now = time.perf_counter if kind == "wall" else time.process_time

    def clock(run: Callable[[], Any]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = now()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return now() - started

    return clock


def episode(job: Job, device: torch.device) -> Callable[[], Any]:
    """Draw one task from a set of random images, as training does."""
    classes = [ClassInfo(str(i), "train", 50) for i in range(64)]
    images = np.random.default_rng(0).integers(0, 256, (64 * 50, *job.image_shape), dtype=np.uint8)
    dataset = data.Dataset("random", images, job.image_shape, tuple(classes), "")
    stream = data.Episodes(dataset, "train", job.ways, job.shots, job.queries, seed=0)
    index = itertools.count()
    return lambda: data.sample(stream, [next(index)], device)


def multiplication(device: torch.device) -> tuple[Callable[[], Any], float]:
    """The fastest of three large multiplications, and its floating-point operations.

    A matrix product by either of the two libraries that torch has for it on a CPU, and a 3×3 convolution, which can be
    twice as fast.
    """
    a, b = torch.randn(2, 1024, 1024, device=device)
    image = a.t().contiguous()[None, :, :, None].contiguous(memory_format=torch.channels_last)
    images = torch.randn(8, 128, 34, 34, device=device).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
    ways: list[tuple[Callable[[], Any], float]] = [
        (lambda: torch.mm(a, b), 2.0 * 1024**3),
        (lambda: F.conv2d(image, b[:, :, None, None]), 2.0 * 1024**3),
        (lambda: F.conv2d(images, kernel), 2.0 * 8 * 32**2 * 128**2 * 9),
    ]
    clock = clock_of(device)
    return min(ways, key=lambda way: min(clock(way[0]) for _ in range(5)) / way[1])


def _table(
    works: Sequence[Work],
    subjects: dict[str, tuple[InnerOptimizer, torch.Tensor | None]],
    job: Job,
    peak_flops: float,
    device: torch.device,
    strategy: str,
) -> pd.DataFrame:
    medians = {(w.owner, w.quantity): statistics.median(w.seconds) for w in works}
    rows = []
    for owner in dict.fromkeys(w.owner for w in works if w.owner not in ("machine", "data")):
        row: dict[str, Any] = {"method": owner, "channels": job.channels, "image_size": job.image_size}
        for quantity in ("adapt_step", "transform", "meta_gradient", "evaluation"):
            row[f"{quantity}_ms"] = 1e3 * medians[owner, quantity] if (owner, quantity) in medians else None
        for name in ("maml", "higher"):
            for quantity in ("meta_gradient", "evaluation"):
                reference = medians.get((name, quantity))
                row[f"{quantity}_to_{name}"] = None if not reference else medians[owner, quantity] / reference
        if owner in subjects:
            row |= counts(*subjects[owner], job, device, strategy)
            row["peak_share"] = row["flops"] / medians[owner, "meta_gradient"] / peak_flops
        row["episode_ms"] = 1e3 * medians["data", "episode"]
        row |= {"shots": job.shots, "queries": job.queries, "steps": job.steps, "rounds": len(works[0].seconds)}
        row |= {"threads": torch.get_num_threads(), "device": device_name(device)}
        rows.append(row)
    return pd.DataFrame(rows)


def counts(
    optimizer: InnerOptimizer, noise: torch.Tensor | None, job: Job, device: torch.device, strategy: str
) -> dict[str, Any]:
    """What does not depend on the clock."""
    batch = Task(*(t[None].to(device) for t in vars(job.task()).values()))
    drawn = None if noise is None else noise[None]

    def run() -> None:
        meta_gradient(optimizer, batch, job.steps, strategy, noise=drawn)

    return {
        "parameters": sum(p.numel() for p in optimizer.start().values()),
        "meta_parameters": sum(p.numel() for p in optimizer.parameters()),
        "multiply_adds": step_multiply_adds(optimizer, noise),
        "flops": flops(run),
        "peak_mib": peak_bytes(run) / 2**20,
    }
