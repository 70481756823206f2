"""The inner loop: from a task's support set to its trajectory φ_0 … φ_K.

    state_0 = init_state(noise);   state_k = step(state_{k−1}, ∇_φ L_S(φ_{k−1}), k−1),   φ_k = params(state_k)

Without a graph (evaluation), nothing is kept but the trace. With a graph, inner gradients are themselves differentiable
from one step on, and constants of the graph before it, where no second derivative is built: what
:mod:`benchmark.estimators` tells apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from benchmark.errors import UserError
from optimizers.base import InnerOptimizer, Params, State, misfits


@dataclass
class Trajectory:
    """One task's inner loop."""

    state: State
    """The state after the last step."""
    params: Params
    """φ_K by name."""
    nll: Tensor
    """Support loss at k = 0 … K (or `trace_steps`), [K+1], without a graph; empty where no trace was asked for."""
    grad_norm: Tensor
    """‖∇_φ L_S‖₂ over all adapted parameters at k = 0 … K, [K+1]; empty where no trace was asked for."""
    visited: tuple[State, ...] = field(default=())
    """The states at k = 0 … K with their graph; empty where no graph is kept."""
    progress: float = 1.0
    """Share of the meta-training that is done, for objectives that change with it; 1 outside of it."""


class InnerLoop(NamedTuple):
    """What a meta-gradient is taken through: an inner loop, and the moment of training its objective belongs to."""

    steps: int
    exact_from: int
    """The first step whose inner gradient is differentiated."""
    progress: float
    """Share of the meta-training that is done."""


def adapt(
    optimizer: InnerOptimizer,
    support_x: Tensor,
    support_y: Tensor,
    steps: int = 5,
    create_graph: bool = False,
    noise: Tensor | None = None,
    trace: bool = True,
    trace_steps: int | None = None,
    functional: bool = False,
    exact_from: int = 0,
) -> Trajectory:
    """Adapt to one task by `steps` ≥ 0 inner updates.

    support_x [S, ...] and support_y [S, ...] are the support set; `noise` is what the method draws per task.
    `create_graph` keeps the graph from the meta-parameters to the returned state. `trace` fills ``nll`` and
    ``grad_norm``, which costs one more pass, at k = K: ask for it only to look. `trace_steps` ≥ `steps` makes the
    trace, and nothing else, go on beyond K (to see whether a method that was trained for K steps stays steady).
    `functional` takes inner gradients by ``torch.func.grad``, for use inside function transforms. `exact_from` is the
    step from which on inner gradients belong to the graph, see :func:`benchmark.estimators.exact_from`.
    """
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    if trace_steps is not None and trace_steps < steps:
        raise ValueError(f"trace_steps must be at least steps = {steps}, got {trace_steps}")
    gradient = functional_gradient if functional else support_gradient
    nll: list[Tensor] = []
    norm: list[Tensor] = []

    def record(loss: Tensor, grads: Params) -> None:
        if trace:
            nll.append(loss.detach())
            norm.append(_norm(grads))

    with torch.set_grad_enabled(create_graph):
        state = start_state(optimizer, noise)
        visited = [state]
        for k in range(steps):
            state, loss, grads = inner_step(
                optimizer,
                state,
                k,
                support_x,
                support_y,
                create_graph=create_graph and k >= exact_from,
                functional=functional,
            )
            record(loss, grads)
            if create_graph:
                visited.append(state)
        params = optimizer.params(state)
    if trace:
        with torch.no_grad():
            beyond = state
            for k in range(steps, trace_steps or steps):
                beyond, loss, grads = inner_step(
                    optimizer, beyond, k, support_x, support_y, create_graph=False, functional=functional
                )
                record(loss, grads)
            last = optimizer.params(beyond)
            record(*gradient(optimizer, last, support_x, support_y, create_graph=False))
    empty = support_x.new_empty(0)
    return Trajectory(
        state=state,
        params=params,
        nll=torch.stack(nll) if trace else empty,
        grad_norm=torch.stack(norm) if trace else empty,
        visited=tuple(visited) if create_graph else (),
    )


def start_state(optimizer: InnerOptimizer, noise: Tensor | None) -> State:
    """The state from which a task starts."""
    return _checked(optimizer, optimizer.init_state(noise))


def inner_step(
    optimizer: InnerOptimizer,
    state: State,
    k: int,
    x: Tensor,
    y: Tensor,
    *,
    create_graph: bool,
    functional: bool = False,
) -> tuple[State, Tensor, Params]:
    """Update k on the support set (x, y): the next state, and the loss and gradient at the present one.

    With `create_graph` the gradient can itself be differentiated; without, it is a constant of the update.
    """
    gradient = functional_gradient if functional else support_gradient
    with torch.set_grad_enabled(create_graph):
        params = optimizer.params(state)
    loss, grads = gradient(optimizer, params, x, y, create_graph=create_graph)
    return _checked(optimizer, optimizer.step(state, grads, k)), loss, grads


def support_gradient(
    optimizer: InnerOptimizer, params: Params, x: Tensor, y: Tensor, *, create_graph: bool
) -> tuple[Tensor, Params]:
    """Loss and its gradient with respect to φ = `params`; zeros where the loss does not depend on a parameter."""
    if create_graph:
        point = {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in params.items()}
    else:
        point = {name: p.detach().requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        loss = optimizer.loss(point, x, y)
        found = torch.autograd.grad(loss, list(point.values()), create_graph=create_graph, allow_unused=True)
    return loss, {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(point.items(), found, strict=True)
    }


def functional_gradient(
    optimizer: InnerOptimizer, params: Params, x: Tensor, y: Tensor, *, create_graph: bool
) -> tuple[Tensor, Params]:
    """:func:`support_gradient` by function transforms, which build a graph where one is being built around them."""
    if not create_graph:
        params = {name: p.detach() for name, p in params.items()}
    grads, loss = torch.func.grad_and_value(lambda point: optimizer.loss(point, x, y))(params)
    if not create_graph:
        grads = {name: g.detach() for name, g in grads.items()}
    return loss, grads


def _checked(optimizer: InnerOptimizer, state: State) -> State:
    """`state`, or :class:`UserError` where one of its leaves is no tensor: it can be neither vmapped nor recomputed."""
    odd = misfits(state)
    if odd:
        raise UserError(
            f"{optimizer.card.title}: {', '.join(odd)}; every leaf of a method's state must be a tensor: count in one, "
            "and see optimizers.testing.check_inner_optimizer for the whole contract"
        )
    return state


def _norm(grads: Params) -> Tensor:
    return torch.stack([g.detach().square().sum() for g in grads.values()]).sum().sqrt()
