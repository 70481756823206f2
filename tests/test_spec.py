"""A run's spec: validated, round-trips through JSON, names its own directory."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import UserError
from benchmark.recipes import CONTROLLED, PUBLISHED, resolve
from benchmark.spec import RECIPES, RunSpec

PLAIN = st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.integers(0, 2**63), st.floats(1e-9, 1e9), st.dictionaries(st.text(), PLAIN, max_size=4), st.text(min_size=1))
def test_round_trip_through_json(seed: int, alpha: float, options: dict, dataset: str) -> None:
    spec = RunSpec(seed=seed, alpha=alpha, options=options, dataset=dataset)
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.name == spec.name


@given(st.text(min_size=1), st.text(min_size=1))
def test_name_is_a_plain_directory_name(dataset: str, method: str) -> None:
    name = RunSpec(dataset=dataset, method=method).name
    assert "/" not in name
    assert "\\" not in name
    assert not name.startswith(".")
    assert name.isprintable()


def test_every_knob_changes_the_name() -> None:
    plain = RunSpec(meta_optimizer="sgd")
    for knob in dataclasses.fields(RunSpec):
        base = dataclasses.replace(plain, lr_schedule="cosine", meta_lr=1.0) if knob.name == "lr_min" else plain
        value = getattr(base, knob.name)
        other = {int: lambda v: v + 20, float: lambda v: v + 0.5, str: lambda v: v + "x", dict: lambda v: {"a": 1}}[
            type(value)
        ](value)
        if knob.name == "estimator":
            other = "first-order"
        if knob.metadata.get("choices"):
            other = next(choice for choice in knob.metadata["choices"] if choice != value)
        assert dataclasses.replace(base, **{knob.name: other}).name != base.name, knob.name


def test_measuring_otherwise_shares_the_training() -> None:
    base = RunSpec()
    assert dataclasses.replace(base, tasks=7, trace_steps=20).training_digest() == base.training_digest()
    assert dataclasses.replace(base, query_test=5).training_digest() != base.training_digest()  # selection sees it
    assert dataclasses.replace(base, alpha=0.5).training_digest() != base.training_digest()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"ways": 0}, "ways must be at least 1"),
        ({"shots": 0}, "shots must be at least 1"),
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"alpha": float("nan")}, "alpha must be a finite number"),
        ({"alpha": "fast"}, "alpha must be float"),
        ({"iterations": 2.5}, "iterations must be int"),
        ({"seed": True}, "seed must be int"),
        ({"meta_optimizer": "adma"}, "did you mean 'adam'"),
        ({"recipe": "publishd"}, "did you mean 'published'"),
        ({"momentum": 0.9}, "goes with meta_optimizer sgd"),
        ({"lr_step": 1, "lr_gamma": 10.0, "iterations": 500}, "beyond any number; take at most 1"),
        ({"options": {"a": [1]}}, "options must be a flat table"),
        ({"itertions": 5}, "did you mean 'iterations'"),
        ({"estimator": "exect"}, "did you mean 'exact'"),
        ({"estimator": "truncated"}, "expected exact, first-order or truncated:L"),
        ({"estimator": "truncated:-1"}, "expected exact, first-order or truncated:L"),
        ({"estimator": "truncated:1.5"}, "expected exact, first-order or truncated:L"),
        ({"estimator": "truncated:01"}, "expected exact, first-order or truncated:L"),
        ({"estimator": "truncated:6"}, "more steps than there are .5.; expected at most truncated:5"),
        ({"estimator": "truncated:3", "steps": 2}, "at most truncated:2"),
        ({"options": {"first_order": True}}, "use the run's knob --estimator first-order"),
    ],
)
def test_wrong_values_say_what_was_expected(values: dict, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        RunSpec.from_dict(values)
    assert "\n" not in str(caught.value)


def test_controlled_recipe_differs_between_methods_in_the_method_alone() -> None:
    for dataset in ("glyphs", "omniglot", "cifar-fs", "miniimagenet"):
        for preset in CONTROLLED:
            first, *rest = (
                resolve(m, dataset, shots=1, recipe_name="controlled", preset=preset, overrides={}) for m in PUBLISHED
            )
            for other in rest:
                assert dataclasses.replace(other, method=first.method) == first


@pytest.mark.parametrize("recipe_name", RECIPES)
def test_every_recipe_names_a_network_that_is_there(recipe_name: str) -> None:
    from benchmark import networks

    for dataset in ("glyphs", "omniglot", "cifar-fs", "miniimagenet"):
        for method in PUBLISHED:
            spec = resolve(method, dataset, shots=1, recipe_name=recipe_name, preset="quick", overrides={})
            assert spec.network in networks.available(), method


def test_flags_win_over_the_recipe() -> None:
    spec = resolve("md", "glyphs", shots=1, recipe_name="controlled", preset="quick", overrides={"steps": 3})
    assert (spec.steps, spec.eval_steps) == (3, 3)
    spec = resolve(
        "md", "glyphs", shots=1, recipe_name="controlled", preset="quick", overrides={"steps": 3, "eval_steps": 7}
    )
    assert (spec.steps, spec.eval_steps) == (3, 7)
