"""ECML: a start from which adaptation is well conditioned (reconstructed).

The inner update is plain gradient descent, whose pace is set by the spread of the eigenvalues of the Gauss–Newton
matrix JᵀJ, J = ∂r/∂φ for the support residuals r. The outer loss therefore gains a penalty on that spread at every
point visited. JᵀJ shares its non-zero spectrum with the small Gram matrix J Jᵀ, which is what is formed. A classifier's
residuals, softmax minus one-hot, sum to zero in every example; they are taken in an orthonormal basis of that
subspace, since the null direction's eigenvalue has no logarithm. Nothing changes, and nothing is paid, at test.

The rows of J are pull-backs of one function, which vmap takes together, except where a normalisation lies between the
parameters and the residuals. The derivative of γ that vmap makes of torch's affine batch norm reads the batch's saved
mean and deviation as constants: the row is right, its own derivative, which the meta-gradient needs, is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.func import vjp, vmap

from optimizers.base import Card, InnerOptimizer, Params, State, Task, Trajectory
from optimizers.errors import BadOption, choice


class ECML(InnerOptimizer):
    """Gradient descent whose start is trained for L_Q(φ_K) + γ · mean over k < K of penalty(φ_k)."""

    card = Card(
        title="ECML (conditioned adaptation)",
        paper="Hiller, Harandi, Drummond: On Enforcing Better Conditioned Meta-Learning for Rapid Few-Shot Adaptation. "
        "NeurIPS 2022",
        kind="start",
        bibtex="""
        @inproceedings{hiller2022ecml,
          author = {Hiller, Markus and Harandi, Mehrtash and Drummond, Tom},
          title = {On Enforcing Better Conditioned Meta-Learning for Rapid Few-Shot Adaptation},
          booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
          year = {2022},
        }
        """,
        geometry="identity; conditioned start",
        equation="φ_k = φ_{k−1} − α G; outer loss L_Q(φ_K) + γ/K Σ_{k<K} var(log10 λ(J_k J_kᵀ)), J_k = ∂r/∂φ at φ_k",
        learned="The start φ_0 alone.",
        differences="No code is public; γ and the exact residual are not established. Here r is softmax minus one-hot "
        "in a basis without the null direction, γ = 0.1, and J is taken with respect to the classifier's parameters, "
        "which costs one more forward pass at each visited point, and none per residual. The classifier is the "
        "network's last layer, whether it adapts or not. Eigenvalues below 1e-6 of the largest are dropped: float32 "
        "does not resolve them, and their logarithm's gradient explodes.",
        options={
            "gamma": "weight γ ≥ 0 of the penalty",
            "penalty": "`variance` of log10 λ, or `ratio`, log10 of λ_max / λ_min",
            "wrt": "parameters of J: `head` (the network's last layer), or `all` that adapt, which costs one backward "
            "pass per residual",
        },
        reconstructed=True,
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        gamma: float = 0.1,
        penalty: str = "variance",
        wrt: str = "head",
        **common: Any,
    ) -> None:
        super().__init__(network, **common)
        if not gamma >= 0:
            raise BadOption(f"gamma must be 0 or more, got {gamma}")
        self.gamma = float(gamma)
        self.penalty = choice("penalty", penalty, ("variance", "ratio"))
        self.wrt = choice("wrt", wrt, ("head", "all"))
        self.conditioned = self.adapted if self.wrt == "all" else self.last_layer()

    def step(self, state: State, grads: Params, k: int) -> State:
        return {"phi": self.descend(state["phi"], grads)}

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        loss = super().objective(task, trajectory)
        points = [self.params(state) for state in trajectory.visited[:-1]]
        if not points or not self.gamma:
            return loss
        spread = [self.spread(self.gram(point, task.support_x, task.support_y)) for point in points]
        return loss + self.gamma * torch.stack(spread).mean()

    def residuals(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Residuals r, flat: [S·(ways−1)] of a classifier, [S·outputs] of a regression (network with its own loss)."""
        outputs = self.predict(params, x)
        if self.is_regression:
            return (outputs - y).flatten()
        ways = outputs.shape[-1]
        target = (y[:, None] == torch.arange(ways, device=y.device)).to(outputs.dtype)  # one_hot has no rule for vmap
        return ((outputs.softmax(-1) - target) @ without_constant(ways, outputs)).flatten()

    def gram(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """J Jᵀ with J = ∂r/∂φ at φ = `params`, [m, m] for m residuals."""
        named = dict(self.network.named_parameters()) | params
        together = False

        def residuals(chosen: Params) -> Tensor:
            nonlocal together
            found = self.residuals({**params, **chosen}, x, y)
            together = self.wrt == "head" and not _normalises(found)
            return found

        value, pull = vjp(residuals, {name: named[name] for name in self.conditioned})[:2]
        basis = torch.eye(len(value), dtype=value.dtype, device=value.device)
        rows = vmap(_flat(pull))(basis) if together else torch.stack([_flat(pull)(e) for e in basis])
        return rows @ rows.mT

    def spread(self, gram: Tensor) -> Tensor:
        """Variance of log10 λ, or log10 λ_max − log10 λ_min, over the eigenvalues above 1e-6 of the largest.

        Zero where none can be told from zero: every support example is fitted to the last digit.
        """
        finite = gram.isfinite().all()
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        values = torch.linalg.eigvalsh(torch.where(finite, gram, identity))
        some = values[-1] > torch.finfo(values.dtype).tiny / 1e-6  # or a logarithm's derivative overflows
        kept = (values > 1e-6 * values[-1]) & some
        log = torch.where(kept, values, torch.where(some, values[-1], 1.0)).log10()
        if self.penalty == "ratio":
            spread = log.amax() - log.amin()
        else:
            count = kept.sum().clamp_min(1)
            mean = torch.where(kept, log, 0.0).sum() / count
            spread = torch.where(kept, (log - mean).square(), 0.0).sum() / count
        return torch.where(finite, spread, math.nan)  # of a task that diverged


def without_constant(ways: int, like: Tensor) -> Tensor:
    """Orthonormal basis [ways, ways−1] of the vectors that sum to zero (Helmert's)."""
    rank = torch.arange(ways, dtype=like.dtype, device=like.device)
    column = rank[1:]
    basis = torch.where(rank[:, None] < column, 1.0, 0.0) - torch.where(rank[:, None] == column, column, 0.0)
    return basis / (column * (column + 1)).sqrt()


def _flat(pull: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    return lambda row: torch.cat([g.flatten() for g in pull(row)[0].values()])


def _normalises(output: Tensor) -> bool:
    """Whether a normalisation, or an operation whose derivative is not torch's own, is in the graph of `output`."""
    seen, left = set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if "Norm" in node.name() or isinstance(node, BackwardCFunction):
            return True
        seen.add(node)
        left += [before for before, _ in node.next_functions]
    return False
