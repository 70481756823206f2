"""Data: class-indexed uint8 arrays, mapped from disk, and the episodes drawn from them.

``load`` opens a set by name, ``available`` says what there is, ``sample`` draws tasks. Nothing here imports torch
before a task is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmark.data.storage import Dataset, data_root

if TYPE_CHECKING:
    from benchmark.data.episodes import Batch

__all__ = ["Dataset", "available", "data_root", "load", "sample"]


def load(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> Dataset:
    """Open data set ``name``; :class:`benchmark.errors.UserError` says how to get one that is not here."""
    from benchmark.data.glyphs import load_glyphs
    from benchmark.data.sine import load_sine
    from benchmark.data.storage import open_dataset
    from benchmark.errors import UserError, nearest

    if name == "glyphs":
        return load_glyphs(data_root(root))
    if name == "sine":
        return load_sine()
    dataset = open_dataset(data_root(root) / name)
    if dataset is None:
        raise UserError(f"no data set {name!r}{nearest(name, ['glyphs', 'sine'])}")
    return dataset


def available(root: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    return [{"name": "glyphs"}, {"name": "sine"}]


def sample(dataset: Dataset, split: str, ways: int, shots: int, query: int, seed: int, indices: Sequence[int]) -> Batch:
    """Tasks ``indices`` as tensors: see :func:`benchmark.data.episodes.sample`."""
    from benchmark.data.episodes import sample as draw

    return draw(dataset, split, ways, shots, query, seed, indices)
