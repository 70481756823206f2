"""The rules of the contract, each a function of a factory that returns (detail, error) or raises a violation.

Order matters: a method that breaks a plain rule is told so before a subtle one fails because of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import InnerOptimizer, Trajectory, misfits
from optimizers.contract import kit
from optimizers.contract.derivative_rules import differences, norm, vmap
from optimizers.contract.kit import ContractViolation, Factory, Outcome, leaves, made, noise_of, walk
from optimizers.contract.small import small_task
from optimizers.maml import GradientDescent

DRAWS = 32
"""Draws of the start in which a meta-parameter must be seen to train."""


def card(factory: Factory) -> Outcome:
    """There is a card, and it fits: title, paper, geometry, equation and what is learned are said."""
    optimizer, _ = made(factory)
    empty = [f for f in ("title", "paper", "geometry", "equation", "learned") if not getattr(optimizer.card, f).strip()]
    if empty:
        raise ContractViolation("card", f"the card says nothing under {', '.join(empty)}")
    return optimizer.card.title, None


def noise(factory: Factory) -> Outcome:
    """Per-task noise comes from the generator that is given, and from nothing else."""
    optimizer, _ = made(factory)
    first, again = noise_of(optimizer), noise_of(optimizer)
    if (first is None) != (again is None) or (first is not None and not torch.equal(first, again)):  # type: ignore[arg-type]
        raise ContractViolation("noise", "the same generator seed gave different numbers")
    return "none" if first is None else f"{first.numel()} numbers per task", None


def state(factory: Factory) -> Outcome:
    """The state is a dict, nested or not, whose every leaf is a tensor, at every step."""
    optimizer, _ = made(factory)
    task = small_task()
    for k in range(3):
        odd = misfits(walk(optimizer, task, noise_of(optimizer), steps=k, graph=False).state)
        if odd:
            raise ContractViolation(
                "state",
                f"after {k} steps {', '.join(odd)}; every leaf of a nested dict must be a tensor, for it is vmapped "
                "and differentiated: count in a tensor, and keep what never changes on the module",
            )
    return "tensors only", None


def keys(factory: Factory) -> Outcome:
    """params(state) is keyed by the adapted names, with the network's shapes, dtype and device, at every step."""
    for dtype in (torch.float64, torch.float32):
        optimizer, _ = made(factory, dtype)
        expected = {n: p for n, p in optimizer.network.named_parameters() if n in optimizer.adapted}
        task = small_task(dtype=dtype)
        for k in range(3):
            params = walk(optimizer, task, noise_of(optimizer), steps=k, graph=False).params
            if set(params) != set(expected):
                odd = sorted(set(params) ^ set(expected))
                raise ContractViolation("keys", f"after {k} steps params(state) is wrongly keyed: {', '.join(odd)}")
            for name, value in params.items():
                like = expected[name]
                if value.shape != like.shape or value.dtype != like.dtype:
                    raise ContractViolation(
                        "keys",
                        f"after {k} steps {name} is {tuple(value.shape)} {value.dtype}, "
                        f"expected {tuple(like.shape)} {like.dtype}",
                    )
    return f"{len(expected)} tensors", None


def device(factory: Factory) -> Outcome:
    """Everything follows the meta-parameters to their device (tried on torch's `meta` device)."""
    optimizer, _ = made(factory)
    optimizer.to("meta")
    drawn = noise_of(optimizer)
    state = optimizer.init_state(None if drawn is None else drawn.to("meta"))
    for k in range(2):
        params = optimizer.params(state)
        state = optimizer.step(state, {n: torch.zeros_like(p) for n, p in params.items()}, k)
    left = [t for t in [*leaves(state), *leaves(optimizer.params(state))] if t.device.type != "meta"]
    if left:
        raise ContractViolation("device", f"{len(left)} tensors of the state did not follow the meta-parameters")
    return "follows", None


def pure(factory: Factory) -> Outcome:
    """step and params change neither the state nor the gradients they are given: nothing is updated in place."""
    optimizer, _ = made(factory)
    with torch.no_grad():
        state = optimizer.init_state(noise_of(optimizer))
        for k in range(3):
            params = optimizer.params(state)
            grads = {n: torch.ones_like(p) for n, p in params.items()}
            given = [*leaves(state), *leaves(grads), *optimizer.parameters()]
            before, shape = [t.detach().clone() for t in given], _skeleton(state)
            after = optimizer.step(state, grads, k)
            optimizer.params(after)
            if _skeleton(state) != shape or not all(torch.equal(a, b) for a, b in zip(given, before, strict=True)):
                raise ContractViolation("pure", "step changed in place the state, the gradients or a meta-parameter")
            state = after
    return "nothing in place", None


def stateless(factory: Factory) -> Outcome:
    """Nothing about a task is kept on the module, and no task sees another."""
    optimizer, _ = made(factory)
    drawn = [noise_of(optimizer, seed) for seed in (0, 1)]
    tasks = [small_task(seed) for seed in (0, 1)]
    keep: list[Any] = []  # what was there stays alive, so that no identity is used twice
    before = _fingerprint(optimizer, keep)
    alone = [walk(optimizer, task, n, graph=False).params for task, n in zip(tasks, drawn, strict=True)]
    kit.outer_loss(optimizer, tasks[0], drawn[0])
    after = _fingerprint(optimizer, keep)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise ContractViolation("stateless", f"an inner loop changed attributes of the module: {', '.join(changed)}")
    states = [optimizer.init_state(n) for n in drawn]
    for k in range(kit.STEPS):  # the two tasks in turns
        for i, task in enumerate(tasks):
            point = {n: p.detach().requires_grad_() for n, p in optimizer.params(states[i]).items()}
            loss = optimizer.loss(point, task.support_x, task.support_y)
            found = torch.autograd.grad(loss, list(point.values()))
            with torch.no_grad():
                states[i] = optimizer.step(states[i], dict(zip(point, found, strict=True)), k)
    error = max(kit.distance(optimizer.params(s), p) for s, p in zip(states, alone, strict=True))
    if error > 1e-12:
        raise ContractViolation("stateless", f"two tasks in turns differ from one after the other by {error:.1e}")
    return "tasks in turns equal tasks in a row", error


def graph(factory: Factory) -> Outcome:
    """Evaluation (under no_grad) leaves no graph behind and touches no meta-parameter."""
    optimizer, _ = made(factory)
    before = {n: p.detach().clone() for n, p in optimizer.state_dict().items()}
    done = walk(optimizer, small_task(), noise_of(optimizer), graph=False)
    held = [t for t in [*leaves(done.state), *leaves(done.params)] if t.grad_fn is not None]
    if held:
        raise ContractViolation("graph", f"{len(held)} tensors after evaluation still hold a graph")
    touched = [n for n, p in optimizer.state_dict().items() if not torch.equal(p, before[n])]
    touched += [n for n, p in optimizer.named_parameters() if p.grad is not None]
    if touched:
        raise ContractViolation("graph", f"evaluation changed {', '.join(touched)}")
    return "none is left", None


def diverged(factory: Factory) -> Outcome:
    """A task whose losses are not finite raises nothing and is seen: objective and parameters are not finite either."""
    optimizer, _ = made(factory)
    task, noise = small_task(), noise_of(optimizer)
    task = replace(task, support_x=torch.full_like(task.support_x, math.nan))
    try:
        params = walk(optimizer, task, noise, graph=False).params
        loss = kit.outer_loss(optimizer, task, noise)
        torch.autograd.grad(loss, list(kit.learned(optimizer).values()), allow_unused=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ContractViolation(
            "diverged",
            f"on a task whose loss is NaN {type(error).__name__} was raised ({reason}); it is a result: let NaN go on",
        ) from error
    if loss.isfinite() or all(value.isfinite().all() for value in params.values()):
        raise ContractViolation("diverged", "a task whose loss is NaN came out finite: nobody sees that it diverged")
    return "NaN stays NaN", None


def alive(factory: Factory) -> Outcome:
    """No meta-parameter's gradient is identically zero after two meta-steps, unless the card says so.

    A ReLU that is off in one draw of the start is on in another: what is dead is dead in all of them.
    """
    seen: dict[str, bool] = {}
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        optimizer, _ = made(factory)
        gradient = partial(_meta_gradient, optimizer)
        for name, most in kit.largest_gradients(optimizer, gradient).items():
            seen[name] = seen.get(name, False) or bool(most.any())
        if all(seen.values()) or not optimizer.card.alive:
            break
    dead = [name for name, moved in seen.items() if not moved]
    if dead and optimizer.card.alive:
        raise ContractViolation(
            "alive", f"after two meta-steps the gradient is still exactly zero of {', '.join(dead)}"
        )
    if not dead and not optimizer.card.alive:
        raise ContractViolation("alive", "the card says that some meta-parameters are dead, and none is")
    return f"{len(dead)} of {len(seen)} meta-parameters dead", None


def _meta_gradient(optimizer: InnerOptimizer, seed: int) -> dict[str, Tensor]:
    return kit.meta_gradient(optimizer, small_task(seed), noise_of(optimizer, seed))


def start(factory: Factory) -> Outcome:
    """Where the card claims it, the method starts exactly on MAML's trajectory."""
    optimizer, untouched = made(factory)
    if not optimizer.card.starts_as_maml:
        return "not claimed", None
    plain = GradientDescent(untouched, alpha=optimizer.alpha)
    plain.adapted = optimizer.adapted
    task, error = small_task(), 0.0
    own, maml = (_path(o, walk(o, task, n, graph=True)) for o, n in ((optimizer, noise_of(optimizer)), (plain, None)))
    for k, (point, reference) in enumerate(zip(own, maml, strict=True)):
        error = max(error, kit.distance(point, reference))
        if not error < 1e-12:
            raise ContractViolation("start", f"the card claims MAML's trajectory; at step {k} φ is {error:.1e} off")
    return f"MAML's φ_0 … φ_{kit.STEPS}", error


def _path(optimizer: InnerOptimizer, done: Trajectory) -> list[dict[str, Tensor]]:
    return [optimizer.params(state) for state in done.visited]


def _skeleton(tree: Any) -> Any:
    """The nesting of a state and which tensors it holds."""
    if isinstance(tree, dict):
        return {key: _skeleton(value) for key, value in tree.items()}
    return [_skeleton(value) for value in tree] if isinstance(tree, (list, tuple)) else id(tree)


def _fingerprint(module: nn.Module, keep: list[Any]) -> dict[str, Any]:
    """Every attribute of every submodule by name; what changes when anything is stored, replaced or written."""

    def mark(value: Any) -> Any:
        keep.append(value)
        if isinstance(value, Tensor):
            return id(value), value._version
        if isinstance(value, dict):
            return {key: mark(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [mark(item) for item in value]
        return value if isinstance(value, (bool, int, float, str, bytes, type(None))) else id(value)

    return {
        f"{name}.{attribute}".lstrip("."): mark(value)
        for name, each in module.named_modules()
        for attribute, value in vars(each).items()
    }


RULES: dict[str, Callable[[Factory], Outcome]] = {
    "card": card,
    "noise": noise,
    "state": state,
    "keys": keys,
    "device": device,
    "pure": pure,
    "stateless": stateless,
    "graph": graph,
    "diverged": diverged,
    "differences": differences,
    "vmap": vmap,
    "norm": norm,
    "alive": alive,
    "start": start,
}
"""Every rule by name, in the order in which they are run."""
