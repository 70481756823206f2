"""What the rules of the contract measure with: an inner loop of the kit's own, meta-gradients, finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from optimizers.base import Card, InnerOptimizer, Task, Trajectory
from optimizers.contract.small import small_network
from optimizers.tensors.stop_gradient import hold

Factory = Callable[[nn.Module], InnerOptimizer]
Outcome = tuple[str, float | None]
"""What a rule found: in words, and how far off where that is a number."""
STEPS = 2


class ContractViolation(AssertionError):
    """A rule of the contract is broken; ``rule`` is its name."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"rule {rule!r} is broken: {message}")
        self.rule = rule


@dataclass(frozen=True)
class Finding:
    """One rule that holds, and how far off it was where that is a number."""

    rule: str
    detail: str
    error: float | None = None


def noise_of(optimizer: InnerOptimizer, seed: int = 0) -> Tensor | None:
    """One task's noise, from a generator of its own."""
    return optimizer.noise(torch.Generator().manual_seed(seed))


def stacked_noise(optimizer: InnerOptimizer, count: int, seed: int = 0) -> Tensor | None:
    """The noise of `count` tasks, one after another from one generator: [T, …]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [each for each in (optimizer.noise(generator) for _ in range(count)) if each is not None]
    return torch.stack(drawn) if drawn else None


def walk(
    optimizer: InnerOptimizer, task: Task, noise: Tensor | None = None, *, steps: int = STEPS, graph: bool
) -> Trajectory:
    """The inner loop by autograd; with `graph` it can be differentiated again."""
    with torch.set_grad_enabled(graph):
        visited = [optimizer.init_state(noise)]
        for k in range(steps):
            params = optimizer.params(visited[-1])
            point = {n: p if graph and p.requires_grad else p.detach().requires_grad_() for n, p in params.items()}
            with torch.enable_grad():
                loss = optimizer.loss(point, task.support_x, task.support_y)
                found = torch.autograd.grad(loss, list(point.values()), create_graph=graph)
            visited.append(optimizer.step(visited[-1], dict(zip(point, found, strict=True)), k))
        return Trajectory(visited[-1], optimizer.params(visited[-1]), visited=tuple(visited))


def learned(optimizer: InnerOptimizer) -> dict[str, nn.Parameter]:
    """The meta-parameters by name: all parameters but those that the method fixed (``requires_grad`` False)."""
    return {name: p for name, p in optimizer.named_parameters() if p.requires_grad}


def outer_loss(optimizer: InnerOptimizer, task: Task, noise: Tensor | None, *, progress: float = 1.0) -> Tensor:
    """The objective after the kit's inner loop, with its graph, when `progress` of the meta-training is done."""
    return optimizer.objective(task, replace(walk(optimizer, task, noise, graph=True), progress=progress))


def meta_gradient(
    optimizer: InnerOptimizer, task: Task, noise: Tensor | None = None, *, progress: float = 1.0
) -> dict[str, Tensor]:
    """∇_θ of the objective of one task, by name; zeros where there is no path."""
    named = learned(optimizer)
    loss = outer_loss(optimizer, task, noise, progress=progress)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def finite_differences(
    optimizer: InnerOptimizer,
    gradients: Mapping[str, Tensor],
    value: Callable[[], Tensor],
    *,
    epsilon: float = 1e-5,
    seed: int = 0,
    together: bool = False,
) -> dict[str, tuple[float, float]]:
    """Per meta-parameter: the derivative of `value` along a random direction by `gradients`, and by differences.

    With `together`, along one direction in all of them at once, under the name ``all``: quick where they are many.

    `value()` evaluates the scalar whose meta-gradient `gradients` claims to be; the differences are central, with step
    `epsilon`. Stopped gradients are held at their values, so that both speak of the same function.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, tuple[float, float]] = {}
    with hold() as held:
        value()
        named = learned(optimizer)
        for label, names in {"all": list(named)}.items() if together else ((name, [name]) for name in named):
            direction = {n: torch.randn(named[n].shape, generator=generator, dtype=torch.float64) for n in names}
            kept, ends = {n: named[n].detach().clone() for n in names}, []
            for sign in (1, -1):
                held.again()
                for n, start in kept.items():
                    named[n].data = start + sign * epsilon * direction[n].to(start)
                ends.append(value().item())
            for n, start in kept.items():
                named[n].data = start
            exact = sum(float((gradients[n] * direction[n].to(gradients[n])).sum()) for n in names)
            found[label] = exact, (ends[0] - ends[1]) / (2 * epsilon)
    return found


def worst_difference(pairs: Mapping[str, tuple[float, float]], *, floor: float = 1e-3) -> tuple[float, str]:
    """The largest |a − b| / max(|a|, |b|, floor) over :func:`finite_differences`, and where; a NaN is the worst."""
    worst, where = 0.0, ""
    for name, (exact, numeric) in pairs.items():
        error = abs(exact - numeric) / max(abs(exact), abs(numeric), floor)
        if not error <= worst:
            worst, where = error, f"{name}: meta-gradient {exact:.6e}, differences {numeric:.6e}"
    return worst, where


def largest_gradients(
    optimizer: InnerOptimizer, gradient: Callable[[int], Mapping[str, Tensor]], *, step_size: float = 1e-2
) -> dict[str, Tensor]:
    """Per entry, the largest |meta-gradient| at the start and after one and two meta-steps: what is 0 there is dead.

    `gradient(i)` is the meta-gradient of meta-batch i = 0, 1, 2 where the optimizer stands; the steps
    θ ← θ − `step_size` · sign(gradient) move it.
    """
    most = {name: torch.zeros_like(p) for name, p in learned(optimizer).items()}
    for i in range(3):
        found = gradient(i)
        for name, parameter in learned(optimizer).items():
            most[name] = torch.maximum(most[name], found[name].abs())
            parameter.data = parameter.data - step_size * found[name].sign()
    return most


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """max |a − b| over the tensors of `b`."""
    return max(float((a[name] - b[name]).detach().abs().max()) for name in b)


def perturb(optimizer: InnerOptimizer, scale: float = 0.1, seed: int = 1) -> None:
    """Move every meta-parameter off its start, where many gradients vanish."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in optimizer.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = parameter.data + scale * noise.to(parameter)


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of a nested state."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from leaves(value)


class OuterLoss(nn.Module):
    """The objective of one task with inner gradients by ``torch.func.grad``: what is vmapped."""

    def __init__(self, optimizer: InnerOptimizer) -> None:
        super().__init__()
        self.optimizer = optimizer

    def forward(self, task: dict[str, Tensor], noise: Tensor | None) -> Tensor:
        one = Task(**task)
        visited = [self.optimizer.init_state(noise)]
        for k in range(STEPS):
            gradient = grad(lambda p: self.optimizer.loss(p, one.support_x, one.support_y))
            visited.append(self.optimizer.step(visited[-1], gradient(self.optimizer.params(visited[-1])), k))
        walked = Trajectory(visited[-1], self.optimizer.params(visited[-1]), visited=tuple(visited))
        return self.optimizer.objective(one, walked)


def vmapped_meta_gradient(optimizer: InnerOptimizer, tasks: list[Task], noise: Tensor | None) -> dict[str, Tensor]:
    """Mean meta-gradient of `tasks` by ``vmap(grad(·))``."""
    outer = OuterLoss(optimizer)
    named = {f"optimizer.{name}": p.detach() for name, p in learned(optimizer).items()}
    batch = {name: torch.stack([getattr(task, name) for task in tasks]) for name in vars(tasks[0])}
    one = grad(lambda theta, task, drawn: functional_call(outer, theta, (task, drawn)))
    each = vmap(one, in_dims=(None, 0, None if noise is None else 0))(named, batch, noise)
    return {name.removeprefix("optimizer."): value.mean(0) for name, value in each.items()}


def made(
    factory: Factory, dtype: torch.dtype = torch.float64, norm: str | None = None
) -> tuple[InnerOptimizer, nn.Module]:
    """A fresh method, and the network as it was before the method took it over."""
    network = small_network(dtype, norm=norm)
    untouched = copy.deepcopy(network)
    optimizer = factory(network)
    if not isinstance(optimizer, InnerOptimizer) or not isinstance(getattr(optimizer, "card", None), Card):
        raise ContractViolation("card", "the factory must return an InnerOptimizer with a Card as its attribute `card`")
    return optimizer, untouched
