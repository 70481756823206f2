"""The tasks that a network meets: numbered, the same for every method, as the network takes them.

    task i = f(data set, split, ways, shots, seed, i);    its noise = h(seed, split, i)

A :class:`TaskStream` is what f depends on but for i. Training task number i is met in meta-step ⌊i / meta-batch⌋, the
tasks of validation and test are 0 … T − 1. Nothing has a state, so that no process and no order of asking matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmark import data
from benchmark.data.draws import EpisodeBatch, Episodes
from benchmark.data.storage import SPLITS
from benchmark.engine.execution import PLAIN, Execution
from benchmark.spec import RunSpec
from optimizers.base import InnerOptimizer


class TaskStream(Episodes):
    """All tasks of one kind, by their number."""

    @classmethod
    def of(cls, spec: RunSpec, dataset: data.Dataset, split: str) -> TaskStream:
        """The tasks that a run of `spec` meets in a split: ``query_train`` query images each in training, else
        ``query_test``."""
        query = spec.query_train if split == "train" else spec.query_test
        return cls(dataset, split, spec.ways, spec.shots, query, spec.seed)

    def batch(self, indices: Sequence[int], execution: Execution = PLAIN) -> EpisodeBatch:
        """The tasks of these numbers on the device and in the precision of `execution`.

        None asked for, for a rank that has no share, is an empty batch of their shape.
        """
        drawn = data.sample(self, indices or [0], execution.device)

        def move(tensor: Tensor) -> Tensor:
            dtype = execution.dtype if tensor.is_floating_point() else None
            return tensor.to(execution.device, dtype, non_blocking=True)

        batch = EpisodeBatch(*(move(tensor) for tensor in drawn))
        return batch if indices else EpisodeBatch(*(part[:0] for part in batch))

    def noise(self, optimizer: InnerOptimizer, indices: Sequence[int], execution: Execution = PLAIN) -> Tensor | None:
        """The random numbers [T, ...] of these tasks, for a method that draws any: of seed, split and number alone."""
        drawn = []
        for index in indices:
            entropy = np.random.SeedSequence([self.seed, SPLITS.index(self.split), index]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))
            drawn.append(optimizer.noise(generator))
        if not drawn or drawn[0] is None:
            return None
        return torch.stack(drawn).to(execution.device)  # type: ignore[arg-type]
