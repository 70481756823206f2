"""Parameter tensors by their modes, and stacks of those that have the same.

A parameter is seen as a tensor of few *modes*: a convolution weight as [out, in, kernel], a matrix as [out, in], a
vector as [dim]. Networks repeat shapes, so tensors of one shape are stacked, [G, *modes], and go through a method
together: a handful of operations for the whole network instead of a handful for each tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def modes(shape: Sequence[int]) -> Shape:
    """Modes of a parameter: kernel axes count as one, a scalar as a vector of one."""
    if len(shape) > 2:
        return (shape[0], shape[1], math.prod(shape[2:]))
    return tuple(shape) or (1,)


class ShapeGroup:
    """Tensors, by name, that have the same modes; stacked they are [G, *modes]."""

    def __init__(self, names: Sequence[str], shapes: Mapping[str, Shape]) -> None:
        self.names = tuple(names)
        self.shapes = tuple(tuple(shapes[name]) for name in names)
        self.modes = modes(self.shapes[0])

    def __len__(self) -> int:
        return len(self.names)

    def stack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Values by name → [G, *modes]."""
        if len(self) == 1:
            return values[self.names[0]].reshape(1, *self.modes)
        chosen = zip(self.names, self.shapes, strict=True)
        return torch.stack([values[n] if s == self.modes else values[n].reshape(self.modes) for n, s in chosen])

    def split(self, stacked: Tensor) -> dict[str, Tensor]:
        """[G, *modes] → values by name, in the shapes they have in the network (views)."""
        parts = zip(self.names, self.shapes, stacked.unbind(0), strict=True)
        return {name: part if part.shape == shape else part.reshape(shape) for name, shape, part in parts}


def group_by_modes(names: Sequence[str], shapes: Mapping[str, Shape]) -> list[ShapeGroup]:
    """`names` grouped by the modes of their shapes, in the order in which a shape first appears."""
    found: dict[Shape, list[str]] = {}
    for name in names:
        found.setdefault(modes(shapes[name]), []).append(name)
    return [ShapeGroup(members, shapes) for members in found.values()]
