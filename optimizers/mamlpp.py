"""MAML++: a rate for each layer and each step, and an outer loss that looks at every step at first.

Two of its changes to MAML are the method's own and are here. Every tensor has a learned rate of its own in every inner
step, which may turn negative. And the outer loss is at first the mean of the query losses after each of the K steps,
so that early steps get a gradient of their own; over the first part of the meta-training the weight moves to the last
step, after which the loss is MAML's. The weights depend on how much of the meta-training is done, which the trajectory
says. Its annealing of the meta-learning rate and of the order of derivatives are knobs of a run, open to every method.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optimizers.base import Card, InnerOptimizer, Params, State, Task, Trajectory
from optimizers.errors import BadOption


class MAMLPlusPlus(InnerOptimizer):
    """φ_k = φ_{k−1} − a_k G with a rate a_k for every tensor and step; outer loss Σ_k w_k L_Q(φ_k)."""

    card = Card(
        title="MAML++ (rates per layer and step)",
        paper="Antoniou, Edwards, Storkey: How to train your MAML. ICLR 2019",
        bibtex="""
        @inproceedings{antoniou2019mamlpp,
          author = {Antoniou, Antreas and Edwards, Harrison and Storkey, Amos},
          title = {How to train your {MAML}},
          booktitle = {International Conference on Learning Representations (ICLR)},
          year = {2019},
        }
        """,
        kind="step sizes",
        geometry="one rate per layer and step",
        equation="φ_k = φ_{k−1} − a_k G, a_k one number per tensor; outer loss Σ_{k=1…K} w_k L_Q(φ_k); "
        "w_k = (1 − q)/K for k < K, w_K = (1 + (K − 1) q)/K, q = min(1, progress of the training / multi_step)",
        learned="The start φ_0 and a rate for each adapted tensor in each step of the horizon (α at the start).",
        differences="Not here: the paper's batch-norm statistics, weights and biases of each step; batch norm is that "
        "of all methods. Its other two changes are knobs of a run for every method: lr_schedule=cosine, and "
        "first_order_for, the meta-steps that are first-order before the exact ones. A layer's rate is one per tensor, "
        "as in the code. The code weighs losses after steps 1 … K, as here (a sum from step 0 is also quoted), changes "
        "the weights once per epoch, and keeps each at 0.03/K at least until the multi-step part ends; here they move "
        "with every meta-step, down to zero. It averages the predictions of the models of five epochs at test, or "
        "three; here one is measured. A step beyond the horizon has the rates of the horizon's last; the code has one "
        "further set of rates and ends there.",
        published="miniImageNet, 5-way, CNN4: 52.15 ± 0.26 (1 shot), 68.32 ± 0.44 (5 shots), with all of its changes "
        "and the ensemble; read in tables of later work. A public index of results has 52.40 and 67.15.",
        options={
            "horizon": "inner steps with rates of their own; in a run its steps, unless given",
            "multi_step": "share of the meta-training over which the weight moves to the last step, 0 … 1 (0: MAML's "
            "outer loss throughout)",
        },
    )

    def __init__(self, network: nn.Module, *, horizon: int = 5, multi_step: float = 0.15, **common: Any) -> None:
        super().__init__(network, **common)
        if horizon < 1:
            raise BadOption(f"horizon must be at least 1, got {horizon}")
        if not 0 <= multi_step <= 1:
            raise BadOption(f"multi_step must lie between 0 and 1, got {multi_step}")
        self.multi_step = float(multi_step)
        like = next(iter(self.start().values()))
        self.rates = nn.Parameter(like.new_full((horizon, len(self.adapted)), self.alpha))  # [horizon, tensors]

    def step(self, state: State, grads: Params, k: int) -> State:
        rates = self.rates[min(k, len(self.rates) - 1)]
        return {"phi": {name: state["phi"][name] - rates[i] * grads[name] for i, name in enumerate(self.adapted)}}

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        points = [self.params(state) for state in trajectory.visited[1:]]
        if trajectory.progress >= self.multi_step or len(points) < 2:
            return super().objective(task, trajectory)
        weights = step_weights(len(points), trajectory.progress / self.multi_step)
        losses = [weight * self.query_loss(point, task) for weight, point in zip(weights, points, strict=True)]
        return torch.stack(losses).sum()


def step_weights(steps: int, share: float) -> list[float]:
    """Weights w_1 … w_K of the query losses after each step, `share` of the way from all equal to the last alone."""
    early = (1 - share) / steps
    return [early] * (steps - 1) + [1 - (steps - 1) * early]
