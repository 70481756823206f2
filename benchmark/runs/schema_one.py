"""Names of runs as schema 1 made them, so that nothing which was computed under it is lost.

It hashed every knob, the default ones too: each new knob would have given all runs other names. What this module
knows is final; a knob that came later has no part in it.
"""

from __future__ import annotations

from typing import Any

from benchmark.spec import RunSpec, canonical_digest

KNOBS = (
    "method", "options", "dataset", "ways", "shots", "seed", "recipe", "network", "channels", "alpha", "steps",
    "query_train", "meta_batch", "iterations", "meta_optimizer", "meta_lr", "momentum", "weight_decay", "lr_step",
    "lr_gamma", "clip", "on_nonfinite", "precision", "validate_every", "validation_tasks", "query_test", "eval_steps",
    "trace_steps", "tasks",
)  # fmt: skip


def digest(spec: RunSpec) -> str | None:
    """The digest that ended the run's name; None if the run could not be described."""
    return _digest(spec, spec.to_dict())


def name(spec: RunSpec) -> str | None:
    """The run's name; None if the run could not be described."""
    found = digest(spec)
    return found and f"{spec.readable}-{found}"


def training_digest(spec: RunSpec) -> str | None:
    """What a checkpoint named as its spec; None if the run could not be described."""
    return _digest(spec, spec.training_knobs())


def _digest(spec: RunSpec, values: dict[str, Any]) -> str | None:
    if any(key not in KNOBS for key in spec.changed()):
        return None
    return canonical_digest({key: value for key, value in values.items() if key in KNOBS})
