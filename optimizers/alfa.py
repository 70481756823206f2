"""ALFA: rates and weight decay that a small network makes from the state of the task.

Before every step a network g sees, for each tensor, the mean of φ and the mean of its gradient, and says at which rate
the tensor steps and how much of it is kept. What it says is scaled by learned numbers of the tensor and the step. The
rule of the update thus follows the task and the way already made; by it a network can adapt even from a start that was
drawn at random and is never learned, which its authors report as a surprise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State, key, parameters
from optimizers.errors import BadOption, choice
from optimizers.tensors.stop_gradient import stop_gradient


class ALFA(InnerOptimizer):
    """φ_k = β_k φ_{k−1} − α_k G with α_k and β_k of every tensor from g(means of φ_{k−1} and of G)."""

    card = Card(
        title="ALFA (generated rates and decay)",
        paper="Baik, Choi, Choi, Kim, Lee: Meta-Learning with Adaptive Hyperparameters. NeurIPS 2020",
        bibtex="""
        @inproceedings{baik2020alfa,
          author = {Baik, Sungyong and Choi, Myungsub and Choi, Janghoon and Kim, Heewon and Lee, Kyoung Mu},
          title = {Meta-Learning with Adaptive Hyperparameters},
          booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
          year = {2020},
        }
        """,
        kind="step sizes",
        geometry="one generated rate and decay per layer and step",
        equation="φ_k = β_k φ_{k−1} − α_k G, one α and one β per tensor; α_k = a_k g_α(τ), β_k = 1 − b_k g_β(τ); "
        "τ = the means of φ_{k−1} and of G, tensor by tensor; g: two linear layers [2n, 2n] with a ReLU between",
        learned="The start φ_0, g, and scales a (α at the start) and b (α λ) for each of the n adapted tensors in each "
        "step of the horizon. With a random start not φ_0, but a decay for each coordinate.",
        differences="The paper's rule is φ ← β φ − α G; the scales a and b, and β as 1 minus a decay, are its code's. "
        "In the code the gradient that g sees is a constant of the meta-gradient, and g starts at random, so that "
        "nothing starts as MAML (alfa-released). Here the meta-gradient is whole, and the last layer of g starts at "
        "weights 0 and says α_k = a_k, β_k = 1: MAML's trajectory. With start=random, as in the code, the decay has a "
        "further factor for each coordinate (α λ at the start, b then 1), and nothing of the network is learned, "
        "batch norm included. A step beyond the horizon has the scales of the horizon's last.",
        published="miniImageNet, 5-way, CNN4: 50.58 ± 0.51 (1 shot), 69.12 ± 0.47 (5 shots); from a random start 51.61 "
        "± 0.50 and 70.00 ± 0.46. CIFAR-FS: 59.96 ± 0.49 and 76.79 ± 0.42. Read in a list of results kept by others.",
        options={
            "start": "`learned`, or `random`: drawn once and never learned",
            "decay": "weight decay λ > 0 at the start: a step takes the share α λ g_β of φ",
            "horizon": "inner steps with scales of their own; in a run its steps, unless given",
        },
    )

    def __init__(
        self, network: nn.Module, *, start: str = "learned", decay: float = 5e-4, horizon: int = 5, **common: Any
    ) -> None:
        super().__init__(network, **common)
        if not decay > 0:
            raise BadOption(f"decay must be positive, got {decay}")
        if horizon < 1:
            raise BadOption(f"horizon must be at least 1, got {horizon}")
        phi, count = self.start(), len(self.adapted)
        like, first = next(iter(phi.values())), self.alpha * decay
        random = choice("start", start, ("learned", "random")) == "random"
        self.coordinate = parameters({n: torch.full_like(p, first) for n, p in phi.items()}) if random else None
        self.rate_scale = nn.Parameter(like.new_full((horizon, count), self.alpha))  # [horizon, n]
        self.decay_scale = nn.Parameter(like.new_full((horizon, count), 1.0 if random else first))
        self.generator = self.make_generator(count).to(like)
        if random:
            network.requires_grad_(False)

    def make_generator(self, count: int) -> nn.Module:
        """g: [2n] → [2n], which says 1 for each rate and 0 for each decay at first."""
        last = nn.Linear(2 * count, 2 * count)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.cat([torch.ones(count), torch.zeros(count)]))
        return nn.Sequential(nn.Linear(2 * count, 2 * count), nn.ReLU(), last)

    def look(self, params: Params, grads: Params) -> Tensor:
        """τ [2n]: what g sees, the mean of each tensor and of its gradient."""
        return torch.stack([each[name].mean() for each in (params, grads) for name in self.adapted])

    def step(self, state: State, grads: Params, k: int) -> State:
        rates, decays = self.generator(self.look(state["phi"], grads)).chunk(2)
        last = min(k, len(self.rate_scale) - 1)
        rates, decays = self.rate_scale[last] * rates, self.decay_scale[last] * decays
        phi = {}
        for name, rate, decay in zip(self.adapted, rates.unbind(), decays.unbind(), strict=True):
            lost = decay if self.coordinate is None else decay * self.coordinate[key(name)]
            phi[name] = (1 - lost) * state["phi"][name] - rate * grads[name]
        return {"phi": phi}

    def summaries(self) -> dict[str, Tensor]:
        scales = {"rate scale": self.rate_scale, "decay scale": self.decay_scale}
        return {f"{kind}/{name}": each[:, i] for kind, each in scales.items() for i, name in enumerate(self.adapted)}


class ALFAReleased(ALFA):
    """ALFA as its public code computes it."""

    card = replace(
        ALFA.card,
        title="ALFA as released",
        differences="What the public code does: the gradients that g sees are constants of the meta-gradient, which is "
        "therefore not the derivative of the query loss, and g starts as linear layers do, at random: the first rates "
        "are a_k times small numbers of either sign. The code keeps one further set of scales, which no step of its "
        "training reaches. See alfa for the same rule with its whole meta-gradient and MAML's start.",
        starts_as_maml=False,
    )

    def make_generator(self, count: int) -> nn.Module:
        return nn.Sequential(nn.Linear(2 * count, 2 * count), nn.ReLU(), nn.Linear(2 * count, 2 * count))

    def look(self, params: Params, grads: Params) -> Tensor:
        return super().look(params, {name: stop_gradient(value) for name, value in grads.items()})
