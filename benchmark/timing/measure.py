"""What a step costs: every method, and other people's code, on the very same work, side by side.

All measurements take turns, round after round, so that whatever else the machine does falls on all alike; what is
reported is the median, and ratios of medians. Times are of one task on the chosen device:

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
from benchmark.adapt import InnerLoop, support_gradient, unroll
from benchmark.data.storage import ClassInfo
from benchmark.engine.allocator import keep_large_buffers
from benchmark.engine.counting import flops, peak_bytes
from benchmark.engine.execution import PLAIN
from benchmark.metagrad import Task, evaluate_batch, meta_gradient
from benchmark.runs.environment import device_name
from benchmark.timing import peers
from benchmark.timing.peers import Workload
from optimizers.base import InnerOptimizer
from optimizers.counting import step_multiply_adds

SHORTEST_S = 0.1
"""Shorter measurements are repeated within a turn until a turn is about this long."""


@dataclass
class Measurement:
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


@PLAIN.multiplication()
def measure(
    methods: Sequence[str],
    workloads: Sequence[Workload],
    *,
    rounds: int = 7,
    with_peers: bool = False,
    device: torch.device | None = None,
    strategy: str = "auto",
    tasks: int = 1,
    clock: str = "wall",
    on_turn: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """One row per owner (method or peer) and workload; see :data:`benchmark.report.findings.TIMING` for the columns.

    `tasks` go through a meta-gradient or an evaluation together, and times are per task. Peers run on the CPU, as
    `device` then must. The `clock` is ``wall`` time, or ``cpu``, the processor time of all threads: less disturbed by
    what else runs.
    """
    device = device or torch.device("cpu")
    keep_large_buffers()
    tables = []
    turn = clock_of(device, clock)
    with ExitStack() as stack:
        peer = stack.enter_context(peers.process(clock)) if with_peers else None
        for workload in workloads:
            subjects = {name: subject(name, workload, device) for name in methods}
            measurements = [
                w
                for name in methods
                for w in measurements_of(name, *subjects[name], workload, device, strategy, tasks, turn)
            ]
            if peer is not None:
                peer.prepare(workload)
                measurements += list(_peer_measurements(peer))
            multiply, operations = multiplication(device)
            peak = Measurement("machine", "multiply", multiply, turn)
            measurements += [Measurement("data", "episode", episode(workload, device), turn), peak]
            title = f"{workload.image_size}×{workload.image_size}, {workload.channels} channels"
            for measurement in measurements:
                on_turn(f"{title}: warming up {measurement.owner}")
                measurement.warm_up()
            for number in range(rounds):
                on_turn(f"{title}: round {number + 1} of {rounds}")
                for measurement in measurements:
                    measurement.take_turn()
            peak_flops = operations / min(peak.seconds)
            tables.append(
                _table(measurements, subjects, workload, peak_flops, device, strategy).assign(
                    clock=clock, tasks=tasks, strategy=strategy
                )
            )
    return pd.concat(tables, ignore_index=True)


def subject(name: str, workload: Workload, device: torch.device) -> tuple[InnerOptimizer, torch.Tensor | None]:
    """A fresh optimizer by registry name, and one task's noise."""
    torch.manual_seed(0)
    network = networks.create("cnn4", workload.ways, workload.image_shape, workload.channels)
    optimizer = optimizers.create(name, network).to(device)
    noise = optimizer.noise(torch.Generator().manual_seed(0))
    return optimizer, None if noise is None else noise.to(device)


def measurements_of(
    name: str,
    optimizer: InnerOptimizer,
    noise: torch.Tensor | None,
    workload: Workload,
    device: torch.device,
    strategy: str,
    tasks: int,
    clock: Callable[[Callable[[], Any]], float],
) -> Iterator[Measurement]:
    """The four measurements of one optimizer."""
    task = Task(*(t.to(device) for t in vars(workload.task()).values()))
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
        unroll(optimizer, task.support_x, task.support_y, InnerLoop(workload.steps, trace=False), noise)

    yield Measurement(name, "adapt_step", steps, lambda run: clock(run) / workload.steps)
    yield Measurement(name, "transform", transform, clock)
    yield Measurement(
        name,
        "meta_gradient",
        lambda: meta_gradient(optimizer, batch, workload.steps, strategy, noise=drawn),
        lambda run: clock(run) / tasks,
    )
    yield Measurement(
        name,
        "evaluation",
        lambda: evaluate_batch(optimizer, batch, workload.steps, strategy, drawn),
        lambda run: clock(run) / tasks,
    )


def _peer_measurements(peer: peers.Process) -> Iterator[Measurement]:
    for owner, quantity in peers.WORK:
        yield Measurement(owner, quantity, lambda o=owner, q=quantity: peer.seconds(o, q), lambda run: run())  # type: ignore[misc]


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


def episode(workload: Workload, device: torch.device) -> Callable[[], Any]:
    """Draw one task from a set of random images, as training does."""
    classes = [ClassInfo(str(i), "train", 50) for i in range(64)]
    images = np.random.default_rng(0).integers(0, 256, (64 * 50, *workload.image_shape), dtype=np.uint8)
    dataset = data.Dataset("random", images, workload.image_shape, tuple(classes), "")
    stream = data.Episodes(dataset, "train", workload.ways, workload.shots, workload.queries, seed=0)
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
    measurements: Sequence[Measurement],
    subjects: dict[str, tuple[InnerOptimizer, torch.Tensor | None]],
    workload: Workload,
    peak_flops: float,
    device: torch.device,
    strategy: str,
) -> pd.DataFrame:
    medians = {(w.owner, w.quantity): statistics.median(w.seconds) for w in measurements}
    rows = []
    for owner in dict.fromkeys(w.owner for w in measurements if w.owner not in ("machine", "data")):
        row: dict[str, Any] = {"method": owner, "channels": workload.channels, "image_size": workload.image_size}
        for quantity in ("adapt_step", "transform", "meta_gradient", "evaluation"):
            row[f"{quantity}_ms"] = 1e3 * medians[owner, quantity] if (owner, quantity) in medians else None
        for name in ("maml", "higher"):
            for quantity in ("meta_gradient", "evaluation"):
                reference = medians.get((name, quantity))
                row[f"{quantity}_to_{name}"] = None if not reference else medians[owner, quantity] / reference
        if owner in subjects:
            row |= counts(*subjects[owner], workload, device, strategy)
            row["peak_share"] = row["flops"] / medians[owner, "meta_gradient"] / peak_flops
        row["episode_ms"] = 1e3 * medians["data", "episode"]
        row |= {
            "shots": workload.shots,
            "queries": workload.queries,
            "steps": workload.steps,
            "rounds": len(measurements[0].seconds),
        }
        row |= {"threads": torch.get_num_threads(), "device": device_name(device)}
        rows.append(row)
    return pd.DataFrame(rows)


def counts(
    optimizer: InnerOptimizer, noise: torch.Tensor | None, workload: Workload, device: torch.device, strategy: str
) -> dict[str, Any]:
    """What does not depend on the clock."""
    batch = Task(*(t[None].to(device) for t in vars(workload.task()).values()))
    drawn = None if noise is None else noise[None]

    def run() -> None:
        meta_gradient(optimizer, batch, workload.steps, strategy, noise=drawn)

    return {
        "parameters": sum(p.numel() for p in optimizer.start().values()),
        "meta_parameters": sum(p.numel() for p in optimizer.parameters()),
        "multiply_adds": step_multiply_adds(optimizer, noise),
        "flops": flops(run),
        "peak_mib": peak_bytes(run) / 2**20,
    }
