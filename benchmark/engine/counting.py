"""What a computation needs, by counting instead of measuring: exact, and the same on every machine and at every load.

Peak memory is counted over every storage that torch allocates, from its first use to its end; it is blind to what the C
library keeps. Floating-point operations are those of convolutions and matrix products as they are dispatched
(:mod:`optimizers.counting`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optimizers.counting import multiply_adds


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that tensors made by ``work()`` held at any moment."""
    with _Ledger() as ledger:
        work()
    return ledger.peak


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of all convolutions and matrix products in ``work()``, two for a multiply-add."""
    return 2 * multiply_adds(work, elementwise=False)


class _Ledger(TorchDispatchMode):
    """Sees the result of every operation, those of backward passes and inside transforms included."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):  # what was there before is not counted
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.known:
                self._enter(leaf.untyped_storage(), 0)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.known:
                self._enter(leaf.untyped_storage(), leaf.untyped_storage().nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _enter(self, storage: torch.UntypedStorage, size: int) -> None:
        self.known.add(storage._cdata)
        self.live += size
        weakref.finalize(storage, self._leave, storage._cdata, size)

    def _leave(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size
