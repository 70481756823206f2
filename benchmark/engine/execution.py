"""Where and how the work is done: processes, device, batching of tasks, memory, arithmetic.

These five travel together from a run to every batch of tasks. Device and precision decide where tasks are put and as
which numbers; none of the others changes a result beyond float rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from benchmark.engine.group import Group


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a piece of work is executed; the default is one process on the CPU in single precision."""

    group: Group = field(default_factory=Group)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    strategy: str = "auto"
    """``loop``, ``vmap`` or ``auto``: how the tasks of a batch are taken, see :mod:`benchmark.metagrad`."""
    recompute: bool = False
    """Repeat inner steps in the backward pass, so that memory does not grow with their number."""
    precision: str = "float32"
    """``float32``, ``tf32`` or ``float64``."""

    @property
    def dtype(self) -> torch.dtype:
        """The numbers that network and tasks consist of."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @contextlib.contextmanager
    def multiplication(self) -> Iterator[None]:
        """Within the block a GPU multiplies float32 numbers as ``precision`` says: in full, or rounded to TF32.

        That goes for matrix products and for convolutions, which torch by itself would round to TF32.
        """
        rounded = self.precision == "tf32"
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if rounded else "highest")
        torch.backends.cudnn.allow_tf32 = rounded
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


PLAIN = Execution()
"""One process, the CPU, single precision."""
