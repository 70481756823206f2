"""What a run is: method × data set × ways × shots × recipe × seed, with every knob spelled out.

A :class:`RunSpec` is the whole of what determines a run's numbers. It is plain data: it validates itself, goes to
JSON and back without loss, and names its own directory, so that the same spec always finds the same run. Where it
runs (device, workers, strategy) does not belong to it: that is recorded beside the results as environment.

The name hashes only the knobs that differ from their defaults: a knob may be added, and every run that is there keeps
its name and has the knob at its default. A default is therefore never changed without a new :data:`SCHEMA`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.estimators import exact_from

SCHEMA = 2
"""Of names and spec.json; :mod:`benchmark.runs.schema_one` has the names that came before."""
RECIPES = ("controlled", "published", "tuned")
NORMS = ("batch", "support", "group")
"""How query images are normalised: by their own batch, by the support set's statistics, each by itself (group norm)."""
LONGEST = 48
"""Letters of a data set or method that a run's name shows: file systems end at 255."""
Value = bool | int | float | str


def knob(
    default: Any,
    text: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    phase: str = "training",
) -> Any:
    """A dataclass field with its help text, its bounds and the phase (training or evaluation) that it belongs to."""
    return field(
        default=default,
        metadata={
            "help": text,
            "at_least": at_least,
            "above": above,
            "choices": choices,
            "phase": phase,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=True)
class RunSpec:
    """One run. Fields of phase ``evaluation`` do not change what is learned, only how it is measured."""

    # what is compared
    method: str = knob("maml", "the lower-level optimizer, by its registry name")
    options: dict[str, Value] = field(default_factory=dict, metadata={"help": "options of the method"})
    dataset: str = knob("glyphs", "data set name, or path of a folder or archive of class folders")
    ways: int = knob(5, "classes per task (1: regression)", at_least=1)
    shots: int = knob(1, "support images per class", at_least=1)
    seed: int = knob(0, "seed of the start, the tasks and the noise", at_least=0)
    recipe: str = knob("controlled", "like for like, as each method was published, or tuned alike", choices=RECIPES)
    # the network
    network: str = knob("cnn4", "network that is adapted")
    channels: int = knob(32, "width of the network", at_least=1)
    norm: str = knob(
        "batch", "query images are normalised by their own batch, by the support set, or group norm", choices=NORMS
    )
    # the inner loop
    alpha: float = knob(0.01, "inner step size α on the mean support loss", above=0)
    steps: int = knob(5, "inner steps K in training", at_least=1)
    estimator: str = knob("exact", "what is differentiated: exact, first-order or truncated:L (last L steps)")
    first_order_for: int = knob(0, "first-order in the first so many meta-steps, the estimator after", at_least=0)
    # the outer loop
    query_train: int = knob(15, "query images per class in training", at_least=1)
    meta_batch: int = knob(4, "tasks per meta-step", at_least=1)
    iterations: int = knob(60_000, "meta-steps", at_least=0)
    meta_optimizer: str = knob("adam", "optimizer of the meta-parameters", choices=("adam", "sgd"))
    meta_lr: float = knob(1e-3, "its learning rate", above=0)
    geometry_lr: float = knob(1.0, "factor on meta_lr for the meta-parameters that are not the start", above=0)
    momentum: float = knob(0.0, "Nesterov momentum of sgd", at_least=0)
    weight_decay: float = knob(0.0, "L2 penalty on all meta-parameters", at_least=0)
    lr_step: int = knob(0, "iterations between decays of the learning rate (0: constant)", at_least=0)
    lr_gamma: float = knob(0.1, "factor of each decay", above=0)
    lr_schedule: str = knob(
        "step", "learning rate: by lr_step, or half a cosine over all meta-steps", choices=("step", "cosine")
    )
    lr_min: float = knob(0.0, "learning rate that the cosine ends at", at_least=0)
    clip: float = knob(0.0, "clip each entry of the meta-gradient to ± this (0: off)", at_least=0)
    on_nonfinite: str = knob(
        "stop", "a meta-step with NaN or Inf: end the run as diverged, or skip and count it", choices=("stop", "skip")
    )
    precision: str = knob("float32", "arithmetic of the network", choices=("float32", "tf32", "float64"))
    # selection
    validate_every: int = knob(2_000, "iterations between meta-validations", at_least=1)
    validation_tasks: int = knob(1_000, "tasks of a meta-validation", at_least=1)
    # measuring
    query_test: int = knob(15, "query images per class in validation and test", at_least=1, phase="evaluation")
    eval_steps: int = knob(5, "inner steps after which accuracy is measured", at_least=0, phase="evaluation")
    trace_steps: int = knob(
        10, "inner steps of the recorded support nll and gradient norm", at_least=0, phase="evaluation"
    )
    tasks: int = knob(1_000, "new tasks that the method is measured on (0: none)", at_least=0, phase="evaluation")

    def __post_init__(self) -> None:
        for knob_ in dataclasses.fields(self):
            value = getattr(self, knob_.name)
            object.__setattr__(self, knob_.name, _checked(knob_, value))
        if self.trace_steps < self.eval_steps:
            object.__setattr__(self, "trace_steps", self.eval_steps)
        if self.momentum and self.meta_optimizer != "sgd":
            raise UserError(f"momentum {self.momentum} goes with meta_optimizer sgd, not {self.meta_optimizer}")
        if self.lr_schedule == "cosine" and self.lr_step:
            raise UserError(f"lr_step {self.lr_step} goes with lr_schedule step, not cosine")
        if self.lr_min and (self.lr_schedule != "cosine" or self.lr_min > self.meta_lr):
            raise UserError(f"lr_min {self.lr_min} goes with lr_schedule cosine and at most meta_lr {self.meta_lr}")
        if self.lr_step and not self._last_rate() < math.inf:
            raise UserError(
                f"lr_gamma {self.lr_gamma} every {self.lr_step} of {self.iterations:,} iterations takes the learning "
                "rate beyond any number; take at most 1"
            )
        exact_from(self.estimator, self.steps)

    def _last_rate(self) -> float:
        with contextlib.suppress(OverflowError):
            return self.meta_lr * self.lr_gamma ** (self.iterations // self.lr_step)
        return math.inf

    # identity

    def __hash__(self) -> int:
        return hash(self.digest())

    @property
    def readable(self) -> str:
        """The part of the name that says what the run is; runs that differ in other knobs share it."""
        words = (_slug(self.dataset), f"{self.ways}way", f"{self.shots}shot", _slug(self.method), self.recipe)
        return f"{'-'.join(words)}-seed{self.seed}"

    @property
    def name(self) -> str:
        """Readable, derived from the spec alone, safe as a directory name."""
        return f"{self.readable}-{self.digest()}"

    def changed(self) -> dict[str, Any]:
        """The knobs that differ from their defaults."""
        return {key: value for key, value in self.to_dict().items() if value != _default(type(self), key)}

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of the canonical JSON of :data:`SCHEMA` and :meth:`changed`."""
        return canonical_digest([SCHEMA, self.changed()])

    def training_knobs(self) -> dict[str, Any]:
        """What determines the learned meta-parameters.

        Validation uses the test protocol, so that ``query_test`` and ``eval_steps`` bear on which checkpoint is best.
        """
        selection = {"query_test", "eval_steps"} if self.iterations else set()
        phases = {knob_.name: knob_.metadata.get("phase") for knob_ in dataclasses.fields(self)}
        return {key: value for key, value in self.to_dict().items() if phases[key] != "evaluation" or key in selection}

    def training_digest(self) -> str:
        """:meth:`digest` of :meth:`training_knobs` alone: equal ones share a trained checkpoint."""
        changed = self.changed()
        return canonical_digest([SCHEMA, {key: changed[key] for key in self.training_knobs() if key in changed}])

    # plain data

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSpec:
        """The inverse of :meth:`to_dict`; a missing key has its default, an unknown one is a :class:`UserError`."""
        if not isinstance(values, dict):
            raise UserError(f"a spec must be a table of knobs, got {type(values).__name__}")
        names = [knob_.name for knob_ in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise UserError(f"unknown knob {key!r}{nearest(str(key), names)}; expected one of {', '.join(names)}")
        return cls(**values)


def _default(cls: type[RunSpec], name: str) -> Any:
    knob_ = cls.__dataclass_fields__[name]
    return knob_.default if knob_.default_factory is dataclasses.MISSING else knob_.default_factory()


def _checked(knob_: dataclasses.Field, value: Any) -> Any:
    """`value` as the knob's type, inside its bounds."""
    name, limits = knob_.name, knob_.metadata
    kind = {"int": int, "float": float, "str": str}.get(str(knob_.type))
    if kind is None:  # options: a flat dict of plain values, in a fixed order
        if not isinstance(value, dict) or not all(isinstance(entry, Value) for entry in value.values()):
            raise UserError(f"{name} must be a flat table of numbers, strings and booleans, got {value!r}")
        if not all(isinstance(key, str) for key in value):
            raise UserError(f"{name} must have names for keys, got {value!r}")
        if "alpha" in value:
            raise UserError("alpha is a knob of the run and no option of a method; use --alpha")
        if "first_order" in value:
            raise UserError("first_order is no option of a method; use the run's knob --estimator first-order")
        for entry in value.values():
            _check_size(name, entry)
        return dict(sorted(value.items()))
    _check_size(name, value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{name} must be {kind.__name__}, got {value!r}")
    if limits.get("at_least") is not None and value < limits["at_least"]:
        raise UserError(f"{name} must be at least {limits['at_least']}, got {value}")
    if limits.get("above") is not None and value <= limits["above"]:
        raise UserError(f"{name} must be above {limits['above']}, got {value}")
    if limits.get("choices") and value not in limits["choices"]:
        raise UserError(
            f"{name} {value!r} is unknown{nearest(str(value), limits['choices'])}; "
            f"expected {' or '.join(limits['choices'])}"
        )
    return value


def _check_size(name: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {value}")
    if isinstance(value, int) and abs(value) >= 2**64:
        raise UserError(f"{name} must be a number of at most 64 bits")


def _slug(text: str) -> str:
    """The last path component without anything that a file system or a reader could misunderstand."""
    base = re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return re.sub(r"[^A-Za-z0-9_]+", "-", base)[:LONGEST].strip("-").lower() or "data"


def canonical_digest(values: Any) -> str:
    """First 8 hex digits of the SHA-256 of the canonical JSON of `values`."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
