"""WarpGrad: gradient descent in a network that was warped so that gradient descent works well in it.

Warp layers w stand between the adapted blocks h; they are meta-learned, frozen while adapting, and precondition the
gradients that flow through them. They are not trained through the whole inner loop: from every visited point φ_k,
taken as a constant, one look-ahead step is made and its query loss differentiated with respect to w alone. The start
φ_0 has an objective of its own, MAML's or Leap's, in which w is a constant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad

from optimizers.base import Card, InnerOptimizer, Params, State, Task, Trajectory
from optimizers.errors import choice
from optimizers.mtnet import insertable
from optimizers.tensors.stop_gradient import stop_gradient


class WarpGrad(InnerOptimizer):
    """φ_k = φ_{k−1} − α ∇_φ L_S(φ_{k−1}; w) with meta-learned warp layers w."""

    card = Card(
        title="WarpGrad (warp layers)",
        paper="Flennerhag, Rusu, Pascanu, Visin, Yin, Hadsell: Meta-Learning with Warped Gradient Descent. ICLR 2020",
        kind="layers",
        bibtex="""
        @inproceedings{flennerhag2020warpgrad,
          author = {Flennerhag, Sebastian and Rusu, Andrei A. and Pascanu, Razvan and Visin, Francesco and Yin, Hujun
            and Hadsell, Raia},
          title = {Meta-Learning with Warped Gradient Descent},
          booktitle = {International Conference on Learning Representations (ICLR)},
          year = {2020},
        }
        """,
        geometry="warp layers in the network",
        equation="φ_k = φ_{k−1} − α ∇_φ L_S(φ_{k−1}; w); outer loss: mean over k < K of L_Q(φ̄_k − α ∇L_S(φ̄_k; w); w) "
        "for w, φ̄_k a constant, plus that of the start",
        learned="The start φ_0 and a 3×3 convolution with bias after every block but the first (linear layers in a "
        "network without convolutions).",
        differences="Few-shot details are public only in a third-party reproduction: warp convolutions after the "
        "pooling of blocks 2 to 4, K = 5, α = 0.1. Query losses of the visited points are averaged here, not summed: "
        "the loss then has the scale of one task's. A Dirac start, which equals MAML at the start, replaces the "
        "default random one. The derivative of the look-ahead is part of the objective: exact, whatever the "
        "estimator of the run.",
        options={
            "warp_start": "`dirac` (identity) or `random` (the default initialisation of a convolution)",
            "start_objective": "objective of φ_0: `maml`, L_Q(φ_K), or `leap`, the energy of the path",
        },
    )

    def __init__(
        self, network: nn.Module, *, warp_start: str = "dirac", start_objective: str = "maml", **common: Any
    ) -> None:
        insert_warps(network, choice("warp_start", warp_start, ("dirac", "random")))
        super().__init__(network, "inserted.", **common)
        if warp_start == "random":
            self.card = replace(self.card, starts_as_maml=False)
        self.start_objective = choice("start_objective", start_objective, ("maml", "leap"))

    def step(self, state: State, grads: Params, k: int) -> State:
        return {"phi": self.descend(state["phi"], grads)}

    def loss(self, params: Params, x: Tensor, y: Tensor, support_x: Tensor | None = None) -> Tensor:
        """The loss as a function of φ alone: the rest of the network, warp layers included, is constant.

        The inner loop takes its gradients here, so that no path leads from a visited φ_k back to w.
        """
        rest = {n: stop_gradient(p) for n, p in self.network.named_parameters() if n not in params}
        return super().loss({**rest, **params}, x, y, support_x)

    def warped_loss(self, params: Params, x: Tensor, y: Tensor, support_x: Tensor | None = None) -> Tensor:
        """The same loss as a function of w too, which is all of the network that is not in `params`."""
        return super().loss(params, x, y, support_x)

    def objective(self, task: Task, trajectory: Trajectory) -> Tensor:
        points = [self.params(state) for state in trajectory.visited[:-1]]
        if not points:  # no step was made: nothing is warped yet
            return self.warped_loss(trajectory.params, task.query_x, task.query_y, *self.beside(task))
        ahead = [self.look_ahead(task, {name: stop_gradient(p) for name, p in point.items()}) for point in points]
        start = self._leap(task, trajectory) if self.start_objective == "leap" else self._maml(task, trajectory)
        return start + torch.stack(ahead).mean()

    def look_ahead(self, task: Task, point: Params) -> Tensor:
        """L_Q(φ − α ∇L_S(φ; w); w) at φ = `point`, a scalar; everything of the network that does not adapt is in w."""
        gradient = grad(lambda phi: self.warped_loss(phi, task.support_x, task.support_y))(point)
        moved = self.descend(point, gradient)
        return self.warped_loss(moved, task.query_x, task.query_y, *self.beside(task))

    def _maml(self, task: Task, trajectory: Trajectory) -> Tensor:
        return self.query_loss(trajectory.params, task)

    def _leap(self, task: Task, trajectory: Trajectory) -> Tensor:
        """½ Σ_k ‖φ̄_{k+1} − φ_k‖² + (L̄_{k+1} − L_k)², where φ_k follows φ_0 by the identity and bars are constants."""
        points = [{n: stop_gradient(p) for n, p in self.params(state).items()} for state in trajectory.visited]
        start, first = self.params(trajectory.visited[0]), points[0]
        followed = [{n: start[n] + (p - first[n]) for n, p in point.items()} for point in points]
        losses = [self.loss(point, task.support_x, task.support_y) for point in followed]
        energy = losses[0].new_zeros(())
        for k, (here, there) in enumerate(zip(followed, points[1:], strict=False)):
            squares = torch.stack([(there[n] - p).square().sum() for n, p in here.items()])
            energy = energy + squares.sum() / 2 + (stop_gradient(losses[k + 1]) - losses[k]).square() / 2
        return energy


def insert_warps(network: nn.Module, start: str) -> None:
    """Put a warp layer behind every block of `network` but the first, at the identity (`start` ``dirac``) or random."""
    like = next(network.parameters())
    convolutional = insertable(network, "warpgrad")
    places = network.places("block")  # type: ignore[operator]
    for place, channels in list(places.items())[1:]:
        layer = nn.Conv2d(channels, channels, 3, padding=1) if convolutional else nn.Linear(channels, channels)
        if start == "dirac":
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight)
            else:
                nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        network.insert(place, layer.to(like))  # type: ignore[operator]
