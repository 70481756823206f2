"""The same work as other people's code does it, to be timed against: the library `higher`, and plain autograd.

The network is the one a user would write, from torch's own layers; the task, the steps and the derivative order are
ours. A peer runs in a process of its own, with the C library's default allocator, because that is what its users have;
it answers one request at a time, so that its turns alternate with ours.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from benchmark.errors import UserError
from benchmark.metagrad import Task

ALPHA = 0.01


def plain_cnn4(ways: int, image_shape: tuple[int, int, int], channels: int) -> nn.Sequential:
    """CNN4 from torch's own layers."""
    inputs, height, width = image_shape
    layers: list[nn.Module] = []
    for i in range(4):
        layers += [
            nn.Conv2d(channels if i else inputs, channels, 3, padding=1),
            nn.BatchNorm2d(channels, track_running_stats=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (height // 16) * (width // 16), ways))


def higher_loss(network: nn.Module, task: Task, steps: int, alpha: float = ALPHA) -> Tensor:
    """The query loss of one task after MAML's steps by `higher`, with its graph."""
    import higher

    sgd = torch.optim.SGD(network.parameters(), lr=alpha)
    with higher.innerloop_ctx(network, sgd, copy_initial_weights=False) as (adapted, inner):
        for _ in range(steps):
            inner.step(F.cross_entropy(adapted(task.support_x), task.support_y))
        return F.cross_entropy(adapted(task.query_x), task.query_y)


def higher_meta_gradient(network: nn.Module, task: Task, steps: int) -> tuple[Tensor | None, ...]:
    """MAML's meta-gradient of one task by `higher`."""
    return torch.autograd.grad(higher_loss(network, task, steps), list(network.parameters()), allow_unused=True)


def higher_mean_gradient(
    network: nn.Module, tasks: Sequence[Task], steps: int, alpha: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean query loss of `tasks` and its gradient by `higher`, by parameter; zeros where there is no path."""
    total = torch.stack([higher_loss(network, task, steps, alpha) for task in tasks]).mean()
    named = dict(network.named_parameters())
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True, materialize_grads=True)
    return total.detach(), dict(zip(named, found, strict=True))


def higher_evaluation(network: nn.Module, task: Task, steps: int) -> Tensor:
    """Query outputs after adapting by `higher`, without tracking."""
    import higher

    sgd = torch.optim.SGD(network.parameters(), lr=ALPHA)
    with higher.innerloop_ctx(network, sgd, track_higher_grads=False) as (adapted, inner):
        for _ in range(steps):
            inner.step(F.cross_entropy(adapted(task.support_x), task.support_y))
        with torch.no_grad():
            return adapted(task.query_x)


def autograd_meta_gradient(network: nn.Module, task: Task, steps: int) -> tuple[Tensor | None, ...]:
    """MAML's meta-gradient of one task as one writes it by hand."""
    start: dict[str, Tensor] = dict(network.named_parameters())
    phi = start
    for _ in range(steps):
        loss = F.cross_entropy(functional_call(network, phi, (task.support_x,)), task.support_y)
        grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
        phi = {name: p - ALPHA * g for (name, p), g in zip(phi.items(), grads, strict=True)}
    loss = F.cross_entropy(functional_call(network, phi, (task.query_x,)), task.query_y)
    return torch.autograd.grad(loss, list(start.values()), allow_unused=True)


def autograd_evaluation(network: nn.Module, task: Task, steps: int) -> Tensor:
    """Query outputs after adapting, written by hand."""
    phi: dict[str, Tensor] = dict(network.named_parameters())
    for _ in range(steps):
        loss = F.cross_entropy(functional_call(network, phi, (task.support_x,)), task.support_y)
        grads = torch.autograd.grad(loss, list(phi.values()))
        phi = {n: (p - ALPHA * g).detach().requires_grad_() for (n, p), g in zip(phi.items(), grads, strict=True)}
    with torch.no_grad():
        return functional_call(network, phi, (task.query_x,))


WORK: dict[tuple[str, str], Callable[[nn.Module, Task, int], Any]] = {
    ("higher", "meta_gradient"): higher_meta_gradient,
    ("higher", "evaluation"): higher_evaluation,
    ("autograd", "meta_gradient"): autograd_meta_gradient,
    ("autograd", "evaluation"): autograd_evaluation,
}


def installed() -> None:
    """A :class:`UserError` that says what to do where `higher` is missing."""
    if importlib.util.find_spec("higher") is None:
        raise UserError("--peers needs the library higher; install it with: pip install '.[peers]'")


@dataclass(frozen=True)
class Workload:
    """One size of the work: a task of random images, the same for everybody."""

    image_size: int
    channels: int
    ways: int = 5
    shots: int = 1
    queries: int = 15
    steps: int = 5

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (3, self.image_size, self.image_size)

    def task(self) -> Task:
        generator = torch.Generator().manual_seed(0)
        support_y, query_y = (torch.arange(self.ways).repeat_interleave(n) for n in (self.shots, self.queries))
        support_x, query_x = (torch.rand(len(y), *self.image_shape, generator=generator) for y in (support_y, query_y))
        return Task(support_x, support_y, query_x, query_y)


class Process:
    """A peer process: :meth:`seconds` asks for one run of one work and returns its time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def prepare(self, workload: Workload) -> None:
        """Say what is worked on until the next call."""
        self._ask(workload)

    def seconds(self, peer: str, work: str) -> float:
        return self._ask((peer, work))

    def _ask(self, request: Any) -> Any:
        self._connection.send(request)
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextlib.contextmanager
def process(clock: str = "wall") -> Iterator[Process]:
    """A peer process with this one's number of threads, ended at the end of the block."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_serve, args=(theirs, torch.get_num_threads(), clock), daemon=True)
    worker.start()
    theirs.close()
    try:
        yield Process(ours)
    finally:
        ours.close()
        worker.join(5)
        worker.kill()
        worker.join()


def _serve(connection: Any, threads: int, clock: str) -> None:
    now = time.perf_counter if clock == "wall" else time.process_time
    torch.set_num_threads(threads)
    prepared: tuple[nn.Module, Task, int] | None = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            if isinstance(request, Workload):
                torch.manual_seed(0)
                network = plain_cnn4(request.ways, request.image_shape, request.channels)
                prepared = network, request.task(), request.steps
                connection.send(None)
            else:
                assert prepared is not None
                started = now()
                WORK[request](*prepared)
                connection.send(now() - started)
        except Exception as error:
            connection.send(error)
