"""Checks of one method's derivatives: against finite differences, `higher` and vmap; its start; its dead parameters.

All on a CNN4 with random images; nothing is trained and no data set is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import optimizers
from benchmark import networks
from benchmark.adapt import adapt, support_gradient
from benchmark.metagrad import Task, meta_gradient, tasks
from optimizers import geometry, testing
from optimizers.base import InnerOptimizer, key

STEPS = 2


@dataclass(frozen=True)
class Record:
    """One check of one method."""

    method: str
    check: str
    passed: bool
    detail: str
    value: float | None = None
    """How far off it was, or what was counted."""
    geometry: geometry.Geometry | None = None
    """For a check of the geometry: what was found,"""
    cosine: float | None = None
    """the cosine between step and −G,"""
    parameters: int | None = None
    """the number d of adapted parameters,"""
    run: str = ""
    """and the run whose checkpoint it was."""


def derivatives(name: str) -> Iterator[Record]:
    for check in (_contract, _differences, _vmap, _higher, _start, _dead):
        try:
            record = check(name)
        except Exception as error:  # a check that breaks is a failed check, and the others still run
            record = Record(name, check.__name__.strip("_"), False, f"{type(error).__name__}: {error}")
        if record is not None:
            yield record


def _contract(name: str) -> Record:
    findings = testing.check_inner_optimizer(lambda network: optimizers.create(name, network, alpha=0.1))
    return Record(name, "contract", True, f"rules {', '.join(f.rule for f in findings)}")


def _differences(name: str) -> Record:
    optimizer, batch = small(name), random_batch(1)
    testing.perturb(optimizer, 0.05)
    noise = draw(optimizer, 1)

    def value() -> Tensor:
        return meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[0]

    gradients = meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[1]
    pairs = testing.finite_differences(optimizer, gradients, value, epsilon=1e-7)
    worst, where = testing.worst_difference(pairs)
    return Record(name, "loop = finite differences", worst < 1e-4, f"{len(pairs)} tensors; worst {where}", worst)


def _vmap(name: str) -> Record:
    optimizer, batch = small(name), random_batch(2)
    testing.perturb(optimizer, 0.05)
    noise = draw(optimizer, 2)
    looped, mapped = (meta_gradient(optimizer, batch, STEPS, way, noise=noise)[1] for way in ("loop", "vmap"))
    worst = max(float((looped[n] - mapped[n]).abs().max()) for n in looped)
    scale = max(float(g.abs().max()) for g in looped.values())
    return Record(name, "loop = vmap", worst <= 1e-9 * scale, "largest difference of the meta-gradient", worst)


def _higher(name: str) -> Record | None:
    if name != "maml":
        return None
    try:
        import higher
    except ImportError:
        return Record(name, "loop = higher", True, "higher is not installed: not compared")
    optimizer, batch = small(name), random_batch(2)
    gradients = meta_gradient(optimizer, batch, 5, "loop")[1]
    network, total = optimizer.network, torch.zeros((), dtype=torch.float64)
    for task in tasks(batch):
        sgd = torch.optim.SGD(network.parameters(), lr=optimizer.alpha)
        with higher.innerloop_ctx(network, sgd, copy_initial_weights=False) as (functional, inner):
            for _ in range(5):
                inner.step(F.cross_entropy(functional(task.support_x), task.support_y))
            total = total + F.cross_entropy(functional(task.query_x), task.query_y) / 2
    found = torch.autograd.grad(total, list(network.parameters()), allow_unused=True, materialize_grads=True)
    worst = max(
        float((gradients[f"network.{n}"] - g).abs().max())
        for (n, _), g in zip(network.named_parameters(), found, strict=True)
    )
    return Record(name, "loop = higher", worst < 1e-12, "largest difference of the meta-gradient, K = 5", worst)


def _start(name: str) -> Record:
    optimizer = small(name)
    if not optimizer.card.starts_as_maml:
        return Record(name, "starts as MAML", True, "not claimed")
    task = tasks(random_batch(1))[0]
    own, maml = (adapt(o, task.support_x, task.support_y, 5).params for o in (optimizer, small("maml")))
    worst = max(float((own[n] - maml[n]).abs().max()) for n in maml)
    return Record(name, "starts as MAML", worst < 1e-12, "largest difference of φ_5", worst)


def _dead(name: str) -> Record:
    """Meta-parameters whose gradient is exactly zero at the start and after one and two meta-steps, at 84×84 pixels."""
    optimizer = small(name, channels=32, image_shape=(3, 84, 84), ways=5).float()
    most = {n: torch.zeros_like(p) for n, p in optimizer.named_parameters()}
    for step in range(3):
        batch = random_batch(1, image_shape=(3, 84, 84), ways=5, query=1, dtype=torch.float32, seed=step)
        gradients = meta_gradient(optimizer, batch, STEPS, "loop", noise=draw(optimizer, 1, seed=step))[1]
        for n, parameter in optimizer.named_parameters():
            most[n] = torch.maximum(most[n], gradients[n].abs())
            parameter.data = parameter.data - 1e-3 * gradients[n].sign()
    task = tasks(random_batch(1, image_shape=(3, 84, 84), ways=5, query=1, dtype=torch.float32))[0]
    slopes = support_gradient(optimizer, optimizer.start(), task.support_x, task.support_y, create_graph=False)[1]
    unused = [n for n, slope in slopes.items() if not slope.any()]
    dead = [n for n, value in most.items() if not value.any()]
    dead = [n for n in dead if not any(n == f"network.{u}" or key(u) in n for u in unused)]
    count = sum(int((value == 0).sum()) for value in most.values())
    share = count / sum(value.numel() for value in most.values())
    detail = f"{share:.1%} of all; {len(dead)} whole tensors"
    detail += f" (beside those of {len(unused)} tensors that the network itself ignores)" if unused else ""
    return Record(name, "no gradient at all", (not dead) is optimizer.card.alive, detail, count)


def small(
    name: str, *, channels: int = 4, image_shape: tuple[int, int, int] = (1, 16, 16), ways: int = 3
) -> InnerOptimizer:
    """The method on a CNN4 of fixed start, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = networks.create("cnn4", ways=ways, image_shape=image_shape, channels=channels).double()
        return optimizers.create(name, network, alpha=0.05)


def random_batch(
    count: int,
    *,
    image_shape: tuple[int, int, int] = (1, 16, 16),
    ways: int = 3,
    query: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Task:
    """Random images, one per class to adapt to."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, ways * (1 + query), *image_shape)
    x = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.arange(ways)
    return Task(x[:, :ways], y.repeat(count, 1), x[:, ways:], y.repeat_interleave(query).repeat(count, 1))


def draw(optimizer: InnerOptimizer, count: int, seed: int = 0) -> Tensor | None:
    generator = torch.Generator().manual_seed(seed)
    drawn = [optimizer.noise(generator) for _ in range(count)]
    return None if drawn[0] is None else torch.stack([each for each in drawn if each is not None])
