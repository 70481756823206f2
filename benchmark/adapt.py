"""The inner loop: from a task's support set to its trajectory φ_0 … φ_K.

    state_0 = init_state(noise);   state_k = step(state_{k−1}, ∇_φ L_S(φ_{k−1}), k−1),   φ_k = params(state_k)

Without a graph (evaluation), nothing is kept but the trace. With a graph, inner gradients are themselves differentiable
from one step on, and constants of the graph before it, where no second derivative is built: what
:mod:`benchmark.estimators` tells apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmark.errors import UserError
from optimizers.base import InnerOptimizer, Params, State, Trajectory, misfits


@dataclass(frozen=True)
class InnerLoop:
    """How the inner loop is walked, and the moment of training to which its objective belongs."""

    steps: int = 5
    """K ≥ 0."""
    create_graph: bool = False
    """Keep the graph from the meta-parameters to every state."""
    exact_from: int = 0
    """With a graph: the first step whose inner gradient is differentiated, see :mod:`benchmark.estimators`."""
    functional: bool = False
    """Take inner gradients by ``torch.func.grad``, for use inside function transforms."""
    trace: bool = True
    """Fill ``nll`` and ``grad_norm``, which costs one more pass, at k = K: ask for it only to look."""
    trace_steps: int | None = None
    """≥ `steps`: the trace, and nothing else, goes on beyond K, to see whether a method stays steady there."""
    progress: float = 1.0
    """Share of the meta-training that is done."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, got {self.steps}")
        if self.trace_steps is not None and self.trace_steps < self.steps:
            raise ValueError(f"trace_steps must be at least steps = {self.steps}, got {self.trace_steps}")

    def differentiates(self, k: int) -> bool:
        """Whether the inner gradient of step k belongs to the graph."""
        return self.create_graph and k >= self.exact_from


def adapt(
    optimizer: InnerOptimizer,
    support_x: Tensor,
    support_y: Tensor,
    steps: int = 5,
    create_graph: bool = False,
    noise: Tensor | None = None,
) -> Trajectory:
    """Adapt to one task by `steps` ≥ 0 inner updates, with its trace.

    support_x [S, ...] and support_y [S, ...] are the support set; `noise` is what the method draws per task.
    `create_graph` keeps the graph from the meta-parameters to the returned state. :func:`unroll` has the other knobs.

    Raises
    ------
    ValueError: negative `steps`.
    UserError: a method whose state has a leaf that is no tensor.
    """
    return unroll(optimizer, support_x, support_y, InnerLoop(steps, create_graph), noise)


def unroll(
    optimizer: InnerOptimizer, support_x: Tensor, support_y: Tensor, loop: InnerLoop, noise: Tensor | None = None
) -> Trajectory:
    """One task's inner loop, walked as `loop` says; raises what :func:`adapt` does."""
    nll: list[Tensor] = []
    norm: list[Tensor] = []

    def record(loss: Tensor, grads: Params) -> None:
        if loop.trace:
            nll.append(loss.detach())
            norm.append(_norm(grads))

    with torch.set_grad_enabled(loop.create_graph):
        state = start_state(optimizer, noise)
        visited = [state]
        for k in range(loop.steps):
            state, loss, grads = inner_step(optimizer, state, k, support_x, support_y, loop)
            record(loss, grads)
            if loop.create_graph:
                visited.append(state)
        walked = Trajectory(state, optimizer.params(state), progress=loop.progress)
        if loop.create_graph:
            walked.visited = tuple(visited)
    if loop.trace:
        plain = replace(loop, create_graph=False)
        with torch.no_grad():
            for k in range(loop.steps, loop.trace_steps or loop.steps):
                state, loss, grads = inner_step(optimizer, state, k, support_x, support_y, plain)
                record(loss, grads)
            gradient = functional_gradient if loop.functional else support_gradient
            record(*gradient(optimizer, optimizer.params(state), support_x, support_y, create_graph=False))
        walked.nll, walked.grad_norm = torch.stack(nll), torch.stack(norm)
    return walked


def start_state(optimizer: InnerOptimizer, noise: Tensor | None) -> State:
    """The state from which a task starts."""
    return _checked(optimizer, optimizer.init_state(noise))


def inner_step(
    optimizer: InnerOptimizer, state: State, k: int, x: Tensor, y: Tensor, loop: InnerLoop
) -> tuple[State, Tensor, Params]:
    """Update k on the support set (x, y): the next state, and the loss and gradient at the present one.

    Where `loop` differentiates step k, so can the gradient be; elsewhere it is a constant of the update.
    """
    gradient = functional_gradient if loop.functional else support_gradient
    with torch.set_grad_enabled(loop.differentiates(k)):
        params = optimizer.params(state)
    loss, grads = gradient(optimizer, params, x, y, create_graph=loop.differentiates(k))
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
