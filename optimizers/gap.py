"""Geometry-adaptive preconditioning: the singular values of the gradient are rescaled by learned factors.

The gradient of a convolution, unfolded to a matrix G = U S Vᵀ [C_out, C_in·k·k], becomes U M S Vᵀ with one learned
positive factor m_i for the i-th largest singular value. As U M S Vᵀ = (U M Uᵀ) G, this is a preconditioner, symmetric
and positive definite, that depends on the task and on the point through the frame U of the gradient itself.

**Its derivative.** F(G) = U M S Vᵀ gives each factor to a *rank*, so that where two singular values that have different
factors change places F jumps: it is smooth where all singular values differ, a single zero among them included, and it
has no derivative at ties. The derivatives of U, S and V by themselves contain 1/s_i and 1/(s_i² − s_j²), whatever M is.
Those of F, by the rule of Daleckii and Krein for U M Uᵀ, are, with X = Uᵀ dG V,

    dF = U M Uᵀ dG + U (C ∘ X + D ∘ Xᵀ) Vᵀ
    C_ij = (m_i − m_j) s_j² / (s_i² − s_j²),   D_ij = (m_i − m_j) s_i s_j / (s_i² − s_j²)

which depend on relative gaps alone, vanish where factors are equal, and need no inverse of a singular value. Here they
are taken so, exactly, wherever the relative gap |s_i² − s_j²| / max(s_i², s_j²) is above √(machine epsilon) (1.5e-8 in
float64, 3.5e-4 in float32). Below it 1/(s_i² − s_j²) falls to zero with the cube of the gap; at a tie the two frames
are held. The derivative is finite everywhere, and at equal factors it is that of m G even at ties.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optimizers.base import Card, InnerOptimizer, Params, State
from optimizers.errors import BadOption
from optimizers.tensors.modes import ShapeGroup, group_by_modes
from optimizers.tensors.stop_gradient import stop_gradient

SHARPNESS = 2.0
"""β of m = softplus(β μ)/β."""

_PAPER = (
    "Kang, Hwang, Eo, Kim, Rhee: Meta-Learning with a Geometry-Adaptive Preconditioner. CVPR 2023, arXiv:2304.01552"
)
_BIBTEX = """
    @inproceedings{kang2023gap,
      author = {Kang, Suhyun and Hwang, Duhun and Eo, Moonjung and Kim, Taesup and Rhee, Wonjong},
      title = {Meta-Learning with a Geometry-Adaptive Preconditioner},
      booktitle = {CVPR},
      year = {2023},
    }
    """
_PRINTED = (
    "{} on 5-way miniImageNet, 1 / 5 shots, CNN4: read in an index of papers, not in the paper's table; the "
    "intervals are not given there. Its public code has 128 filters."
)
_WHERE = (
    "As in the public code only weights of four axes are preconditioned, all others take plain steps. Where no such "
    "weight adapts (a network of linear layers, adapt=head) the matrices are: the paper has a regression with such a "
    "network, the code does not."
)
_RATES = (
    "The paper learns M at a rate of its own, the run's knob geometry_lr; the public code takes that rate as a flag "
    "and then uses the other one for both."
)


class GAP(InnerOptimizer):
    """φ_k = φ_{k−1} − α U M S Vᵀ for the unfolded gradient G = U S Vᵀ of each convolution."""

    card = Card(
        title="GAP (geometry-adaptive preconditioner)",
        paper=_PAPER,
        bibtex=_BIBTEX,
        kind="preconditioner",
        geometry="spectral, of the gradient itself",
        equation="φ_k = φ_{k−1} − α U M S Vᵀ, G = U S Vᵀ unfolded to [C_out, C_in·k·k]; M = diag(m), "
        "m = softplus(2 μ)/2",
        learned="The start φ_0, and for each convolution one factor m for each singular value, min(C_out, C_in·k·k).",
        differences="The public code takes U from the detached gradient (gap-released); here the derivative of U is in "
        "the meta-gradient. The map has none where singular values with different factors are equal: near such points "
        "it is bounded, below a relative gap of √ε of their squares, and elsewhere exact (the head of "
        "optimizers/gap.py has the formula). Factors start at exactly 1, in the code at 1.0006. "
        + _RATES
        + " "
        + _WHERE
        + " The "
        "operations of the singular value decomposition are not among the multiply-adds.",
        published=_PRINTED.format("54.86 / 71.55 %"),
    )
    start_factor = 1.0
    """m at the start."""

    def __init__(self, network: nn.Module, **common: Any) -> None:
        super().__init__(network, **common)
        start = self.start()
        axes = 4 if any(value.dim() == 4 for value in start.values()) else 2
        chosen = [name for name, value in start.items() if value.dim() == axes]
        if not chosen:
            raise BadOption(
                f"GAP preconditions convolutions or matrices, and none is among what adapts ({', '.join(start)})"
            )
        self.groups = group_by_modes(chosen, {name: start[name].shape for name in chosen})
        raw = math.log(math.expm1(SHARPNESS * self.start_factor)) / SHARPNESS
        self.raw = nn.ParameterList(  # [G, min(rows, columns)] a group
            start[members.names[0]].new_full((len(members), min(_matrix(members))), raw) for members in self.groups
        )

    def factors(self) -> list[Tensor]:
        """m > 0 of each group, [G, r], in the order of falling singular values."""
        return [F.softplus(each, beta=SHARPNESS) for each in self.raw]

    def init_state(self, noise: Tensor | None = None) -> State:
        return {"phi": self.start(), "factors": {str(index): m for index, m in enumerate(self.factors())}}

    def step(self, state: State, grads: Params, k: int) -> State:
        update = dict(grads)
        for index, members in enumerate(self.groups):
            rows, columns = _matrix(members)
            g = members.stack(grads).reshape(len(members), rows, columns)
            u = self.transform(g, state["factors"][str(index)])
            update |= members.split(u.reshape(len(members), *members.modes))
        return {"phi": self.descend(state["phi"], update), "factors": state["factors"]}

    def transform(self, g: Tensor, m: Tensor) -> Tensor:
        """U M S Vᵀ of matrices g [G, rows, columns] with factors m [G, min(rows, columns)]."""
        if g.shape[-2] <= g.shape[-1]:
            return scale_singular_values(g, m)
        return scale_singular_values(g.mT, m).mT


class GAPReleased(GAP):
    """GAP as its public code computes it: the frame U is a constant of the meta-gradient."""

    card = Card(
        title="GAP as released",
        paper=_PAPER,
        bibtex=_BIBTEX,
        kind=GAP.card.kind,
        geometry=GAP.card.geometry,
        equation="φ_k = φ_{k−1} − α (Ū M Ūᵀ) G, Ū of the detached gradient; M = diag(m), m = softplus(2 μ)/2",
        learned=GAP.card.learned,
        differences="Updates are those of gap, meta-gradients are not: the public code decomposes a detached copy of "
        "the gradient and multiplies the gradient by the constant Ū M Ūᵀ. In a kernel with more outputs than inputs "
        "(a first layer) what of the derivative leaves the range of Ū is lost as well. Factors start at 1.0006 "
        "(μ = 0.928): near MAML's trajectory and not on it. Where the gradient has not full rank the code's "
        "meta-gradient depends on which vectors the decomposition happens to return for the singular value zero; here "
        "their factors are averaged, so that it does not. " + _RATES + " " + _WHERE,
        published=GAP.card.published,
        starts_as_maml=False,
    )
    start_factor = math.log1p(math.exp(SHARPNESS * 0.928)) / SHARPNESS

    def transform(self, g: Tensor, m: Tensor) -> Tensor:
        """(Ū M Ūᵀ) g, Ū [G, rows, min(rows, columns)] of the detached g."""
        found = _decomposed(g)
        frame, values = stop_gradient(found[0]), stop_gradient(found[1])
        null = values <= max(g.shape[-2:]) * torch.finfo(g.dtype).eps * values[..., :1]
        mean = (m * null).sum(-1, keepdim=True) / null.sum(-1, keepdim=True).clamp_min(1)
        return frame @ (torch.where(null, mean, m).unsqueeze(-1) * (frame.mT @ g))


class GAPApprox(GAP):
    """The cheap approximation of GAP: the factors scale the rows of G themselves, φ_k = φ_{k−1} − α M G."""

    card = Card(
        title="Approximate GAP",
        paper=_PAPER,
        bibtex=_BIBTEX,
        kind=GAP.card.kind,
        geometry="diagonal over the shorter side",
        equation="φ_k = φ_{k−1} − α M G, G unfolded to [C_out, C_in·k·k]; G M where that has more rows than columns; "
        "M = diag(m), m = softplus(2 μ)/2",
        learned="The start φ_0, and for each convolution one factor m for each row of G, or each column where these "
        "are fewer.",
        differences="The paper's approximation drops the frame U: rows of a wide gradient are nearly orthogonal. "
        "Factors start at exactly 1, in the public code at 1.0006. " + _RATES + " " + _WHERE,
        published=_PRINTED.format("53.52 / 70.75 %"),
    )

    def transform(self, g: Tensor, m: Tensor) -> Tensor:
        return m.unsqueeze(-1 if g.shape[-2] <= g.shape[-1] else -2) * g


def scale_singular_values(g: Tensor, m: Tensor) -> Tensor:
    """F(g) = U diag(m) S Vᵀ of matrices g = U S Vᵀ [..., r, c], r ≤ c, with the derivative of the module's docstring.

    The decomposition is a constant; what depends on g beside it is written so that it vanishes in value and has the
    derivative of F. A second derivative in g is not offered.
    """
    with torch.no_grad():
        u, s, vh = _decomposed(g)
        s = s / s[..., :1].clamp_min(torch.finfo(s.dtype).tiny)  # relative to the largest: squares do not underflow
        squares = s.square()
        gap = squares.unsqueeze(-1) - squares.unsqueeze(-2)
        floor = math.sqrt(torch.finfo(s.dtype).eps) * torch.maximum(squares.unsqueeze(-1), squares.unsqueeze(-2))
        floor = floor.clamp_min(torch.finfo(s.dtype).tiny)
        resolved = gap.abs() > floor
        inverse = torch.where(resolved, 1 / torch.where(resolved, gap, 1.0), (gap / floor).pow(3) / floor)
    slope = (m.detach().unsqueeze(-1) - m.detach().unsqueeze(-2)) * inverse
    x = u.mT @ g @ vh.mT
    x = x - x.detach()  # zero in value
    turn = slope * (squares.unsqueeze(-2) * x + (s.unsqueeze(-1) * s.unsqueeze(-2)) * x.mT)
    return u @ (m.unsqueeze(-1) * (u.mT @ g) + turn @ vh)


def _decomposed(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, Vᵀ of matrices [..., r, c] as constants; of one that is not finite those of zero, for which there are some.

    The task has diverged then: what its gradient is multiplied by makes no difference, NaN goes on.
    """
    g = g.detach()
    finite = g.isfinite().flatten(-2).all(-1)[..., None, None]
    return torch.linalg.svd(torch.where(finite, g, 0.0), full_matrices=False)


def _matrix(members: ShapeGroup) -> tuple[int, int]:
    """Rows and columns of the unfolded weight."""
    return members.modes[0], math.prod(members.modes[1:])
