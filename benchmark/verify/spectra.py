"""The spectrum of a learned geometry: how the eigenvalues of a trained update's symmetric part are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmark.adapt import adapt, support_gradient
from benchmark.files import merge_rows
from benchmark.metagrad import tasks
from benchmark.report.findings import SPECTRUM_KEY
from benchmark.verify import geometry
from benchmark.verify.checkpoint import Checkpoint

SHARES = tuple(i / 40 for i in range(41))
"""Shares of the eigenvalues at which their distribution is read."""


def of(trained: Checkpoint) -> pd.DataFrame:
    """Quantiles of the eigenvalues at the start of the first task, a line for each of :data:`SHARES`."""
    optimizer, task = trained.optimizer, tasks(trained.batch)[0]
    noise = None if trained.noise is None else trained.noise[0]
    state = adapt(optimizer, task.support_x, task.support_y, 0, noise=noise).state
    with torch.no_grad():
        point = optimizer.params(state)
    _, grads = support_gradient(optimizer, point, task.support_x, task.support_y, create_graph=False)
    values = geometry.spectrum(geometry.of_update(optimizer, state, grads), SHARES)
    return pd.DataFrame({"method": trained.spec.method, "run": trained.name, "share": SHARES, "eigenvalue": values})


def write(trained: Sequence[Checkpoint], path: Path) -> None:
    """Their quantiles in the CSV at `path`; rows of other runs are kept."""
    if trained:
        merge_rows(path, pd.concat([of(each) for each in trained]), SPECTRUM_KEY)
