"""The outer update θ ← MetaOpt(θ, g): which optimizer, at which learning rate, for which part of θ.

η_i for the start,    η_i · geometry_lr for the geometry,
    η_i = meta_lr · γ^⌊i / lr_step⌋,    or, cosine,    lr_min + (meta_lr − lr_min) (1 + cos(π i / iterations)) / 2
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import Parameter

from benchmark.spec import RunSpec
from optimizers.base import InnerOptimizer


def create_meta_optimizer(optimizer: InnerOptimizer, spec: RunSpec) -> torch.optim.Optimizer:
    """The optimizer of θ that `spec` names; the geometry is a group with a ``factor`` of its own where it has one."""
    parameters: list[Any] = [parameter for parameter in optimizer.parameters() if parameter.requires_grad]
    start, geometry = split_start(optimizer)
    if spec.geometry_lr != 1 and start and geometry:
        parameters = [{"params": start}, {"params": geometry, "factor": spec.geometry_lr}]
    if spec.meta_optimizer == "adam":
        return torch.optim.Adam(parameters, lr=spec.meta_lr, weight_decay=spec.weight_decay)
    return torch.optim.SGD(
        parameters, lr=spec.meta_lr, momentum=spec.momentum, nesterov=spec.momentum > 0, weight_decay=spec.weight_decay
    )


def split_start(optimizer: InnerOptimizer) -> tuple[list[Parameter], list[Parameter]]:
    """The meta-parameters in two parts, the start and the geometry, each in the order of ``parameters()``.

    The start is what the method was given: the parameters of its network (φ_0, for mirror descent z_0), adapted or
    not. The geometry is all that the method brought along: rates, factors, masks, maps, and the layers that it
    inserted into the network, ``network.inserted.*``. What a method fixed (``requires_grad`` False) is in neither.
    """
    start: list[Parameter] = []
    geometry: list[Parameter] = []
    for name, parameter in optimizer.named_parameters():
        given = name.startswith("network.") and not name.startswith("network.inserted.")
        if parameter.requires_grad:
            (start if given else geometry).append(parameter)
    return start, geometry


def learning_rate(spec: RunSpec, iteration: int) -> float:
    """η_i for the meta-step that follows `iteration` completed ones, by the schedule of `spec`."""
    if spec.lr_schedule == "cosine":
        height = (1 + math.cos(math.pi * iteration / spec.iterations)) / 2
        return spec.lr_min + (spec.meta_lr - spec.lr_min) * height
    return spec.meta_lr * spec.lr_gamma ** (iteration // spec.lr_step) if spec.lr_step else spec.meta_lr
