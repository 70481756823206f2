"""Gradient descent from a learned start: MAML.

The simplest lower-level optimizer and the yardstick of all others: every task starts from the same φ_0 and takes plain
gradient steps; only φ_0 is learned, through the unrolled steps or, with the estimator ``first-order``, past them.
"""

from __future__ import annotations

from optimizers.base import Card, InnerOptimizer, Params, State


class GradientDescent(InnerOptimizer):
    """φ_k = φ_{k−1} − α G."""

    card = Card(
        title="MAML (gradient descent)",
        paper="Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017",
        kind="start",
        bibtex="""
        @inproceedings{finn2017maml,
          author = {Finn, Chelsea and Abbeel, Pieter and Levine, Sergey},
          title = {Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks},
          booktitle = {International Conference on Machine Learning (ICML)},
          year = {2017},
        }
        """,
        geometry="identity",
        equation="φ_k = φ_{k−1} − α G",
        learned="The start φ_0 alone.",
        differences="The original code divides a summed cross-entropy by the shots, so its inner gradient is `ways` "
        "times that of the mean used here: its α = 0.01 is α = 0.05 for a 5-way mean loss. First-order "
        "MAML is the estimator first-order of a run, open to every method.",
    )

    def step(self, state: State, grads: Params, k: int) -> State:
        return {"phi": self.descend(state["phi"], grads)}
