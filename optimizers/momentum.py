"""Heavy-ball descent whose rates and momentum are learned.

The update keeps a running sum of the task's gradients: a direction that they share is followed faster, one in which
they alternate is damped. Each tensor has a rate and a momentum coefficient of its own; both are learned with the start
over many tasks, so that what is remembered is what helps within a handful of steps.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State
from optimizers.errors import BadOption


class HeavyBall(InnerOptimizer):
    """v_k = β v_{k−1} + G, φ_k = φ_{k−1} − a v_k with v_0 = 0 and one rate a > 0 and one |β| < 1 for each tensor."""

    card = Card(
        title="Heavy ball (learned momentum)",
        paper="Polyak: Some methods of speeding up the convergence of iteration methods. USSR Computational "
        "Mathematics and Mathematical Physics 4(5), 1964. Its rates are learned as those of Meta-SGD (Li et al., 2017)",
        bibtex="""
        @article{polyak1964momentum,
          author = {Polyak, Boris T.},
          title = {Some methods of speeding up the convergence of iteration methods},
          journal = {USSR Computational Mathematics and Mathematical Physics},
          year = {1964},
          volume = {4},
          number = {5},
        }
        """,
        kind="memory",
        geometry="identity, with memory",
        equation="v_k = β v_{k−1} + G, v_0 = 0; φ_k = φ_{k−1} − a v_k; a and β = tanh b, one pair per tensor",
        learned="The start φ_0; log a (log α at the start) and b (0 at the start: β = 0) for each adapted tensor.",
        differences="A combination that libraries offer and no paper measured on few-shot tasks: there is no published "
        "number. With β = 0 it starts as MAML. The tanh keeps |β| below 1, so that the memory fades. Nesterov momentum "
        "of the outer loop is another thing, a knob of the run.",
        options={"beta": "momentum coefficient at the start, −1 < β < 1; other than 0 it is not on MAML's trajectory"},
    )

    def __init__(self, network: nn.Module, *, beta: float = 0.0, **common: Any) -> None:
        super().__init__(network, **common)
        if not -1 < beta < 1:
            raise BadOption(f"beta must lie between -1 and 1, got {beta}")
        if beta:
            self.card = replace(self.card, starts_as_maml=False)
        like, count = next(iter(self.start().values())), len(self.adapted)
        self.log_rate = nn.Parameter(like.new_full((count,), math.log(self.alpha)))
        self.slope = nn.Parameter(like.new_full((count,), math.atanh(beta)))

    def summaries(self) -> dict[str, Tensor]:
        rates = dict(zip(self.adapted, self.log_rate.exp().unbind(), strict=True))
        betas = dict(zip(self.adapted, self.slope.tanh().unbind(), strict=True))
        return {f"step size/{n}": a for n, a in rates.items()} | {f"momentum/{n}": b for n, b in betas.items()}

    def init_state(self, noise: Tensor | None = None) -> State:
        phi = self.start()
        return {"phi": phi, "velocity": {name: torch.zeros_like(value) for name, value in phi.items()}}

    def step(self, state: State, grads: Params, k: int) -> State:
        rate = dict(zip(self.adapted, self.log_rate.exp().unbind(), strict=True))
        beta = dict(zip(self.adapted, self.slope.tanh().unbind(), strict=True))
        velocity = {name: beta[name] * value + grads[name] for name, value in state["velocity"].items()}
        phi = {name: value - rate[name] * velocity[name] for name, value in state["phi"].items()}
        return {"phi": phi, "velocity": velocity}
