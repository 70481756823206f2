"""What images and formulas draw tasks with: what decides a task, its random words, and the batch that comes out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmark.data.storage import Dataset

if TYPE_CHECKING:
    import torch


class EpisodeBatch(NamedTuple):
    """``T`` tasks. Images are float32 in [0, 1], ``[T, S, C, H, W]``, class after class; labels are int64 ``[T, S]``.

    Regression tasks have inputs ``[T, S, 1]`` and float32 targets ``[T, S, 1]``.
    """

    support_x: torch.Tensor
    support_y: torch.Tensor
    query_x: torch.Tensor
    query_y: torch.Tensor


@dataclass(frozen=True)
class Episodes:
    """Which tasks: all of them, numbered, that one data set and split give for these sizes and this seed."""

    dataset: Dataset
    split: str
    ways: int
    shots: int
    query: int
    """Query images of each class; for regression query examples."""
    seed: int


def task_words(of: Episodes, index: int, count: int) -> np.ndarray:
    """``count`` random uint64 of one task, the same on every platform and numpy release.

    The queries are no part of the key: more of them only add to fewer.
    """
    text = repr((of.dataset.name, of.split, int(of.ways), int(of.shots), int(of.seed), int(index)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Philox(key=key).random_raw(count)
