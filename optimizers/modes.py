"""Mode products of parameter tensors, for many tensors of one shape at a time.

A parameter is seen as a tensor of few *modes*: a convolution weight as [out, in, kernel], a matrix as [out, in], a
vector as [dim]. A Kronecker-structured linear map multiplies each mode m by its own small matrix,
``Y = X ×₁ M₁ ×₂ M₂ ×₃ M₃``, i.e. ``Y[p,q,r] = Σ_{i,j,k} M₁[p,i] M₂[q,j] M₃[r,k] X[i,j,k]``, which is
``(M₁ ⊗ M₂ ⊗ M₃) vec X`` without ever forming the product.

Networks repeat shapes, so tensors of one shape are stacked, [G, *modes], and multiplied in one batched matmul a mode:
a handful of operations for the whole network instead of a handful for each tensor.
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


class Group:
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
        return torch.stack([values[name].reshape(self.modes) for name in self.names])

    def split(self, stacked: Tensor) -> dict[str, Tensor]:
        """[G, *modes] → values by name, in the shapes they have in the network (views)."""
        parts = stacked.unbind(0)
        return {name: part.reshape(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}


def group(names: Sequence[str], shapes: Mapping[str, Shape]) -> list[Group]:
    """`names` grouped by the modes of their shapes, in the order in which a shape first appears."""
    found: dict[Shape, list[str]] = {}
    for name in names:
        found.setdefault(modes(shapes[name]), []).append(name)
    return [Group(members, shapes) for members in found.values()]


def mode_products(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """``x ×₁ F₁ ×₂ F₂ … + bias`` for a stack: x [G, n₁, …], F_m [G, o_m, n_m], bias [G, o₁, …] → [G, o₁, …].

    Each product contracts the leading mode and appends the new one at the end, so that every intermediate is
    contiguous and only views lie between the matmuls. A stack of one is multiplied unbatched: under vmap its factors
    are then shared by all tasks instead of being copied for each.
    """
    single = x.shape[0] == 1
    sizes = list(x.shape[1:])
    x = x.squeeze(0) if single else x
    for index, factor in enumerate(factors):
        weight = factor.squeeze(0).mT if single else factor.mT  # [(G,) n, o]
        lead, *rest = sizes
        x = x.reshape(*x.shape[: 0 if single else 1], lead, math.prod(rest)).mT  # [(G,) rest, n]
        sizes = [*rest, factor.shape[-2]]
        if bias is not None and index == len(factors) - 1:
            flat = bias.reshape(*bias.shape[1 if single else 0 : 1], math.prod(rest), factor.shape[-2])
            x = torch.addmm(flat, x, weight) if single else torch.baddbmm(flat, x, weight)
        else:
            x = x @ weight
        x = x.reshape(*x.shape[: 0 if single else 1], *sizes)
    return x.unsqueeze(0) if single else x
