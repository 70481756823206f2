"""Stop-gradients that finite differences can follow.

Some objectives count a value as a constant although it depends on the meta-parameters: WarpGrad's visited points,
MT-net's straight-through mask. ``stop_gradient`` is ``detach`` that can be *held*: within :func:`hold`, every value
stopped in a first evaluation is remembered and returned again, in the same order, by the evaluations that follow. What
remains is a true function of the meta-parameters whose derivative is, by definition, the meta-gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class StoppedValues:
    """The values stopped in the first evaluation; :meth:`again` starts the next one."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.next: int | None = None  # None while recording

    def again(self) -> None:
        self.next = 0

    def __call__(self, value: Tensor) -> Tensor:
        if self.next is None:
            self.values.append(value.detach().clone())
            return self.values[-1]
        self.next += 1
        return self.values[self.next - 1]


_held: ContextVar[StoppedValues | None] = ContextVar("held", default=None)


def stop_gradient(value: Tensor) -> Tensor:
    """`value` as a constant of the graph."""
    held = _held.get()
    return value.detach() if held is None else held(value)


@contextmanager
def hold() -> Iterator[StoppedValues]:
    """Within this context stopped values are held; call ``again()`` on what it yields before each re-evaluation."""
    held = StoppedValues()
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)
