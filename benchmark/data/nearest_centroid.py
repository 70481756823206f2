"""The baseline: nearest centroid on raw pixels, no training.

A query image is given the class whose mean support image is nearest. Its negative log-likelihood is that of a softmax
over negative squared Euclidean distances, ``p(c | x) ∝ exp(−‖x − μ_c‖²)`` with pixels in [0, 1], the rule of
prototypical networks (Snell et al. 2017) with the identity for an embedding. It is not calibrated: distances in pixel
space are large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from benchmark.data.episodes import EpisodeBatch


def evaluate(batch: EpisodeBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Query accuracy ``[T]`` and mean query nll ``[T]`` of each task of a classification batch."""
    import torch

    support, query = batch.support_x.flatten(2), batch.query_x.flatten(2)  # [T, S, D], [T, Q, D]
    ways = int(batch.support_y.max()) + 1
    member = torch.nn.functional.one_hot(batch.support_y, ways).to(support.dtype)  # [T, S, ways]
    centroids = (member / member.sum(1, keepdim=True)).transpose(1, 2) @ support  # [T, ways, D]
    logits = 2 * query @ centroids.transpose(1, 2) - centroids.square().sum(2)[:, None]  # −‖x − μ‖² + ‖x‖²
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.query_y.flatten(), reduction="none").reshape(
        batch.query_y.shape
    )
    return (logits.argmax(2) == batch.query_y).float().mean(1), nll.mean(1)
