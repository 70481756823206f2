"""Checks of one method's derivatives: against finite differences, `higher` and vmap; its start; its dead parameters.

All on small networks with random images; nothing is trained and no data set is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import optimizers
from benchmark import networks
from benchmark.adapt import adapt
from benchmark.engine import fused
from benchmark.errors import UserError
from benchmark.metagrad import Task, meta_gradient, tasks
from benchmark.timing import peers
from benchmark.verify import geometry
from optimizers.base import InnerOptimizer, key
from optimizers.cards import COMMON_OPTIONS
from optimizers.contract import check_inner_optimizer, kit, small_network
from optimizers.contract.rules import DRAWS

STEPS = 2
NETWORKS = ("cnn4", "cnn2", "resnet12")
Options = Mapping[str, Any]


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
    network: str = ""
    """On which it was made; empty where on none of the benchmark's."""


def derivatives(name: str, network: str = "cnn4", options: Options | None = None) -> Iterator[Record]:
    """Every check of the method `name`, with its `options`, on `network`; the contract has a network of its own."""
    for check in (_differences, _primitives, _vmap, _higher, _start, _dead):
        try:
            record = check(name, network, options or {})
        except Exception as error:  # a check that breaks is a failed check, and the others still run
            record = Record(name, check.__name__.strip("_"), False, f"{type(error).__name__}: {error}")
        if record is not None:
            yield replace(record, network=network)


def contract(name: str, options: Options | None = None) -> Record:
    """The contract kit."""

    def make(network: nn.Module) -> InnerOptimizer:
        return optimizers.create(name, network, **{"alpha": 0.1, **(options or {})})

    try:
        make(small_network())
    except optimizers.BadOption as error:
        return Record(name, "contract", True, f"not asked: the kit's network does not take these options ({error})")
    try:
        findings = check_inner_optimizer(make)
    except kit.ContractViolation as error:
        return Record(name, "contract", False, f"{type(error).__name__}: {error}")
    return Record(name, "contract", True, f"rules {', '.join(f.rule for f in findings)}")


def _differences(name: str, network: str, options: Options) -> Record:
    """Tensor by tensor on cnn4; along two directions in all of them at once on the others, which have many more.

    A step in everything at once easily crosses a kink of ReLU or pooling: it is made in two lengths, and a derivative
    counts as wrong where it is so for both.
    """
    optimizer, batch = small(name, network, options), random_batch(1)
    kit.perturb(optimizer, 0.05)
    noise = kit.stacked_noise(optimizer, 1)

    def value() -> Tensor:
        return meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[0]

    gradients = meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[1]
    if network == "cnn4":
        pairs = kit.finite_differences(optimizer, gradients, value, epsilon=1e-7)
    else:
        pairs = {}
        for seed in range(2):
            steps = [
                kit.finite_differences(optimizer, gradients, value, epsilon=epsilon, seed=seed, together=True)
                for epsilon in (1e-8, 1e-9)
            ]
            pairs[f"direction {seed}"] = min(steps, key=lambda found: kit.worst_difference(found)[0])["all"]
    worst, where = kit.worst_difference(pairs)
    what = f"{len(pairs)} tensors" if network == "cnn4" else f"{len(pairs)} directions"
    return Record(name, "loop = finite differences", worst < 1e-4, f"{what}; worst {where}", worst)


def _primitives(name: str, network: str, options: Options) -> Record:
    """Against a loop in which batch norm is written out and nothing is fused, right by itself under any transform."""
    optimizer, batch = small(name, network, options), random_batch(2)
    kit.perturb(optimizer, 0.05)
    noise = kit.stacked_noise(optimizer, 2)
    with fused.disabled(primitives=True):
        expected = meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[1]
    found = meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[1]
    return _same(name, "loop = primitives", found, expected)


def _vmap(name: str, network: str, options: Options) -> Record:
    optimizer, batch = small(name, network, options), random_batch(2)
    kit.perturb(optimizer, 0.05)
    noise = kit.stacked_noise(optimizer, 2)
    looped, mapped = (meta_gradient(optimizer, batch, STEPS, way, noise=noise)[1] for way in ("loop", "vmap"))
    return _same(name, "loop = vmap", mapped, looped)


def _same(name: str, check: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Record:
    worst = kit.distance(found, expected)
    scale = max(float(g.abs().max()) for g in expected.values())
    return Record(name, check, worst <= 1e-9 * scale, "largest difference of the meta-gradient", worst)


def _higher(name: str, network: str, options: Options) -> Record | None:
    if name != "maml" or options:
        return None
    try:
        peers.installed()
    except UserError:
        return Record(name, "loop = higher", True, "higher is not installed: not compared")
    optimizer, batch = small(name, network), random_batch(2)
    gradients = meta_gradient(optimizer, batch, 5, "loop")[1]
    expected = peers.higher_mean_gradient(optimizer.network, tasks(batch), 5, optimizer.alpha)[1]
    worst = kit.distance({n: gradients[f"network.{n}"] for n in expected}, expected)
    return Record(name, "loop = higher", worst < 1e-12, "largest difference of the meta-gradient, K = 5", worst)


def _start(name: str, network: str, options: Options) -> Record:
    optimizer = small(name, network, options)
    if not optimizer.card.starts_as_maml:
        return Record(name, "starts as MAML", True, "not claimed")
    plain = small("maml", network, {key: value for key, value in options.items() if key in COMMON_OPTIONS})
    task = tasks(random_batch(1))[0]
    own, maml = (adapt(o, task.support_x, task.support_y, 5).params for o in (optimizer, plain))
    worst = kit.distance(own, maml)
    return Record(name, "starts as MAML", worst < 1e-12, "largest difference of φ_5", worst)


def _dead(name: str, network: str = "cnn4", options: Options | None = None) -> Record:
    """Meta-parameters whose gradient is exactly zero at the start and after one and two meta-steps.

    On cnn4 at 84×84 pixels and 32 channels, where a share is told; elsewhere small. A ReLU that one draw of the start
    puts off is on in another: a tensor is dead if it is in all of several draws.
    """
    large: dict[str, Any] = {"image_shape": (3, 84, 84), "ways": 5} if network == "cnn4" else {}
    channels = 32 if large else None
    optimizer = small(name, network, options, channels=channels, **large).float()
    most = _largest_gradients(optimizer, large)
    count = sum(int((value == 0).sum()) for value in most.values())
    share = count / sum(value.numel() for value in most.values())
    task = tasks(random_batch(1, query=1, dtype=torch.float32, **large))[0]
    own: dict[str, Tensor] = {n: p for n, p in optimizer.network.named_parameters() if not n.startswith("inserted.")}
    loss = optimizer.loss(own, task.support_x, task.support_y)
    slopes = torch.autograd.grad(loss, list(own.values()), allow_unused=True, materialize_grads=True)
    unused = [n for n, slope in zip(own, slopes, strict=True) if not slope.any()]
    dead = {n for n, value in most.items() if not value.any()}
    dead = {n for n in dead if not any(n == f"network.{u}" or key(u) in n for u in unused)}
    draws = 1
    while dead and optimizer.card.alive and draws < DRAWS:
        again = small(name, network, options, channels=channels, seed=draws, **large).float()
        dead -= {n for n, value in _largest_gradients(again, large).items() if value.any()}
        draws += 1
    detail = f"{share:.1%} of all; {len(dead)} whole tensors" + (f" in any of {draws} draws" if draws > 1 else "")
    detail += f" (beside those of {len(unused)} tensors that the network itself ignores)" if unused else ""
    return Record(name, "no gradient at all", (not dead) is optimizer.card.alive, detail, count)


def _largest_gradients(optimizer: InnerOptimizer, sizes: Mapping[str, Any]) -> dict[str, Tensor]:

    def gradient(i: int) -> Mapping[str, Tensor]:
        batch, noise = (
            random_batch(1, query=1, dtype=torch.float32, seed=i, **sizes),
            kit.stacked_noise(optimizer, 1, i),
        )
        return meta_gradient(optimizer, batch, STEPS, "loop", noise=noise)[1]

    return kit.largest_gradients(optimizer, gradient, step_size=1e-3)


def small(
    name: str,
    network: str = "cnn4",
    options: Options | None = None,
    *,
    channels: int | None = None,
    image_shape: tuple[int, int, int] = (1, 16, 16),
    ways: int = 3,
    seed: int = 0,
) -> InnerOptimizer:
    """The method on a network of fixed start, in float64; 4 channels, or 2 where the network multiplies them."""
    width = channels or (2 if network == "resnet12" else 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = networks.create(network, ways=ways, image_shape=image_shape, channels=width).double()
        return optimizers.create(name, start, **{"alpha": 0.05, **(options or {})})


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
