"""Multiply-adds of a computation, counted as its operations are dispatched.

One *multiply-add* is one multiplication of two numbers together with the addition that may follow it:

* a matrix product, whatever its form (``mm``, ``addmm``, ``bmm``, ``baddbmm``, ``mv``, ``addmv``, ``dot``), has one for
  each entry of its result and each number summed over; a convolution and its derivatives likewise;
* an elementwise ``mul``, ``div``, ``square``, ``lerp``, ``addcmul`` or ``addcdiv`` has one for each entry of its
  result, and so has an ``add`` or ``sub`` that scales one of the two by a factor other than 1 (``φ − α G`` has d);
* nothing else has any: additions alone, sums, functions such as ``exp`` or the sigmoid, comparisons, copies. A product
  of whole numbers, which are indices, is none either.

The count is exact, and the same on every machine, device and at every load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from optimizers.base import InnerOptimizer

_aten = torch.ops.aten
_LEFT = {_aten.mm: 0, _aten.addmm: 1, _aten.bmm: 0, _aten.baddbmm: 1, _aten.mv: 0, _aten.addmv: 1, _aten.dot: 0}
"""Matrix products, and which argument is the left factor [..., n]: n numbers are summed over."""
_TIMES = {_aten.square, _aten.mul, _aten.mul_, _aten.div, _aten.div_, _aten.lerp, _aten.lerp_}
_FUSED = {_aten.addcmul: "value", _aten.addcmul_: "value", _aten.addcdiv: "value", _aten.addcdiv_: "value"}
_SCALED = {_aten.add: "alpha", _aten.add_: "alpha", _aten.sub: "alpha", _aten.sub_: "alpha", _aten.rsub: "alpha"}
"""Elementwise operations with a further factor, and its name."""


def multiply_adds(work: Callable[[], Any], *, elementwise: bool = True) -> int:
    """Multiply-adds of ``work()``; without `elementwise` those of matrix products and convolutions alone."""
    with _Tally(elementwise) as tally:
        work()
    return tally.total


def step_multiply_adds(optimizer: InnerOptimizer, noise: Tensor | None = None) -> int:
    """Multiply-adds of one ``params`` and one ``step`` of `optimizer`, the network's own passes excluded.

    The step counted is the second: a transform that adapts to the task begins to with it. No gradient flows to θ.
    """
    with torch.no_grad():
        state = optimizer.init_state(noise)
        params = optimizer.params(state)
        grads = {name: torch.ones_like(value) for name, value in params.items()}
        state = optimizer.step(state, grads, 0)

        def second() -> None:
            optimizer.params(state)
            optimizer.step(state, grads, 1)

        return multiply_adds(second)


class _Tally(TorchDispatchMode):
    def __init__(self, elementwise: bool) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operation = func._overloadpacket
        if operation in _LEFT:
            self.total += result.numel() * args[_LEFT[operation]].shape[-1]
        elif operation in flop_registry:
            self.total += flop_registry[operation](*args, **kwargs, out_val=result) // 2
        elif self.elementwise and isinstance(result, Tensor) and result.is_floating_point():
            self.total += result.numel() * _factors(operation, args, kwargs)
        return result


def _factors(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Multiplications for one entry of the result of an elementwise operation."""
    if operation is _aten.pow:  # what a square is dispatched as
        return int(args[1] == 2) if isinstance(args[1], int | float) else 0
    further = _FUSED.get(operation) or _SCALED.get(operation)
    scaled = further is not None and kwargs.get(further, 1) != 1
    return (operation in _TIMES or operation in _FUSED) + scaled
