"""A learned step size for every parameter: MetaSGD.

Gradient descent preconditioned by a diagonal matrix that is learned with the start. Two forms are in use: the original
learns the rates themselves, which may turn negative; later code learns their logarithms, which keeps them positive.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State, key, parameters
from optimizers.errors import choice


class MetaSGD(InnerOptimizer):
    """φ_k = φ_{k−1} − a ⊙ G with one learned rate a per parameter, all equal to α at the start."""

    card = Card(
        title="MetaSGD (diagonal PGD)",
        paper="Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. arXiv:1707.09835, 2017",
        kind="preconditioner",
        bibtex="""
        @article{li2017metasgd,
          author = {Li, Zhenguo and Zhou, Fengwei and Chen, Fei and Li, Hang},
          title = {{Meta-SGD}: Learning to Learn Quickly for Few-Shot Learning},
          journal = {arXiv preprint arXiv:1707.09835},
          year = {2017},
        }
        """,
        geometry="diagonal",
        equation="φ_k = φ_{k−1} − a ⊙ G",
        learned="The start φ_0 and one rate per adapted parameter (d more).",
        differences="The paper learns a itself, unconstrained, and takes one step (K = 1); later code learns log a and "
        "takes five. Both forms start at a = α. Weight decay on log a pulls the rates towards 1.",
        options={"form": "`log` learns log a (positive rates), `free` learns a itself (as in the paper)"},
    )

    def __init__(self, network: nn.Module, *, form: str = "log", **common: Any) -> None:
        super().__init__(network, **common)
        self.form = choice("form", form, ("log", "free"))
        start = math.log(self.alpha) if self.form == "log" else self.alpha
        self.rate = parameters({name: torch.full_like(value, start) for name, value in self.start().items()})

    def rates(self) -> dict[str, Tensor]:
        """The rates a, by parameter name."""
        learned = {name: self.rate[key(name)] for name in self.adapted}
        return {name: value.exp() for name, value in learned.items()} if self.form == "log" else learned

    def summaries(self) -> dict[str, Tensor]:
        return {f"step size/{name}": rate for name, rate in self.rates().items()}

    def init_state(self, noise: Tensor | None = None) -> State:
        return {"phi": self.start(), "rate": self.rates()}

    def step(self, state: State, grads: Params, k: int) -> State:
        rate = state["rate"]
        return {"phi": {name: value - rate[name] * grads[name] for name, value in state["phi"].items()}, "rate": rate}
