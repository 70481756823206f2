"""Where meta-training stands: what a checkpoint holds, and how training goes on from it.

All that is random in training is a function of (spec, iteration), so the state is small: meta-parameters, the
meta-optimizer's moments, the curves so far and the best meta-parameters so far. A checkpoint is this state as plain
values and CPU tensors; restored, training goes on to the same bits on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.errors import UserError
from optimizers.base import InnerOptimizer


@dataclass
class Progress:
    """Where meta-training stands: all that a checkpoint holds besides the meta-optimizer's moments."""

    iteration: int = 0
    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    validations: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_iteration: int = 0
    best_score: float = -math.inf
    """Validation accuracy, or for regression minus the loss."""
    train_s: float = 0.0
    """Wall time of the meta-steps."""
    validate_s: float = 0.0
    """Wall time of the validations that ended."""

    def training_table(self) -> pd.DataFrame:
        return pd.DataFrame({"iteration": np.arange(1, len(self.losses) + 1), "loss": self.losses})

    def validation_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.validations, columns=["iteration", "accuracy", "accuracy_ci95", "nll"])


def snapshot(progress: Progress, optimizer: InnerOptimizer, meta_optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Plain values and tensors from which :func:`restore` goes on bit by bit; the meta-optimizer's stay in place."""
    on_cpu = {key: value.detach().cpu().clone() for key, value in optimizer.state_dict().items()}
    best = None if progress.best is None else {key: value.cpu() for key, value in progress.best.items()}
    return {
        "iteration": progress.iteration,
        "meta_parameters": on_cpu,
        "meta_optimizer": meta_optimizer.state_dict(),
        "losses": torch.tensor(progress.losses, dtype=torch.float64),
        "skipped": progress.skipped,
        "validations": progress.validations,
        "best": best,
        "best_iteration": progress.best_iteration,
        "best_score": progress.best_score,
        "train_s": progress.train_s,
        "validate_s": progress.validate_s,
    }


def restore(
    payload: dict[str, Any], optimizer: InnerOptimizer, meta_optimizer: torch.optim.Optimizer | None = None
) -> Progress:
    """Load a :func:`snapshot` into `optimizer` (and `meta_optimizer`) and return where training stood."""
    try:
        optimizer.load_state_dict(payload["meta_parameters"])
        if meta_optimizer is not None:
            meta_optimizer.load_state_dict(payload["meta_optimizer"])
        return Progress(
            iteration=payload["iteration"],
            losses=payload["losses"].tolist(),
            skipped=payload["skipped"],
            validations=list(payload["validations"]),
            best=payload["best"],
            best_iteration=payload["best_iteration"],
            best_score=payload["best_score"],
            train_s=payload["train_s"],
            validate_s=payload["validate_s"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"the checkpoint does not fit this run ({str(error).splitlines()[0]})") from error
