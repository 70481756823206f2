"""One task's meta-gradient by function transforms: what is vmapped over tasks, and what keeps memory flat in K.

An outer backward pass *around* vmap is silently wrong through batch norm; ``vmap(grad(task))`` is right, so everything
here is a function of θ and one task that returns a gradient. With `recompute`, the forward pass keeps only the states
of the inner loop; the backward pass walks them from last to first, repeats one inner step at a time with its graph,
pulls the cotangent of the new state back to θ and to the old state, and drops the graph::

    v_K = ∂objective/∂state_K,    (dθ_k, v_{k−1}) = vjp of (θ, state_{k−1}) ↦ state_k at v_k

Leaves of a state that are no floating-point tensors, a counter say, have no cotangent: they are passed beside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vjp

from optimizers.base import InnerOptimizer, State, Task

Theta = dict[str, Tensor]
TaskGradient = Callable[[Theta, Task, Tensor | None], tuple[Tensor, Theta]]


@dataclass(frozen=True)
class Unrolled:
    """An inner loop and what it is for, as the functions that are differentiated."""

    steps: int
    start: Callable[[InnerOptimizer, Tensor | None], State]
    """(optimizer, noise) ↦ state_0."""
    step: Callable[[InnerOptimizer, State, int, Task], State]
    """(optimizer, state_k, k, task) ↦ state_{k+1}."""
    objective: Callable[[InnerOptimizer, tuple[State, ...], Task], Tensor]
    """(optimizer, state_0 … state_K, task) ↦ the outer loss, a scalar."""

    def outer_loss(self, optimizer: InnerOptimizer, task: Task, noise: Tensor | None) -> Tensor:
        """All of it, from the noise to the outer loss."""
        visited = [self.start(optimizer, noise)]
        for k in range(self.steps):
            visited.append(self.step(optimizer, visited[-1], k, task))
        return self.objective(optimizer, tuple(visited), task)


class _Bound(nn.Module):
    """Turns a function of an optimizer into a function of its meta-parameters."""

    def __init__(self, optimizer: InnerOptimizer) -> None:
        super().__init__()
        self.optimizer = optimizer

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self.optimizer, *args)


def at(optimizer: InnerOptimizer, theta: Theta, function: Callable[..., Any], *args: Any) -> Any:
    """``function(optimizer, *args)`` with the meta-parameters `theta` in place of the optimizer's own."""
    named = {f"optimizer.{name}": value for name, value in theta.items()}
    return functional_call(_Bound(optimizer), named, (function, *args))


def task_gradient(optimizer: InnerOptimizer, loop: Unrolled, *, recompute: bool) -> TaskGradient:
    """The function (θ, task, noise) ↦ (outer loss, its gradient by meta-parameter name) of one task.

    With `recompute` its memory does not grow with the steps, for one more forward and backward pass per step; a method
    whose objective looks at all visited states still holds what it computes from them.
    """

    def whole(theta: Theta, task: Task, noise: Tensor | None) -> tuple[Tensor, Theta]:
        gradient, loss = grad_and_value(lambda th: at(optimizer, th, loop.outer_loss, task, noise))(theta)
        return loss, gradient

    def flat(theta: Theta, task: Task, noise: Tensor | None) -> tuple[Tensor, Theta]:
        def start(th: Theta) -> tuple[State, State]:
            return _split(at(optimizer, th, loop.start, noise))

        def step(k: int, th: Theta, moving: State, fixed: State) -> tuple[State, State]:
            return _split(at(optimizer, th, loop.step, _joined(moving, fixed), k, task))

        def end(th: Theta, visited: tuple[State, ...]) -> Tensor:
            states = tuple(_joined(moving, fixed) for moving, fixed in zip(visited, beside, strict=True))
            return at(optimizer, th, loop.objective, states, task)

        moving, fixed = start(theta)
        visited, beside = [moving], [fixed]
        for k in range(loop.steps):
            moving, fixed = step(k, theta, moving, fixed)
            visited.append(moving)
            beside.append(fixed)
        loss, pull = vjp(end, theta, tuple(visited))[:2]
        gradient, cotangents = pull(torch.ones_like(loss))
        cotangent = cotangents[-1]
        for k in reversed(range(loop.steps)):
            pull = vjp(lambda th, state, k=k: step(k, th, state, beside[k]), theta, visited[k], has_aux=True)[1]
            more, through = pull(cotangent)
            gradient, cotangent = _add(gradient, more), _add(cotangents[k], through)
        pull = vjp(start, theta, has_aux=True)[1]
        return loss, _add(gradient, pull(cotangent)[0])

    return torch.no_grad()(
        flat if recompute else whole
    )  # transforms build their own graphs, and nobody else's is wanted


def _add(a: Any, b: Any) -> Any:
    """Sum of two nested dicts of tensors."""
    return {key: _add(a[key], b[key]) for key in a} if isinstance(a, dict) else a + b


def _split(state: State) -> tuple[State, State]:
    """The leaves of a state that can be differentiated, and the others, each nested as they were."""
    moving: State = {}
    fixed: State = {}
    for key, value in state.items():
        if isinstance(value, dict):
            moving[key], fixed[key] = _split(value)
        else:
            (moving if value.is_floating_point() else fixed)[key] = value
    return moving, fixed


def _joined(moving: State, fixed: State) -> State:
    """The state that :func:`_split` took apart."""
    return {
        key: _joined(moving[key], fixed[key]) if isinstance(moving.get(key), dict) else (moving | fixed)[key]
        for key in moving | fixed
    }
