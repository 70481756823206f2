"""The rules of the contract that speak of the meta-gradient: differences, vmap, and both through batch norm."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from optimizers.base import InnerOptimizer, Task
from optimizers.contract import kit
from optimizers.contract.kit import ContractViolation, Factory, Outcome, made, noise_of
from optimizers.contract.small import NORMS, SmallNorm, small_task


def differences(factory: Factory) -> Outcome:
    """The float64 meta-gradient agrees with finite differences for every meta-parameter, away from the start.

    An objective that changes with the progress of the training is tried when none of it is done, too.
    """
    optimizer, _ = made(factory)
    kit.perturb(optimizer)
    task, drawn = small_task(), noise_of(optimizer)
    losses = [kit.outer_loss(optimizer, task, drawn, progress=progress).item() for progress in (0.0, 1.0)]
    count, most = 0, 0.0
    for progress in (1.0,) if losses[0] == losses[1] else (1.0, 0.0):
        gradients = kit.meta_gradient(optimizer, task, drawn, progress=progress)
        value = functools.partial(kit.outer_loss, optimizer, task, drawn, progress=progress)
        pairs = kit.finite_differences(optimizer, gradients, value)
        worst, where = kit.worst_difference(pairs)
        if not worst <= 1e-5:
            when = "" if progress else ", at the beginning of the training"
            raise ContractViolation("differences", f"along a random direction of {where}{when}")
        count, most = len(pairs), max(most, worst)
    return f"{count} meta-parameters" + ("" if losses[0] == losses[1] else ", early and late in training"), most


def vmap(factory: Factory) -> Outcome:
    """vmap over tasks gives the meta-gradient of a loop over them."""
    optimizer, _ = made(factory)
    kit.perturb(optimizer)
    tasks = [small_task(seed) for seed in (0, 1)]
    drawn = [noise_of(optimizer, seed) for seed in (0, 1)]
    looped, mapped = _looped(optimizer, tasks, drawn), _vmapped(optimizer, tasks, drawn)
    error = max(float((mapped[n] - looped[n]).abs().max()) for n in mapped)
    if not error < 1e-9:
        raise ContractViolation("vmap", f"the vmapped meta-gradient differs from the loop by {error:.1e}")
    return "equals the loop", error


def norm(factory: Factory) -> Outcome:
    """In a network with affine batch norm, loop and vmap give the meta-gradient of one written out from primitives.

    Torch's own batch norm is right under ``vmap(grad(·))`` and wrong where a method vmaps a pull-back of its own that
    is differentiated again.
    """
    optimizer, _ = made(factory, norm=NORMS[0])
    kit.perturb(optimizer)
    tasks = [small_task(seed) for seed in (0, 1)]
    drawn = [noise_of(optimizer, seed) for seed in (0, 1)]
    found: dict[str, dict[str, Tensor]] = {}
    for kind in NORMS:
        for module in optimizer.modules():
            if isinstance(module, SmallNorm):
                module.kind = kind
        found[kind] = _looped(optimizer, tasks, drawn)
        found[f"{kind}, vmapped"] = _vmapped(optimizer, tasks, drawn)
    expected, worst = found[NORMS[0]], 0.0
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    for kind, gradients in found.items():
        error = max(float((gradients[name] - value).abs().max()) for name, value in expected.items()) / scale
        if not error < 1e-9:
            raise ContractViolation(
                "norm",
                f"with batch norm ({kind}) the meta-gradient differs by {error:.1e} from a loop with one written out "
                "from primitives: is a pull-back vmapped and differentiated again?",
            )
        worst = max(worst, error)
    return f"{len(found)} ways agree", worst


def _looped(optimizer: InnerOptimizer, tasks: list[Task], drawn: list[Tensor | None]) -> dict[str, Tensor]:
    each = [kit.meta_gradient(optimizer, t, n) for t, n in zip(tasks, drawn, strict=True)]
    return {name: torch.stack([gradients[name] for gradients in each]).mean(0) for name in each[0]}


def _vmapped(optimizer: InnerOptimizer, tasks: list[Task], drawn: list[Tensor | None]) -> dict[str, Tensor]:
    given = [each for each in drawn if each is not None]
    return kit.vmapped_meta_gradient(optimizer, tasks, torch.stack(given) if given else None)
