"""A tiny run, executed in this very process, and what must be equal bit by bit in two of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.engine.group import Group
from benchmark.engine.shutdown import Stop
from benchmark.runs import checkpoints, plan, store
from benchmark.runs import run as runner
from benchmark.runs.progress import Reporter
from benchmark.spec import RunSpec

COMMON: dict[str, Any] = {
    "iterations": 6,
    "meta_batch": 3,
    "query_train": 3,
    "query_test": 3,
    "steps": 1,
    "eval_steps": 1,
    "trace_steps": 2,
    "validate_every": 3,
    "validation_tasks": 6,
    "tasks": 12,
}
TINY = RunSpec(method="metasgd", dataset="sine", network="sine-mlp", ways=1, shots=3, channels=8, **COMMON)
"""Regression with a network of two small layers: a run takes a few hundredths of a second."""
GLYPHS = RunSpec(method="maml", dataset="glyphs", network="cnn4", ways=3, shots=1, channels=4, **COMMON)
"""The same with images."""


def tiny(**knobs: Any) -> RunSpec:
    return dataclasses.replace(TINY, **knobs)


def execute(results: Path, spec: RunSpec = TINY, stop: Stop | None = None, **context: Any) -> str:
    """Bring one run to its end here; what stops it is raised."""
    where = runner.Context(results=results, device="cpu", command=("python", "-m", "benchmark", "run"), **context)
    return runner.execute(spec, where, group=Group(), reporter=Reporter(), stop=Stop() if stop is None else stop)


def execute_all(results: Path, *specs: RunSpec, console: Console | None = None, **context: Any) -> dict[str, str]:
    """Run a plan here, as the command line does."""
    where = runner.Context(results=results, device="cpu", **context)
    return plan.run_all(specs, where, group=Group(), reporter=Reporter(console))


def numbers(path: Path) -> dict[str, bytes]:
    """What must be equal bit by bit: tables, and learned meta-parameters."""
    found = {name: (path / name).read_bytes() for name in ("evaluation.csv", "training.csv", "validation.csv")}
    payload = checkpoints.read_checkpoint(path / "checkpoint.pt")
    for group in ("meta_parameters", "best"):
        found |= {f"{group}.{key}": value.numpy().tobytes() for key, value in payload[group].items()}
    return found


def state(results: Path, spec: RunSpec = TINY) -> str:
    return store.load_run(results / spec.name).state


def cut(data: bytes, how: str) -> bytes:
    """`data` cut short, or with one bit of its middle flipped."""
    if how == "bit":
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data[: {"empty": 0, "one byte": 1, "half": len(data) // 2, "all but one byte": len(data) - 1}[how]]


DAMAGES = ("empty", "one byte", "half", "all but one byte", "bit")
