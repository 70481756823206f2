"""MetaKFO: a learned transform of the gradient that itself adapts to the task.

u = A(G) is applied to every tensor's gradient; A is learned with the start. Its distinctive part is that A moves in
the inner loop too: φ_k depends on A through the last update, so the gradient at φ_k is also a gradient with respect to
A, ∂L_S(φ_k)/∂A = −α ∂⟨G_k, A(G_{k−1})⟩/∂A, a vector-Jacobian product and no extra pass through the network. The state
therefore carries A and the last gradient.

A tensor's gradient is seen as [batch, rows, columns]: [1, out, in] for a matrix, [1, dim, 1] for a vector,
[C_out, C_in, kernel] for a convolution. The linear A is X ↦ (LᵀL) X (RᵀR): positive semi-definite, the identity at the
start. The non-linear one adds to it a ReLU network of two hidden layers whose layers are X ↦ L X R.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional as F

from optimizers.base import Card, InnerOptimizer, Params, State
from optimizers.errors import choice
from optimizers.tensors.modes import group_by_modes
from optimizers.tensors.products import mode_products, multiply, rows


class MetaKFO(InnerOptimizer):
    """φ_k = φ_{k−1} − α A_k(G_{k−1}); from the second step on, A_k = A_{k−1} − α ∂L_S(φ_{k−1})/∂A_{k−1} before it."""

    card = Card(
        title="MetaKFO (learned gradient transform)",
        paper="Arnold, Iqbal, Sha: When MAML Can Adapt Fast and How to Assist When It Cannot. AISTATS 2021",
        kind="preconditioner",
        bibtex="""
        @inproceedings{arnold2021metakfo,
          author = {Arnold, S{\\'e}bastien M. R. and Iqbal, Shariq and Sha, Fei},
          title = {When {MAML} Can Adapt Fast and How to Assist When It Cannot},
          booktitle = {International Conference on Artificial Intelligence and Statistics (AISTATS)},
          year = {2021},
        }
        """,
        geometry="Kronecker, adapting",
        equation="φ_k = φ_{k−1} − α A(G_{k−1}), A(X) = (LᵀL) X (RᵀR); from step 2 on first A ← A − α ∂L_S(φ_{k−1})/∂A "
        "through the last update",
        learned="The start φ_0 and for each tensor L [rows, rows] and R [columns, columns], the identity at the start; "
        "for the non-linear transform three further pairs per tensor.",
        differences="The paper's best rows use a non-linear transform with two hidden layers. How it starts is not "
        "established: here it is added to the linear one and its last L is zero, so that both start at the identity. "
        "The released 5-shot recipe uses a two-layer network, α = 0.001, Adam 5e-4 and meta-batch 16.",
        options={
            "transform": "`linear`, or `nonlinear` for two hidden layers",
            "adapting": "False: the transform is fixed within a task, and training starts on MAML's trajectory",
        },
        starts_as_maml=False,
    )

    def __init__(self, network: nn.Module, *, transform: str = "linear", adapting: bool = True, **common: Any) -> None:
        super().__init__(network, **common)
        self.transform = choice("transform", transform, ("linear", "nonlinear"))
        self.adapting = bool(adapting)
        if not adapting:
            self.card = replace(self.card, starts_as_maml=True)
        start = self.start()
        self.groups = group_by_modes(self.adapted, {name: value.shape for name, value in start.items()})
        self.factors = nn.ParameterDict()
        for index, members in enumerate(self.groups):
            like, size = start[members.names[0]], len(members)
            rows, columns = members.modes[-2:] if len(members.modes) > 1 else (members.modes[0], 1)
            for name, n in ((f"{index}-L", rows), (f"{index}-R", columns)):
                self.factors[name] = nn.Parameter(torch.eye(n).repeat(size, 1, 1).to(like))
            for layer in (1, 2, 3) if self.transform == "nonlinear" else ():
                for side, n in (("L", rows), ("R", columns)):
                    made = torch.randn(size, n, n) / n**0.5 if (layer, side) != (3, "L") else torch.zeros(size, n, n)
                    self.factors[f"{index}-{side}{layer}"] = nn.Parameter(made.to(like))

    def init_state(self, noise: Tensor | None = None) -> State:
        return {"phi": self.start(), "transform": dict(self.factors.items()), "last": {}}

    def step(self, state: State, grads: Params, k: int) -> State:
        transform = state["transform"]
        if self.adapting and state["last"]:
            pull = grad(lambda factors: self._inner(grads, self.apply_transform(factors, state["last"])))(transform)
            # ∂L_S/∂A = −α pull, so that A − α ∂L_S/∂A is
            transform = {name: factor + self.alpha**2 * pull[name] for name, factor in transform.items()}
        update = self.apply_transform(transform, grads)
        last = dict(grads) if self.adapting else {}
        return {"phi": self.descend(state["phi"], update), "transform": transform, "last": last}

    def summaries(self) -> dict[str, Tensor]:
        """The spectra of LᵀL and RᵀR of the linear transform."""
        found: dict[str, Tensor] = {}
        for index, members in enumerate(self.groups):
            for side in "LR":
                values = torch.linalg.svdvals(self.factors[f"{index}-{side}"]).square()  # [G, n]
                found |= {f"spectrum/{n} {side}": s for n, s in zip(members.names, values, strict=True)}
        return found

    def apply_transform(self, factors: Mapping[str, Tensor], grads: Params) -> dict[str, Tensor]:
        """A(G) for the given factors, keyed like G."""
        out: dict[str, Tensor] = {}
        for index, members in enumerate(self.groups):
            x = members.stack(grads)
            if len(members.modes) == 1:
                x = x.unsqueeze(-1)  # [G, dim, 1]
            elif len(members.modes) == 3:
                x = x.permute(0, 2, 3, 1)  # [G, C_in, kernel, C_out]; the two products bring C_out to the front again
            left, right = factors[f"{index}-L"], factors[f"{index}-R"]
            u = _gram_products(x, left, right)
            if self.transform == "nonlinear":
                hidden = x
                for layer in (1, 2, 3):
                    hidden = mode_products(hidden, [factors[f"{index}-L{layer}"], factors[f"{index}-R{layer}"]])
                    if len(members.modes) == 3 and layer < 3:
                        hidden = hidden.permute(0, 2, 3, 1)
                    hidden = F.relu(hidden) if layer < 3 else hidden
                u = u + hidden
            out |= members.split(u)
        return out

    @staticmethod
    def _inner(a: Params, b: Params) -> Tensor:
        return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _gram_products(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``(LᵀL) X (RᵀR)`` on the two leading modes of x [G, rows, columns, …], as two products each: RᵀR is never formed.

    Like :func:`mode_products` it leaves those two modes last.
    """
    for factor in (left, right):
        count, n, *rest = x.shape
        x = multiply(multiply(rows(x), factor.mT), factor).reshape(count, *rest, n)
    return x
