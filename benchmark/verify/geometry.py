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

from collections.abc import Callable, Mapping, Sequence
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

    def symmetric(self, v: Tensor) -> Tensor:
        """v ↦ (M + Mᵀ) v / 2."""
        return (self.forward(v) + self.adjoint(v)) / 2


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
    flat_function, at = flattened(function, point)
    pull = vjp(flat_function, at)[1]
    push = vjp(lambda u: vjp(flat_function, at)[1](u)[0], torch.zeros_like(at))[1]  # u ↦ Jᵀ u is linear: its vjp is J
    return Linear(
        size=len(at),
        forward=lambda v: scale * push(v)[0].detach(),
        adjoint=lambda v: scale * pull(v)[0].detach(),
        like=at,
    )


def flattened(function: Callable[[Params], Params], point: Mapping[str, Tensor]) -> tuple[Product, Tensor]:
    """`function` and `point` with all tensors in one vector [d]."""
    names = list(point)
    shapes = [point[name].shape for name in names]
    sizes = [shape.numel() for shape in shapes]

    def flat(values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([values[name].flatten() for name in names])

    def of_vector(vector: Tensor) -> Tensor:
        parts = zip(names, vector.split(sizes), shapes, strict=True)
        return flat(function({name: part.reshape(shape) for name, part, shape in parts}))

    return of_vector, flat(point).detach()


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
    ends = lanczos(linear.symmetric, linear, iterations, generator)
    skew, total = 0.0, 0.0
    for _ in range(probes):
        v = _random(linear, generator)
        forward, adjoint = linear.forward(v), linear.adjoint(v)
        skew += float((forward - adjoint).square().sum())
        total += float(forward.square().sum() + adjoint.square().sum()) / 2
    gram = lanczos(lambda v: linear.adjoint(linear.forward(v)), linear, iterations, generator)
    low, high = gram.least, gram.greatest
    return Geometry(
        least=ends.least,
        greatest=ends.greatest,
        residual=ends.residual,
        asymmetry=(skew / total) ** 0.5 / 2 if total else 0.0,
        condition=(high / low) ** 0.5 if low > 0 else float("inf"),
    )


@dataclass(frozen=True)
class Krylov:
    """A symmetric operator on the space that Lanczos' iteration built: Ritz values, rising, and their vectors."""

    values: Tensor
    """[k]"""
    vectors: Tensor
    """[k, k], a column each, in the basis."""
    basis: Tensor
    """[k, d], orthonormal; the first is the random start."""
    image: Tensor
    """[k, d], the operator's products with it."""

    @property
    def least(self) -> float:
        return float(self.values[0])

    @property
    def greatest(self) -> float:
        return float(self.values[-1])

    @property
    def least_vector(self) -> Tensor:
        """The unit vector [d] of the smallest."""
        return self.vectors[:, 0] @ self.basis

    @property
    def residual(self) -> float:
        """‖S v − λ v‖ of the smallest."""
        return float((self.vectors[:, 0] @ self.image - self.values[0] * self.least_vector).norm())


def lanczos(product: Product, linear: Linear, iterations: int, generator: torch.Generator) -> Krylov:
    """Extreme eigenvalues of a symmetric operator, from a random start.

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
    return Krylov(values, vectors, q, w)


def spectrum(
    linear: Linear, shares: Sequence[float], *, iterations: int = 60, probes: int = 4, seed: int = 0
) -> list[float]:
    """Quantiles of the eigenvalues of the symmetric part: at most the given share of them lies below each.

    Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017): a random unit vector sees each eigenvalue with the weight
    of its component along the eigenvector, and Lanczos from it finds nodes and weights of that measure.
    """
    generator = torch.Generator().manual_seed(seed)
    found = [lanczos(linear.symmetric, linear, iterations, generator) for _ in range(probes)]
    nodes = torch.cat([each.values for each in found])
    weights = torch.cat([each.vectors[0].square() for each in found]) / probes
    order = nodes.argsort()
    nodes, below = nodes[order], weights[order].cumsum(0)
    places = torch.searchsorted(below, torch.tensor(shares, dtype=below.dtype) * below[-1] * (1 - 1e-12))
    return [float(nodes[place]) for place in places.clamp(max=len(nodes) - 1)]


def _orthogonal(v: Tensor, basis: list[Tensor]) -> Tensor:
    q = torch.stack(basis)
    for _ in range(2):
        v = v - (q @ v) @ q
    return v


def _random(linear: Linear, generator: torch.Generator) -> Tensor:
    return torch.randn(linear.size, generator=generator, dtype=torch.float64).to(linear.like)
