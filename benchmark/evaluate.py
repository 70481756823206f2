"""Measuring a learned optimizer on new tasks: accuracy and query nll after adapting, the support trace on the way.

Task `i` of a split is the same for every method; evaluation keeps no graph and changes no meta-parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from benchmark.data import nearest_centroid
from benchmark.engine.execution import PLAIN, Execution
from benchmark.engine.shutdown import Interrupted
from benchmark.metagrad import evaluate_batch
from benchmark.tasks import TaskStream
from optimizers.base import InnerOptimizer

CHUNK = 8
"""Tasks per worker that are sampled and measured together."""


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How much is measured: the first `tasks` tasks of a stream, each after `steps` inner steps."""

    tasks: int
    steps: int
    trace_steps: int
    """How far the support trace goes, `steps` or further."""


def measure(
    optimizer: InnerOptimizer,
    stream: TaskStream,
    protocol: EvaluationProtocol,
    execution: Execution = PLAIN,
    *,
    done: pd.DataFrame | None = None,
    on_chunk: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """One row per task 0 … ``protocol.tasks`` − 1 of the stream.

    Columns: ``task, accuracy, nll`` (query set, after ``protocol.steps``), ``support_nll_k`` and ``grad_norm_k`` for
    k = 0 … ``protocol.trace_steps``. Rows in `done` are kept and not measured again; `on_chunk` gets all rows so far.
    """
    tables = [] if done is None or done.empty else [done]
    group, together = execution.group, CHUNK * execution.group.size
    first = sum(len(table) for table in tables)
    for start in range(first, protocol.tasks, together):
        indices = range(start, min(start + together, protocol.tasks))
        mine = [indices[i] for i in group.share(len(indices))]
        result = evaluate_batch(
            optimizer,
            stream.batch(mine, execution),
            steps=protocol.steps,
            trace_steps=protocol.trace_steps,
            strategy=execution.strategy,
            noise=stream.noise(optimizer, mine, execution),
        )
        accuracy = torch.where(result.nll.isfinite(), result.accuracy, torch.nan)  # an adaptation that diverged
        rows = torch.cat(
            [accuracy[:, None], result.nll[:, None], result.support_nll, result.grad_norm], dim=1
        ).double()  # [T, 2 + 2(K+1)]
        tables.append(_table(indices, group.gather(rows, len(indices)).numpy(), protocol.trace_steps))
        on_chunk(pd.concat(tables, ignore_index=True))
    if not tables:
        return _table(range(0), np.empty((0, 4 + 2 * protocol.trace_steps)), protocol.trace_steps)
    return pd.concat(tables, ignore_index=True)


def measure_baseline(
    stream: TaskStream,
    count: int,
    on_rows: Callable[[int], None] = lambda count: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """Nearest centroid on raw pixels on the first `count` tasks, which the methods are measured on too.

    Columns: ``task, accuracy, nll``.
    """
    tables = []
    for start in range(0, count, CHUNK):
        indices = range(start, min(start + CHUNK, count))
        accuracy, nll = nearest_centroid.evaluate(stream.batch(indices))
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
