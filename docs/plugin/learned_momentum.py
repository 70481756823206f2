"""Heavy-ball descent whose step size and momentum are learned with the start."""

import torch
from torch import nn

from optimizers.base import Card, InnerOptimizer


class LearnedMomentum(InnerOptimizer):
    card = Card(
        title="Learned momentum",
        paper="The example of docs/plugin.md",
        geometry="identity, with memory",
        equation="v_k = β v_{k−1} + G, φ_k = φ_{k−1} − a v_k",
        learned="The start φ_0, log a and β (0 at the start).",
    )

    def __init__(self, network, **common):
        super().__init__(network, **common)
        like = next(network.parameters())
        self.log_rate = nn.Parameter(like.new_tensor(self.alpha).log())
        self.beta = nn.Parameter(like.new_zeros(()))

    def init_state(self, noise=None):
        phi = self.start()
        return {"phi": phi, "v": {name: torch.zeros_like(p) for name, p in phi.items()}}

    def step(self, state, grads, k):
        v = {name: self.beta * state["v"][name] + g for name, g in grads.items()}
        return {"phi": {name: p - self.log_rate.exp() * v[name] for name, p in state["phi"].items()}, "v": v}
