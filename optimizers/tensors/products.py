"""Mode products, and layers made of them: a stack of tensors times one small matrix per mode.

A Kronecker-structured linear map multiplies each mode m of a tensor by its own matrix, ``Y = X ×₁ F₁ ×₂ F₂ ×₃ F₃``,
i.e. ``Y[p,q,r] = Σ_{i,j,k} F₁[p,i] F₂[q,j] F₃[r,k] X[i,j,k]``, which is ``(F₁ ⊗ F₂ ⊗ F₃) vec X`` without ever forming
the product. Each product contracts the leading mode and appends the new one at the end, so that every intermediate is
contiguous; modes without a factor come out in front.

Learned maps are chains of dozens of such products, each of a microsecond or two, and left to autograd most of their
time goes into its nodes, above all those of views. Here all chains of a map are one node, derived by hand: for an
incoming gradient G of ``Y = Xᵀ Fᵀ`` (X [n, R] with all other modes in R, Y [R, o])

    ∂X = Fᵀ Gᵀ,   ∂F = Gᵀ Xᵀ

The node also returns what it keeps for its derivative. Those are outputs like any other, so that a second derivative,
which depends on them, sends its cotangents here and is right as well.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function


class Layer(NamedTuple):
    """``relu(x ×₁ F₁ ×₂ F₂ … + bias)`` on a stack [G, n₁, …]; without the ReLU or the bias where there is none."""

    factors: Sequence[Tensor]
    """F_m [G, o_m, n_m] of the leading modes, in order; where `transposed`, [G, n_m, o_m]."""
    bias: Tensor | None = None
    """[G, o₁, …]."""
    relu: bool = False
    transposed: bool = False


def mode_products(x: Tensor, factors: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """``x ×₁ F₁ ×₂ F₂ … + bias`` for a stack: x [G, n₁, …], F_m [G, o_m, n_m], bias [G, o₁, …] → [G, o₁, …]."""
    return chains([x], [[Layer(factors, bias)]])[0]


def chains(inputs: Sequence[Tensor], layers: Sequence[Sequence[Layer]]) -> list[Tensor]:
    """For each input [G, n₁, …] its layers one after another: [G', o₁, …].

    A layer whose stack is c times as high as its input gets the input c times, one copy on top of the other.
    """
    if not inputs:
        return []
    kinds = tuple(
        tuple(Kind(len(y.factors), y.bias is not None, y.relu, y.transposed) for y in each) for each in layers
    )
    tensors = [t for each in layers for y in each for t in (*y.factors, y.bias) if t is not None]
    work = _Chains.apply if torch.is_grad_enabled() else _Chains.forward
    outputs = work(kinds, *inputs, *tensors)
    return [outputs[k] for k, product in enumerate(_products(kinds)) if product.ends]


def listed(parameters: nn.ParameterList) -> tuple[Tensor, ...]:
    """The parameters of a list, without the cost of its indexing."""
    return tuple(p for p in parameters._parameters.values() if p is not None)


class Kind(NamedTuple):
    """A layer without its tensors."""

    factors: int
    biased: bool
    relu: bool
    transposed: bool


ChainKinds = tuple[tuple[Kind, ...], ...]
"""The layers of each chain."""


class _Product(NamedTuple):
    """One product. It reads a value: one of the C inputs, or as value C + k the output of the k-th product."""

    source: int
    factor: int
    """Position among the tensors, inputs included; so has `bias`."""
    bias: int | None
    relu: bool
    transposed: bool
    begins: bool
    """It is the first of its layer."""
    ends: bool
    """It is the last of its chain."""


@functools.cache
def _products(kinds: ChainKinds) -> tuple[_Product, ...]:
    found: list[_Product] = []
    at = len(kinds)
    for number, chain in enumerate(kinds):
        source = number
        for layer in chain:
            for m in range(layer.factors):
                last = m == layer.factors - 1
                bias = at + layer.factors if last and layer.biased else None
                found.append(_Product(source, at + m, bias, last and layer.relu, layer.transposed, m == 0, False))
                source = len(kinds) + len(found) - 1
            at += layer.factors + layer.biased
        found[-1] = found[-1]._replace(ends=True)
    return tuple(found)


def rows(x: Tensor) -> Tensor:
    """x [G, n, …] → [G, R, n]: a view, or a copy where it is small and its factor large.

    For few rows and a large factor, BLAS is several times faster on rows in memory order.
    """
    count, n = x.shape[:2]
    flat = x.reshape(count, n, -1).transpose(1, 2)
    return flat.contiguous() if flat.shape[1] < n else flat


def multiply(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """``a @ b (+ plus)`` for stacks [G, ·, ·].

    A stack of one is multiplied unbatched: under vmap its factors, which may be large, are then shared by all tasks.
    """
    if a.shape[0] > 1:
        return torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b)
    a, b = a.squeeze(0), b.squeeze(0)
    return (torch.mm(a, b) if plus is None else torch.addmm(plus.squeeze(0), a, b)).unsqueeze(0)


class _Chains(Function):
    """(kinds, *inputs, *tensors) → the output of every product, [G, *modes]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kinds: ChainKinds, *tensors: Tensor) -> tuple[Tensor, ...]:
        values = list(tensors[: len(kinds)])
        for product in _products(kinds):
            x, factor = values[product.source], tensors[product.factor]
            if not product.transposed:
                factor = factor.transpose(1, 2)
            count, _, o = factor.shape
            if product.begins and x.shape[0] != count:
                x = torch.cat([x] * (count // x.shape[0]))
            bias = None if product.bias is None else tensors[product.bias].reshape(count, -1, o)
            y = multiply(rows(x), factor, bias)
            values.append((y.relu_() if product.relu else y).view(count, *x.shape[2:], o))
        return tuple(values[len(kinds) :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kinds = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        products, count = _products(ctx.kinds), len(ctx.kinds)
        saved = ctx.saved_tensors
        tensors, outputs = saved[: -len(products)], saved[-len(products) :]
        values = (*tensors[:count], *outputs)
        grads: list[Tensor | None] = [None] * len(tensors)
        of_values: list[Tensor | None] = [*[None] * count, *cotangents]
        for k in reversed(range(len(products))):
            g, product = of_values[count + k], products[k]
            if g is None:
                continue
            if product.relu:
                g = torch.ops.aten.threshold_backward(g, outputs[k], 0)
            if product.bias is not None:
                grads[product.bias] = g
            found, through = _pull(g, values[product.source], tensors[product.factor], product.transposed)
            grads[product.factor] = found
            more = of_values[product.source]
            of_values[product.source] = through if more is None else through + more
        return (None, *of_values[:count], *grads[count:])


def _pull(g: Tensor, x: Tensor, factor: Tensor, transposed: bool) -> tuple[Tensor, Tensor]:
    """The gradients of a product's factor and of what it reads, x, for that of its output."""
    factor = factor.transpose(1, 2) if transposed else factor  # [G, o, n]
    count, o, n = factor.shape
    copies = count // x.shape[0]
    read = torch.cat([x] * copies) if copies > 1 else x
    flat = rows(read)
    g = g.reshape(count, -1, o)  # [G, R, o]
    turned = g.transpose(1, 2)
    found = multiply(flat.transpose(1, 2), g) if transposed else multiply(turned, flat)
    through = multiply(g, factor).transpose(1, 2) if flat.shape[1] < n else multiply(factor.transpose(1, 2), turned)
    through = through.reshape(read.shape)
    return found, through.view(copies, *x.shape).sum(0) if copies > 1 else through


# torch reads the signature of a function's forward at every call; without this it is made anew each time
_Chains.forward.__signature__ = inspect.signature(_Chains.forward)  # type: ignore[attr-defined]
