"""A study file: what a published table needs, as one TOML file.

::

    dataset = "cifar-fs"                 # and any other knob of a run that all stages share
    methods = "all"                      # or a list of names

    [tuning]                             # optional: what the recipe tuned of the stages draws on
    trials = 8
    iterations = 500
    shots = 1
    seed = 0

    [[stage]]                            # carried out in this order
    name = "one-shot"
    recipe = "tuned"                     # or controlled
    shots = [1]
    seeds = [0, 1, 2]
    iterations = 3000                    # this and any other knob, dataset and methods: instead of the shared one
    folder = "long"                      # optional: results and report of the stage in a folder of their own

Everything is checked when the file is read: a mistake shows before hours were spent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import recipes
from benchmark.errors import UserError, nearest
from benchmark.files import read_toml
from benchmark.runs.grid import LISTED, methods_named, with_baseline
from benchmark.runs.tune import SPACE, Search, Tuning
from benchmark.spec import RunSpec

RECIPES = ("controlled", "tuned")
TRIALS = "tuning"
"""Folder of the trials below the results of a study."""

KNOBS = tuple(knob.name for knob in dataclasses.fields(RunSpec) if knob.name not in LISTED and knob.name != "dataset")
SHARED = ("dataset", "methods", "preset", "tuning", "stage", *KNOBS)
TUNING = ("trials", "iterations", "shots", "seed", *(name for name in KNOBS if name != "tasks"))
STAGE = ("name", "dataset", "methods", "recipe", "shots", "seeds", "folder", *KNOBS)
MIDDLE = {name: (low * high) ** 0.5 for name, (low, high) in SPACE.items()}
"""Stands in for tuned values that are not known yet: their cost is the same."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Runs that belong together: methods × shots × seeds, by one recipe."""

    name: str
    dataset: str
    methods: tuple[str, ...]
    recipe: str = "controlled"
    shots: tuple[int, ...] = (1,)
    seeds: tuple[int, ...] = (0,)
    folder: str = ""
    preset: str = "quick"
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def specs(self, tuning: Tuning | None = None) -> list[RunSpec]:
        """The runs with their baselines, seeds outermost so that whole tables come early.

        Tuned values not known yet are :data:`MIDDLE`; methods for which a tuning chose nothing are left out.
        """
        methods = [method for method in self.methods if method not in self.untuned(tuning)]
        return with_baseline(
            [
                recipes.resolve(
                    method,
                    self.dataset,
                    shots=shots,
                    recipe_name=self.recipe,
                    preset=self.preset,
                    overrides={**self.knobs, **self._tuned(method, tuning), "seed": seed},
                )
                for seed in self.seeds
                for shots in self.shots
                for method in methods
            ]
        )

    def untuned(self, tuning: Tuning | None) -> list[str]:
        """Methods that this stage cannot run, because their tuning chose nothing."""
        if self.recipe != "tuned" or tuning is None:
            return []
        return [method for method in self.methods if method not in tuning.document["chosen"]]

    def _tuned(self, method: str, tuning: Tuning | None) -> dict[str, float]:
        if self.recipe != "tuned":
            return {}
        return MIDDLE if tuning is None else tuning.values(method)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file, read."""

    path: Path
    search: Search | None
    methods: tuple[str, ...]
    """Those that are tuned: of all stages of the recipe tuned."""
    stages: tuple[Stage, ...]


def read(path: Path) -> Study:
    """The study in a TOML file; :class:`UserError`, in one line, for whatever is wrong in it."""
    document = read_toml(path)
    try:
        return _study(path, document)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _study(path: Path, document: dict[str, Any]) -> Study:
    _known(document, SHARED, "")
    tables = document.get("stage")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError("has no [[stage]] table; a study is a list of them")
    stages = tuple(_stage(document, table, f"stage {place}") for place, table in enumerate(tables, start=1))
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two stages have the name {name!r}; give each its own")
    tuned = [stage for stage in stages if stage.recipe == "tuned"]
    if "tuning" not in document:
        if tuned:
            raise UserError(f"stage {tuned[0].name!r} is of the recipe tuned, but there is no [tuning] table; add one")
        return Study(path=path, search=None, methods=(), stages=stages)
    if not tuned:
        raise UserError("has a [tuning] table, but no stage of the recipe tuned; leave it out")
    search = _search(document, _text("", document, "dataset", "glyphs"))
    methods = tuple(dict.fromkeys(method for stage in tuned for method in stage.methods))
    with _named("[tuning]"):
        trial = search.plan(methods)[0]
    for stage in tuned:
        spec = stage.specs()[-1]  # a method's: the baseline, which comes first, has no norm
        for key in ("dataset", "ways", "norm"):
            here, there = getattr(spec, key), getattr(trial, key)
            if here != there:
                raise UserError(f"stage {stage.name!r} has {key} {here}, but {there} is tuned; take recipe controlled")
    return Study(path=path, search=search, methods=methods, stages=stages)


def _search(document: dict[str, Any], dataset: str) -> Search:
    table, where = document["tuning"], "[tuning]"
    if not isinstance(table, dict):
        raise UserError("tuning must be a table, [tuning]")
    _known(table, TUNING, where)
    shared = {key: value for key, value in document.items() if key in TUNING and key not in ("iterations", *SPACE)}
    numbers = {
        key: _integer(where, table, key, getattr(Search, key), least)
        for key, least in (("trials", 1), ("iterations", 1), ("shots", 1), ("seed", 0))
    }
    with _named(where):
        return Search(
            dataset=dataset,
            preset=_text("", document, "preset", "quick"),
            knobs=shared | {key: value for key, value in table.items() if key not in numbers},
            **numbers,
        )


def _stage(document: dict[str, Any], table: dict[str, Any], where: str) -> Stage:
    name = _text(where, table, "name", "")
    if not name:
        raise UserError(f"{where} has no name; give it one")
    where = f"stage {name!r}"
    _known(table, STAGE, where)
    both = {**document, **table}
    recipe = _text(where, table, "recipe", "controlled")
    if recipe not in RECIPES:
        raise UserError(f"{where}: recipe {recipe!r}{nearest(recipe, RECIPES)}; expected {' or '.join(RECIPES)}")
    knobs = {key: both[key] for key in KNOBS if key in both}
    fixed = [key for key in SPACE if key in knobs]
    if recipe == "tuned" and fixed:
        raise UserError(f"{where}: {fixed[0]} is what is tuned; leave it out")
    folder = _text(where, table, "folder", "")
    if folder and (not re.fullmatch(r"[A-Za-z0-9_-]+", folder) or folder == TRIALS):
        raise UserError(f"{where}: folder {folder!r} must be a plain name of letters and digits, and not {TRIALS!r}")
    with _named(where):
        stage = Stage(
            name=name,
            dataset=_text("", both, "dataset", "glyphs"),
            methods=_methods(both.get("methods", "all")),
            recipe=recipe,
            shots=_integers(table, "shots", (1,), 1),
            seeds=_integers(table, "seeds", (0,), 0),
            folder=folder,
            preset=_text("", both, "preset", "quick"),
            knobs=knobs,
        )
        for spec in stage.specs():
            if not spec.tasks:
                raise UserError("tasks must be at least 1; what has no test task is no row of a table")
    return stage


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """An error raised inside says where in the file it comes from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    keys = list(keys)
    for key in table:
        if key not in keys:
            raise UserError(f"{where + ': ' if where else ''}unknown key {key!r}{nearest(key, keys)}")


def _text(where: str, table: Mapping[str, Any], key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise UserError(f"{where + ': ' if where else ''}{key} must be a text, got {value!r}")
    return value


def _integer(where: str, table: Mapping[str, Any], key: str, default: int, least: int) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{where}: {key} must be a whole number from {least} on, got {value!r}")
    return value


def _integers(table: Mapping[str, Any], key: str, default: Sequence[int], least: int) -> tuple[int, ...]:
    values = table.get(key, list(default))
    if not isinstance(values, list) or not values:
        raise UserError(f"{key} must be a list of whole numbers, such as {list(default)}, got {values!r}")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key} must be whole numbers from {least} on, got {value!r}")
    return tuple(dict.fromkeys(values))


def _methods(value: Any) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f'methods must be "all" or a list of names, got {value!r}')
    return tuple(methods_named(words, "methods"))
