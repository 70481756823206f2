"""Tasks spread over processes: single program, multiple data, by ``torch.distributed``.

Rank r of N takes the tasks r, r + N, r + 2N … A group of one does nothing. Gradients are summed by gloo on CPU and by
nccl on GPU.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before there is a group: its defaults keep the one of its import alive (2.14)
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The processes that work together, seen from one of them. The default is a process by itself."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def share(self, count: int) -> range:
        """Which of `count` tasks are this rank's."""
        return range(self.rank, count, self.size)

    def sum_(self, flat: Tensor) -> Tensor:
        """Sum over all ranks, in place and returned."""
        if self.size > 1:
            moved = flat.to(self.device)
            dist.all_reduce(moved)
            flat.copy_(moved)
        return flat

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """Every rank's rows [len(share(total)), ...] put together in task order, [total, ...], on every rank."""
        if self.size == 1:
            return rows
        most = len(range(0, total, self.size))
        padded = rows.new_zeros(most, *rows.shape[1:], device=self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:total].to(rows.device)  # row i is rank i mod size's

    def broadcast(self, value: Any) -> Any:
        """Rank 0's picklable `value`, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def any_(self, flag: bool) -> bool:
        """Whether any rank's `flag` is true."""
        return bool(self.largest(int(flag)))

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers, on every rank."""
        if self.size == 1:
            return number
        box = torch.tensor(number, device=self.device)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)


@contextlib.contextmanager
def joined(device: torch.device, local_rank: int, **how: Any) -> Iterator[Group]:
    """Within the block this process is of the group that its environment, or `how`, names.

    The group's threads end with the block. One that outlived it would abort the process at its exit, now and then: it
    lets go of a tensor while the interpreter ends.
    """
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
        device = torch.device("cuda", local_rank)
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _output_to_stderr():
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=1), **how)
    try:
        dist.barrier()  # nobody leaves before all have joined
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Gloo says on standard output whom it met (torch 2.10): what is piped from a run is not the place."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
