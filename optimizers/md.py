"""Mirror descent with a learned inverse mirror map.

The task's state is a dual point z; the network sees φ = g(z). A step moves z along the gradient taken at φ, which is
*not* pulled back through g: z_k = z_{k−1} − α ∇_φ L_S(g(z_{k−1})). Near a point it is gradient descent preconditioned
by the Jacobian of g; far from it the geometry changes with z, which no fixed preconditioner can do. Where g is the
gradient of a convex function this is mirror descent in the strict sense; a flow with a triangular Jacobian is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State
from optimizers.cards import OWN_BIBTEX
from optimizers.errors import choice
from optimizers.maps.block_iaf import BlockIAF
from optimizers.maps.convex import ConvexMap

_PAPER = (
    "Zhang, Li, Giannakis: Meta-Learning with Versatile Loss Geometries for Fast Adaptation Using Mirror Descent. "
    "ICASSP 2024, arXiv:2312.13486"
)
_BIBTEX = """
    @inproceedings{zhang2024md,
      author = {Zhang, Yilang and Li, Bingcong and Giannakis, Georgios B.},
      title = {Meta-Learning with Versatile Loss Geometries for Fast Adaptation Using Mirror Descent},
      booktitle = {IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)},
      year = {2024},
      note = {arXiv:2312.13486},
    }
    """


class DualDescent(InnerOptimizer):
    """z_k = z_{k−1} − α ∇_φ L_S(g(z_{k−1})), φ = g(z). A subclass sets the map ``self.g``: Params → Params."""

    g: nn.Module

    def init_state(self, noise: Tensor | None = None) -> State:
        return {"z": self.start()}

    def params(self, state: State) -> Params:
        return self.g(state["z"])

    def step(self, state: State, grads: Params, k: int) -> State:
        return {"z": self.descend(state["z"], grads)}


class _BlockIAFDescent(DualDescent):
    """What both forms of the blockIAF share."""

    g: BlockIAF

    def summaries(self) -> dict[str, Tensor]:
        """α σ(a) at z_0: how far an entry of φ moves for its own entry of G, in the first step."""
        scales, _ = self.g.affine(self.start())
        return {f"step size/{name}": self.alpha * scale for name, scale in scales.items()}


class MirrorDescent(_BlockIAFDescent):
    """Mirror descent by a blockIAF whose heads train."""

    card = Card(
        title="MD (mirror descent, blockIAF)",
        paper=_PAPER,
        kind="mirror map",
        bibtex=_BIBTEX,
        geometry="learned map, block-triangular",
        equation="z_k = z_{k−1} − α ∇_φ L_S(g(z_{k−1})), φ = g(z); block i: φ_i = z_i ⊙ σ(a_i) + m_i, "
        "[a_i, m_i] = d_i(e_1(z_1), …, e_{i−1}(z_{i−1}))",
        learned="The dual start z_0, and encoders, decoders and dense links of g.",
        differences="The authors' map (md-released) with one change: its heads start with all mode matrices at zero, "
        "and those of weights never leave it; here only the last is zero. The start is the identity all the same, and "
        "the heads train. ReLUs that the random start leaves off stay off, there and here: of the decoder of a bias of "
        "five classes, whose code is one number, four draws in five, and its scale and shift are then constants. The "
        "paper asks for a bounded scale σ such as the logistic, the code takes exp; a bounded one that starts at the "
        "identity is 2·sigmoid (option sigma). g is invertible, but neither monotone in general nor the gradient of a "
        "convex function, its Jacobian being triangular; md-convex keeps that promise.",
        options={"sigma": "scale: `exp` (as released) or `sigmoid`, the bounded 2·sigmoid"},
    )

    def __init__(self, network: nn.Module, *, sigma: str = "exp", **common: Any) -> None:
        super().__init__(network, **common)
        choice("sigma", sigma, ("exp", "sigmoid"))
        self.g = BlockIAF(self.start(), self.blocks(), sigma=sigma, zero="last")


class MirrorDescentReleased(_BlockIAFDescent):
    """Mirror descent by the blockIAF as released: all mode matrices of its heads start at zero."""

    card = Card(
        title="MD as released",
        paper=_PAPER,
        kind="mirror map",
        bibtex=_BIBTEX,
        geometry="learned map; in effect diagonal",
        equation=MirrorDescent.card.equation,
        learned="As md; but a head's mode matrices all start at zero, each one's gradient contains the others, and so "
        "those of weights (two modes or more) stay there.",
        differences="Structure and start of the authors' class, whose weights load by block_iaf.load_released. For "
        "every weight behind block 1 the map remains z·exp(s) + m with constant s and m: MetaSGD with logarithmic "
        "rates and a shift. What receives exactly zero gradient for this reason grows with the network: 14 % of the "
        "map's parameters at 32 channels and 28 pixels, 28 % at 32 and 32, 90 % at 64 and 84; ReLUs that the random "
        "start leaves off add to it. With one block (adapt=head) there are no heads, and all train. Use md for a map "
        "that trains.",
        options={"sigma": MirrorDescent.card.options["sigma"]},
        alive=False,
    )

    def __init__(self, network: nn.Module, *, sigma: str = "exp", **common: Any) -> None:
        super().__init__(network, **common)
        choice("sigma", sigma, ("exp", "sigmoid"))
        self.g = BlockIAF(self.start(), self.blocks(), sigma=sigma, zero="all")
        if not self.g.has_products_of_zeros():
            self.card = replace(self.card, alive=True)


class MirrorDescentConvex(DualDescent):
    """Mirror descent by the gradient of a strongly convex function."""

    card = Card(
        title="MD, convex potential",
        paper="This project; the promise is that of " + _PAPER,
        kind="mirror map",
        bibtex=OWN_BIBTEX,
        geometry="learned map, gradient of a convex function",
        equation="z_k = z_{k−1} − α ∇_φ L_S(g(z_{k−1})), φ = g(z) = ∇ψ(z) = D z + Uᵀ(s ⊙ sigmoid(U z + b)), D, s > 0",
        learned="The dual start z_0; the diagonal D (d numbers), 64 weights s and biases b, and for each tensor one "
        "small matrix per mode, whose Kronecker product is its part of U.",
        differences="No published method. The Jacobian of g is symmetric and at least D > 0 at any parameters: g is "
        "strictly monotone, and −∇L a descent direction. With U = 0 it is MetaSGD with positive rates.",
    )

    def __init__(self, network: nn.Module, **common: Any) -> None:
        super().__init__(network, **common)
        self.g: ConvexMap = ConvexMap(self.start())

    def summaries(self) -> dict[str, Tensor]:
        """α D, the least that an entry of φ moves for its own entry of G at any z, and the weights s."""
        least = {f"least step size/{name}": self.alpha * d for name, d in self.g.diagonal().items()}
        return least | {"weights of the directions": self.g.log_weight.exp()}
