"""Data: class-indexed uint8 arrays, mapped from disk, and the episodes drawn from them.

``load`` opens a set by name, ``available`` says what there is, ``sample`` draws tasks. Nothing here imports torch
before a task is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.data.catalogue import available, import_dataset, load
from benchmark.data.storage import Dataset, data_root

if TYPE_CHECKING:
    import torch

    from benchmark.data.episodes import Batch

__all__ = ["Dataset", "available", "data_root", "import_dataset", "load", "sample"]


def sample(
    dataset: Dataset,
    split: str,
    ways: int,
    shots: int,
    query: int,
    seed: int,
    indices: Sequence[int],
    device: torch.device | None = None,
) -> Batch:
    """Tasks ``indices`` as tensors: see :func:`benchmark.data.episodes.sample`."""
    from benchmark.data.episodes import sample as draw

    return draw(dataset, split, ways, shots, query, seed, indices, device)
