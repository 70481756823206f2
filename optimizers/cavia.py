"""CAVIA: a task moves a few context parameters; the network is shared by all tasks and learned over them.

The context c modulates one layer's features h, channel by channel (FiLM, Perez et al., AAAI 2018):

    h ← γ ⊙ h + β,    (γ, β) = b + W c,    c_0 = 0,    c_k = c_{k−1} − α ∂L_S/∂c

Here γ and β are parameters of a layer that is inserted before a block's last non-linearity, b is their learned value at
c = 0, and W belongs to the method. As ∂L_S/∂c = Wᵀ ∂L_S/∂(γ, β), no pass is needed but that of every other method: on γ
and β this is gradient descent with the learned preconditioner W Wᵀ, everything else stays at its meta-learned value.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State
from optimizers.errors import BadOption
from optimizers.mtnet import insertable


class FiLM(nn.Module):
    """γ ⊙ h + β with one γ and one β for each channel of h [N, C, ...]."""

    def __init__(self, channels: int, bound: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))
        self.shift = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, h: Tensor) -> Tensor:
        shape = (-1, *[1] * (h.dim() - 2))
        return self.scale.view(shape) * h + self.shift.view(shape)


class CAVIA(InnerOptimizer):
    """c_k = c_{k−1} − α Wᵀ ∂L_S/∂(γ, β), (γ, β) = b + W c."""

    card = Card(
        title="CAVIA (context parameters, FiLM)",
        paper="Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson: Fast Context Adaptation via Meta-Learning. ICML 2019, "
        "arXiv:1810.03642",
        bibtex="""
            @inproceedings{zintgraf2019cavia,
              author = {Zintgraf, Luisa and Shiarlis, Kyriacos and Kurin, Vitaly and Hofmann, Katja
                and Whiteson, Shimon},
              title = {Fast Context Adaptation via Meta-Learning},
              booktitle = {ICML},
              year = {2019},
            }
            """,
        kind="context",
        geometry="W Wᵀ on one layer's scales and shifts",
        equation="c_k = c_{k−1} − α Wᵀ ∂L_S/∂(γ, β), c_0 = 0; (γ, β) = b + W c; h ← γ ⊙ h + β before the last "
        "non-linearity of one block",
        learned="The whole network, which no task moves, W [2·C, context] and b [2·C]. C is the width of the block.",
        differences="As in the public code the context is a vector of 100 zeros that enters the last block but one "
        "(the third convolution of CNN4), behind its pooling and before its ReLU, by one linear layer that starts as "
        "there: W uniform within √(3/context), b within 1/√context. Scales are therefore small at the start, which the "
        "next batch norm undoes. The code starts the other layers by He's rule with zero biases; here they start as in "
        "every other method. ResNet-12 has the FiLM layer in its third block, a regression network in its first hidden "
        "layer instead of the paper's context beside the inputs.",
        published="49.84 / 64.63 % on 5-way miniImageNet, 1 / 5 shots, CNN4 with 128 filters: quoted, not read in the "
        "paper's own table; its public code gives no numbers. Its inner step is 1 on the mean loss.",
        options={
            "context": "number of context parameters, at least 1",
            "adapt": "`all` and no other: the context alone moves on a task",
        },
        starts_as_maml=False,
    )

    def __init__(self, network: nn.Module, *, context: int = 100, adapt: str = "all", **common: Any) -> None:
        if context < 1:
            raise BadOption(f"context must be at least 1, got {context}")
        if adapt != "all":
            raise BadOption(f"cavia adapts its context alone: leave adapt at 'all', got {adapt!r}")
        insertable(network, "cavia")
        like, places = next(network.parameters()), network.places("activation")  # type: ignore[operator]
        place, channels = list(places.items())[-2]
        network.insert(place, FiLM(channels, 1 / math.sqrt(context)).to(like))  # type: ignore[operator]
        super().__init__(network, adapt=f"inserted.{place}.*", **common)
        bound = math.sqrt(3 / context)
        start = torch.empty(2, channels, context).uniform_(-bound, bound)
        self.weight = nn.Parameter(start.to(like))  # W of γ and of β, [2, C, context]

    def init_state(self, noise: Tensor | None = None) -> State:
        return {"context": self.weight.new_zeros(self.weight.shape[-1])}

    def params(self, state: State) -> Params:
        moved = self.weight @ state["context"]  # [2, C]
        return {name: value + moved[i] for i, (name, value) in enumerate(self.start().items())}

    def step(self, state: State, grads: Params, k: int) -> State:
        stacked = torch.stack([grads[name] for name in self.adapted])  # [2, C]
        return {"context": state["context"].sub(torch.einsum("ic,icn->n", stacked, self.weight), alpha=self.alpha)}
