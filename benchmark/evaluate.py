"""Measuring a learned optimizer on new tasks: accuracy and query nll after adapting, the support trace on the way.

Task `i` of a split is the same for every method; evaluation keeps no graph and changes no meta-parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark import data
from benchmark.data import nearest_centroid
from benchmark.data.episodes import Batch
from benchmark.data.storage import SPLITS
from benchmark.engine.parallel import Group
from benchmark.engine.shutdown import Interrupted
from benchmark.metagrad import evaluate_batch
from benchmark.spec import RunSpec
from optimizers.base import InnerOptimizer

CHUNK = 8
"""Tasks per worker that are sampled and measured together."""


def measure(
    optimizer: InnerOptimizer,
    dataset: data.Dataset,
    spec: RunSpec,
    split: str,
    tasks: int,
    *,
    steps: int,
    trace_steps: int,
    group: Group,
    device: torch.device,
    strategy: str = "auto",
    done: pd.DataFrame | None = None,
    on_chunk: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """One row per task 0 … `tasks`-1 of `split`.

    Columns: ``task, accuracy, nll`` (query set, after `steps`), ``support_nll_k`` and ``grad_norm_k`` for
    k = 0 … `trace_steps`. Rows in `done` are kept and not measured again; `on_chunk` gets all rows so far.
    """
    tables = [] if done is None or done.empty else [done]
    first = sum(len(table) for table in tables)
    for start in range(first, tasks, CHUNK * group.size):
        indices = range(start, min(start + CHUNK * group.size, tasks))
        mine = [indices[i] for i in group.share(len(indices))]
        batch = draw_tasks(dataset, split, spec, spec.query_test, mine, device)
        result = evaluate_batch(
            optimizer,
            batch,
            steps=steps,
            trace_steps=trace_steps,
            strategy=strategy,
            noise=draw_noise(optimizer, spec, split, mine, device),
        )
        accuracy = torch.where(result.nll.isfinite(), result.accuracy, torch.nan)  # an adaptation that diverged
        rows = torch.cat(
            [accuracy[:, None], result.nll[:, None], result.support_nll, result.grad_norm], dim=1
        ).double()  # [T, 2 + 2(K+1)]
        tables.append(_table(indices, group.gather(rows, len(indices)).numpy(), trace_steps))
        on_chunk(pd.concat(tables, ignore_index=True))
    return (
        pd.concat(tables, ignore_index=True)
        if tables
        else _table(range(0), np.empty((0, 4 + 2 * trace_steps)), trace_steps)
    )


def measure_floor(
    spec: RunSpec,
    dataset: data.Dataset,
    on_rows: Callable[[int], None] = lambda count: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """Nearest centroid on raw pixels on the very tasks that the methods are measured on: task, accuracy, nll."""
    tables = []
    for start in range(0, spec.tasks, CHUNK):
        indices = range(start, min(start + CHUNK, spec.tasks))
        batch = data.sample(dataset, "test", spec.ways, spec.shots, spec.query_test, spec.seed, indices)
        accuracy, nll = nearest_centroid.evaluate(batch)
        tables.append(pd.DataFrame({"task": list(indices), "accuracy": accuracy.numpy(), "nll": nll.numpy()}))
        on_rows(indices.stop)
        if should_stop():
            raise Interrupted("interrupted while measuring")
    return pd.concat(tables, ignore_index=True)


def _table(indices: Sequence[int], rows: np.ndarray, trace_steps: int) -> pd.DataFrame:
    ks = range(trace_steps + 1)
    columns = ["accuracy", "nll", *(f"support_nll_{k}" for k in ks), *(f"grad_norm_{k}" for k in ks)]
    # float32 values in their shortest exact form: files stay small, and reading them back gives the same numbers
    table = pd.DataFrame(rows.astype(np.float32), columns=columns)
    table.insert(0, "task", list(indices))
    return table


def draw_tasks(
    dataset: data.Dataset, split: str, spec: RunSpec, query: int, indices: Sequence[int], device: torch.device
) -> Batch:
    """The tasks of these indices as the network takes them; an empty batch of their shape for a rank that has none."""
    drawn = data.sample(dataset, split, spec.ways, spec.shots, query, spec.seed, indices or [0], device)
    batch = to_device(drawn, device, spec)
    return batch if indices else Batch(*(part[:0] for part in batch))


def to_device(batch: Batch, device: torch.device, spec: RunSpec) -> Batch:
    """The batch where and in the precision in which the network computes."""
    dtype = torch.float64 if spec.precision == "float64" else torch.float32

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)

    return Batch(*(move(tensor) for tensor in batch))


def draw_noise(
    optimizer: InnerOptimizer, spec: RunSpec, split: str, indices: Sequence[int], device: torch.device
) -> Tensor | None:
    """Per-task random numbers [T, ...] of methods that draw any: a function of seed, split and task index alone."""
    drawn = []
    for index in indices:
        entropy = np.random.SeedSequence([spec.seed, SPLITS.index(split), index]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
        drawn.append(optimizer.noise(generator))
    if not drawn or drawn[0] is None:
        return None
    return torch.stack(drawn).to(device)  # type: ignore[arg-type]
