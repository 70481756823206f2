"""The geometry of an update, without ever forming its matrix.

Near a state, an optimizer turns a change of the gradient into a change of φ by a linear map, −α M. For gradient descent
M is the identity, for a preconditioned method the preconditioner, for mirror descent the Jacobian of the map g at the
next dual point. Three questions decide what it can promise:

- Is it *monotone*? The smallest eigenvalue of (M + Mᵀ)/2 is positive: then every small step descends.
- Is it *symmetric*? Only then is g the gradient of a function, and mirror descent has a Bregman divergence.
- How is it *conditioned*? σ_max / σ_min.

M is met only through products: Mᵀ v is a reverse-mode derivative, and M v the derivative of that. Extreme eigenvalues
come from Lanczos' iteration with full reorthogonalisation; its values lie inside the spectrum, so that a negative one
proves that M is not monotone, while a positive one is as good as its residual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vjp

from optimizers.base import InnerOptimizer, Params, State

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Linear:
    """A square matrix known by its products with vectors [d]."""

    size: int
    forward: Product
    """v ↦ M v."""
    adjoint: Product
    """v ↦ Mᵀ v."""
    like: Tensor
    """A tensor of its dtype and device."""


@dataclass(frozen=True)
class Geometry:
    """What :func:`describe` found of one linear map."""

    least: float
    """Smallest eigenvalue of the symmetric part: > 0 where monotone."""
    greatest: float
    """Largest eigenvalue of the symmetric part."""
    residual: float
    """‖S v − λ v‖ of the smallest: there is an eigenvalue within this distance of it."""
    asymmetry: float
    """‖M − Mᵀ‖ / 2‖M‖ in the Frobenius norm, estimated: 0 for a symmetric map, 1 for an antisymmetric one."""
    condition: float
    """σ_max / σ_min, from below."""

    @property
    def monotone(self) -> bool:
        """Whether the symmetric part is found positive definite."""
        return self.least > 0

    @property
    def symmetric(self) -> bool:
        """Whether the map is symmetric to rounding."""
        return self.asymmetry < 1e-8


def of_map(function: Callable[[Params], Params], point: Mapping[str, Tensor], scale: float = 1.0) -> Linear:
    """The Jacobian of `function` at `point`, times `scale`; both are Params of the same names and shapes."""
    names = list(point)
    shapes = [point[name].shape for name in names]
    sizes = [shape.numel() for shape in shapes]

    def flat(values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([values[name].flatten() for name in names])

    def flat_function(vector: Tensor) -> Tensor:
        parts = zip(names, vector.split(sizes), shapes, strict=True)
        return flat(function({name: part.reshape(shape) for name, part, shape in parts}))

    at = flat(point).detach()
    pull = vjp(flat_function, at)[1]
    push = vjp(lambda u: vjp(flat_function, at)[1](u)[0], torch.zeros_like(at))[1]  # u ↦ Jᵀ u is linear: its vjp is J
    return Linear(
        size=len(at),
        forward=lambda v: scale * push(v)[0].detach(),
        adjoint=lambda v: scale * pull(v)[0].detach(),
        like=at,
    )


def of_update(optimizer: InnerOptimizer, state: State, grads: Params, k: int = 0) -> Linear:
    """M = −(1/α) ∂φ⁺/∂G, where φ⁺ is the point after step k from `state` with gradient G = `grads`."""

    def after(gradient: Params) -> Params:
        return optimizer.params(optimizer.step(state, gradient, k))

    with torch.no_grad():
        held = {name: g.detach() for name, g in grads.items()}
    return of_map(after, held, scale=-1 / optimizer.alpha)


def cosine(optimizer: InnerOptimizer, state: State, grads: Params, k: int = 0) -> float:
    """Cosine between the step in φ and −G: 1 for gradient descent, negative where the step climbs."""
    with torch.no_grad():
        before, after = optimizer.params(state), optimizer.params(optimizer.step(state, grads, k))
        step = torch.cat([(after[name] - before[name]).flatten() for name in grads])
        down = -torch.cat([g.flatten() for g in grads.values()])
        return float(torch.dot(step, down) / (step.norm() * down.norm()))


def describe(linear: Linear, *, iterations: int = 80, probes: int = 8, seed: int = 0) -> Geometry:
    """Eigenvalues of the symmetric part, asymmetry and condition of `linear`, in at most `iterations` products each."""
    generator = torch.Generator().manual_seed(seed)

    def symmetric(v: Tensor) -> Tensor:
        return (linear.forward(v) + linear.adjoint(v)) / 2

    least, greatest, residual = lanczos(symmetric, linear, iterations, generator)
    skew, total = 0.0, 0.0
    for _ in range(probes):
        v = _random(linear, generator)
        forward, adjoint = linear.forward(v), linear.adjoint(v)
        skew += float((forward - adjoint).square().sum())
        total += float(forward.square().sum() + adjoint.square().sum()) / 2
    low, high, _ = lanczos(lambda v: linear.adjoint(linear.forward(v)), linear, iterations, generator)
    return Geometry(
        least=least,
        greatest=greatest,
        residual=residual,
        asymmetry=(skew / total) ** 0.5 / 2 if total else 0.0,
        condition=(high / low) ** 0.5 if low > 0 else float("inf"),
    )


def lanczos(
    product: Product, linear: Linear, iterations: int, generator: torch.Generator
) -> tuple[float, float, float]:
    """Extreme eigenvalues (λ_min, λ_max) of a symmetric operator, and the residual of λ_min's vector.

    Every new vector is orthogonalised twice against all before. Where the Krylov space closes, the values are exact on
    it; a new random direction then continues, so that repeated eigenvalues and hidden ones are met too.
    """
    count = min(iterations, linear.size)
    basis: list[Tensor] = []
    image: list[Tensor] = []
    v = _random(linear, generator)
    for _ in range(count):
        v = v / v.norm()
        basis.append(v)
        image.append(product(v))
        v = _orthogonal(image[-1], basis)
        if v.norm() <= 1e-10 * image[-1].norm().clamp(min=1e-300):
            v = _orthogonal(_random(linear, generator), basis)
            if v.norm() < 1e-8:
                break
    q, w = torch.stack(basis), torch.stack(image)  # [k, d]
    projected = q @ w.mT
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    first = vectors[:, 0]
    residual = (first @ w - values[0] * (first @ q)).norm()
    return float(values[0]), float(values[-1]), float(residual)


def _orthogonal(v: Tensor, basis: list[Tensor]) -> Tensor:
    q = torch.stack(basis)
    for _ in range(2):
        v = v - (q @ v) @ q
    return v


def _random(linear: Linear, generator: torch.Generator) -> Tensor:
    return torch.randn(linear.size, generator=generator, dtype=torch.float64).to(linear.like)
