"""What images and formulas draw tasks with: the random words of a task's index, and the batch that comes out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


class Batch(NamedTuple):
    """``T`` tasks. Images are float32 in [0, 1], ``[T, S, C, H, W]``, class after class; labels are int64 ``[T, S]``.

    Regression tasks have inputs ``[T, S, 1]`` and float32 targets ``[T, S, 1]``.
    """

    support_x: torch.Tensor
    support_y: torch.Tensor
    query_x: torch.Tensor
    query_y: torch.Tensor


def task_words(dataset: str, split: str, ways: int, shots: int, seed: int, index: int, count: int) -> np.ndarray:
    """``count`` random uint64 of one task, the same on every platform and numpy release."""
    text = repr((dataset, split, int(ways), int(shots), int(seed), int(index)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Philox(key=key).random_raw(count)
