"""Sine regression (Finn et al. 2017, §5.1): y = A sin(x − p), A ~ U[0.1, 5], p ~ U[0, π], x ~ U[−5, 5].

A task is one pair (A, p); no images, no classes, and as many tasks as there are indices. The loss is the mean squared
error. The three splits draw from the same distribution with words of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.data.draws import EpisodeBatch, Episodes, task_words
from benchmark.data.storage import Dataset

AMPLITUDE, PHASE, INPUT = (0.1, 5.0), (0.0, np.pi), (-5.0, 5.0)


def load_sine() -> Dataset:
    return Dataset("sine", np.zeros((0, 1), np.uint8), (1,), (), "formula", kind="regression")


def sine_tasks(of: Episodes, indices: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Amplitude ``[T, 1]``, phase ``[T, 1]`` and inputs ``[T, shots + query]``, float64."""
    words = np.stack([task_words(of, i, 2 + of.shots + of.query) for i in indices])
    unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # [0, 1)

    def spread(u: np.ndarray, low: float, high: float) -> np.ndarray:
        return low + (high - low) * u

    return spread(unit[:, :1], *AMPLITUDE), spread(unit[:, 1:2], *PHASE), spread(unit[:, 2:], *INPUT)


def sample_sine(of: Episodes, indices: Sequence[int]) -> EpisodeBatch:
    """Inputs float32 ``[T, S, 1]``, targets float32 ``[T, S, 1]``; as in image tasks, more queries add to fewer."""
    import torch

    amplitude, phase, x = sine_tasks(of, indices)
    y = amplitude * np.sin(x - phase)
    tensors = [
        torch.from_numpy(part[..., None].astype(np.float32))
        for part in (x[:, : of.shots], y[:, : of.shots], x[:, of.shots :], y[:, of.shots :])
    ]
    return EpisodeBatch(*tensors)
