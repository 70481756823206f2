"""Published recipes against what papers and released code say of each method; which data sets have one of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import optimizers
from benchmark import data
from benchmark.cli import parser
from benchmark.recipes import CONTROLLED, PUBLISHED, SAME, is_general, remark, resolve
from benchmark.runs import assembly
from benchmark.spec import RunSpec
from optimizers.cards import COMMON_OPTIONS

CATALOGUE = [str(entry["name"]) for entry in data.available()]


def published(method: str, dataset: str = "miniimagenet", shots: int = 1, **overrides: Any) -> RunSpec:
    return resolve(method, dataset, shots=shots, recipe_name="published", preset="quick", overrides=overrides)


def has(spec: RunSpec, **knobs: Any) -> None:
    assert {key: getattr(spec, key) for key in knobs} == knobs


@pytest.mark.parametrize("shots", [1, 5])
def test_maml(shots: int) -> None:
    """0.01 and, on Omniglot, 0.4 on a loss summed over 5 ways and divided by the shots."""
    has(
        published("maml", shots=shots), channels=32, alpha=0.05, steps=5, eval_steps=10, meta_optimizer="adam",
        meta_lr=1e-3, lr_step=0, meta_batch=4, iterations=60_000, query_train=15, query_test=shots, clip=10.0,
        tasks=600, options={},
    )  # fmt: skip
    has(
        published("maml", "omniglot", shots), channels=64, alpha=2.0, steps=1, eval_steps=3, meta_lr=1e-3,
        meta_batch=32, iterations=60_000, query_train=shots, query_test=shots, clip=0.0, tasks=600,
    )  # fmt: skip


@pytest.mark.parametrize("shots", [1, 5])
def test_mtnet_has_mamls_recipe_and_fewer_steps_on_omniglot(shots: int) -> None:
    maml, mtnet = (published(method, shots=shots).to_dict() for method in ("maml", "mtnet"))
    assert mtnet == maml | {"method": "mtnet"}
    maml, mtnet = (published(method, "omniglot", shots).to_dict() for method in ("maml", "mtnet"))
    assert mtnet == maml | {"method": "mtnet", "iterations": 40_000}


@pytest.mark.parametrize("dataset", ["miniimagenet", "omniglot"])
def test_metasgd_takes_one_step_with_rates_of_either_sign(dataset: str) -> None:
    spec = published("metasgd", dataset)
    has(spec, steps=1, eval_steps=1, meta_optimizer="adam", meta_lr=1e-3, query_test=1, options={"form": "free"})
    small = published("metasgd", dataset, channels=4)
    optimizer = assembly.build(small, (1, 28, 28), torch.device("cpu"))
    rates = [value for name, value in optimizer.named_parameters() if not name.startswith("network.")]
    assert all(torch.allclose(rate, torch.tensor(spec.alpha)) for rate in rates)  # a itself and not its logarithm
    has(published("metasgd", dataset, options={"form": "log"}), options={"form": "log"})


@pytest.mark.parametrize("dataset", ["miniimagenet", "omniglot"])
def test_warpgrad_starts_its_warp_layers_at_random(dataset: str) -> None:
    has(
        published("warpgrad", dataset), channels=128, alpha=0.1, steps=5, eval_steps=5, query_test=15,
        options={"warp_start": "random"},
    )  # fmt: skip
    small = published("warpgrad", dataset, channels=4)
    optimizer = assembly.build(small, (1, 28, 28), torch.device("cpu"))
    warps = [p for name, p in optimizer.named_parameters() if name.startswith("network.inserted.") and p.dim() == 4]
    assert len(warps) == 3  # after the pools of blocks 2 to 4
    dirac = torch.nn.init.dirac_(torch.empty(4, 4, 3, 3))
    assert not any(torch.equal(warp, dirac) for warp in warps)


def test_metacurvature() -> None:
    has(
        published("metacurvature", shots=5), channels=128, alpha=0.05, steps=5, eval_steps=5, meta_optimizer="adam",
        meta_lr=1e-3, query_test=15, options={},
    )  # fmt: skip


def test_metakfo() -> None:
    has(
        published("metakfo", shots=5), network="cnn2", channels=32, alpha=0.001, steps=5, meta_optimizer="adam",
        meta_lr=5e-4, meta_batch=16, iterations=20_000,
    )  # fmt: skip


def test_ecml_is_maml_with_its_own_test_protocol() -> None:
    maml, ecml = published("maml").to_dict(), published("ecml").to_dict()
    assert ecml == maml | {"method": "ecml", "query_test": 15}


@pytest.mark.parametrize("method", ["md", "md-released", "md-convex"])
@pytest.mark.parametrize("dataset", ["miniimagenet", "omniglot", "omniglot-rotated"])
def test_md(method: str, dataset: str) -> None:
    """As released: SGD with decay; on Omniglot Adam without."""
    common: dict[str, Any] = {
        "channels": 64, "alpha": 0.01, "steps": 5, "eval_steps": 5, "meta_batch": 4, "iterations": 60_000,
        "meta_lr": 1e-3, "lr_step": 20_000, "lr_gamma": 0.1, "query_train": 15, "query_test": 5, "tasks": 1_000,
        "validation_tasks": 1_000, "validate_every": 2_000, "options": {},
    }  # fmt: skip
    if dataset == "miniimagenet":
        has(published(method, dataset, 5), meta_optimizer="sgd", momentum=0.9, weight_decay=1e-4, **common)
    else:
        has(published(method, dataset, 5), meta_optimizer="adam", momentum=0.0, weight_decay=0.0, **common)


def test_mamlpp_as_the_latest_configuration_of_its_code() -> None:
    has(
        published("mamlpp", shots=5), network="cnn4", channels=48, alpha=0.01, steps=5, eval_steps=5, meta_batch=2,
        iterations=50_000, meta_lr=1e-3, lr_schedule="step", lr_step=0, first_order_for=0, clip=10.0, query_train=15,
        query_test=15, tasks=600, options={"adapt": "[!n]*"},
    )  # fmt: skip
    has(
        published("mamlpp", "omniglot"), channels=64, alpha=0.1, meta_batch=8, lr_schedule="cosine", lr_min=1e-5,
        query_train=1, query_test=1, clip=0.0, options={"adapt": "[!n]*", "multi_step": 0.1},
    )  # fmt: skip
    small = assembly.build(published("mamlpp", channels=4), (3, 32, 32), torch.device("cpu"))
    named = {name for name, _ in small.network.named_parameters()}
    assert named - set(small.adapted) == {f"norm{i}.{each}" for i in range(1, 5) for each in ("weight", "bias")}


@pytest.mark.parametrize("method", ["alfa", "alfa-released"])
def test_alfa_as_its_5_shot_configuration(method: str) -> None:
    has(
        published(method, shots=5), network="cnn4", channels=48, alpha=0.01, steps=5, eval_steps=5, meta_batch=2,
        iterations=50_000, meta_lr=1e-3, clip=0.0, query_train=15, query_test=15, tasks=600,
        options={"adapt": "[!n]*"},
    )  # fmt: skip


def test_cavia() -> None:
    """The defaults of its public code: two steps of size 1 on the mean loss."""
    has(
        published("cavia", shots=5), channels=128, alpha=1.0, steps=2, eval_steps=2, meta_optimizer="adam",
        meta_lr=1e-3, lr_step=5_000, lr_gamma=0.9, clip=10.0, meta_batch=16, iterations=60_000, query_train=15,
        query_test=15, tasks=1_000,
    )  # fmt: skip


def test_metaproxnet_is_trained_as_md_is_with_twice_the_filters() -> None:
    md, own = published("md", shots=5).to_dict(), published("metaproxnet", shots=5).to_dict()
    assert own == md | {"method": "metaproxnet", "channels": 128}


def test_gap() -> None:
    """The commands of its public code; the released form learns M at the rate of the start, whatever the flag says."""
    common: dict[str, Any] = {
        "channels": 128, "alpha": 0.01, "steps": 5, "eval_steps": 10, "meta_optimizer": "adam", "meta_lr": 1e-4,
        "clip": 0.0, "iterations": 80_000, "query_train": 15, "query_test": 15, "tasks": 600,
    }  # fmt: skip
    for method, factor in (("gap", 30.0), ("gap-approx", 30.0), ("gap-released", 1.0)):
        has(published(method), meta_batch=4, geometry_lr=factor, **common)
        has(published(method, shots=5), meta_batch=2, geometry_lr=1.0, **common)


@pytest.mark.parametrize("dataset", ["miniimagenet", "omniglot"])
def test_momentum_and_adam_were_never_published_and_run_as_maml_does(dataset: str) -> None:
    maml, momentum, adam = (published(method, dataset).to_dict() for method in ("maml", "momentum", "adam"))
    assert momentum == maml | {"method": "momentum"}
    assert adam == maml | {"method": "adam", "alpha": 0.05}


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("method", PUBLISHED)
@pytest.mark.parametrize(("name", "preset"), [("controlled", "quick"), ("controlled", "paper"), ("published", "quick")])
def test_omniglot_with_its_rotations_has_the_recipe_of_omniglot(
    name: str, preset: str, method: str, shots: int
) -> None:
    plain, rotated = (
        resolve(method, dataset, shots=shots, recipe_name=name, preset=preset, overrides={}).to_dict()
        for dataset in ("omniglot", "omniglot-rotated")
    )
    assert rotated == plain | {"dataset": "omniglot-rotated"}


def test_every_option_of_a_recipe_exists_on_its_method() -> None:
    tables = [(method, table) for method, table in PUBLISHED.items()]
    tables += [(method, table) for method in PUBLISHED for table in CONTROLLED.values()]
    seen = 0
    for method, table in tables:
        for entry in table.values():
            for option in entry.options:
                assert option in optimizers.card(method).options or option in COMMON_OPTIONS, (method, option)
                seen += 1
    assert seen >= 7  # metasgd, warpgrad and mamlpp, on Omniglot and elsewhere
    for method in PUBLISHED:
        for dataset in ("miniimagenet", "omniglot"):
            assembly.build(published(method, dataset, channels=4), (1, 28, 28), torch.device("cpu"))  # and its value


def test_every_data_set_that_a_recipe_names_is_in_the_catalogue() -> None:
    tables = [*CONTROLLED.values(), *PUBLISHED.values()]
    named = {name for table in tables for name in table if name != "*"} | SAME.keys() | set(SAME.values())
    named |= {name for table in tables for entry in table.values() for name in entry.made_for}
    assert named <= set(CATALOGUE)


def test_which_data_sets_have_a_recipe_of_their_own() -> None:
    own = {
        (name, preset): {each for each in CATALOGUE if not is_general("maml", each, name=name, preset=preset)}
        for name, preset in (("controlled", "quick"), ("controlled", "paper"), ("published", "quick"))
    }
    assert own == {
        ("controlled", "quick"): {"glyphs", "sine", "omniglot", "omniglot-rotated", "cifar-fs"},
        ("controlled", "paper"): {"sine", "miniimagenet", "cifar-fs"},
        ("published", "quick"): {"miniimagenet", "omniglot", "omniglot-rotated"},
    }
    assert is_general("metakfo", "omniglot-rotated", name="published")
    assert is_general("maml", "/somewhere/letters")


def test_the_remark_names_data_set_recipe_and_methods() -> None:
    assert remark([RunSpec(dataset="glyphs")], "quick") == ""
    specs = [published(method, "omniglot") for method in ("maml", "metakfo", "md")]
    assert remark(specs, "quick") == (
        "omniglot has no recipe of its own (published: metakfo): it runs by the general one, see docs/recipes.md"
    )
    assert remark([RunSpec(dataset="cub", seed=seed) for seed in (0, 1)], "quick") == (
        "cub has no recipe of its own (controlled, quick): it runs by the general one, see docs/recipes.md"
    )


def test_the_plan_and_a_run_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = "glyphs has no recipe of its own (controlled, paper): it runs by the general one, see docs/recipes.md"
    flags = ["run", "--methods", "maml", "--preset", "paper", "--results", str(tmp_path)]
    assert parser.main([*flags, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines().count(says) == 1
    assert parser.main([*flags[:3], *flags[5:], "--dry-run"]) == 0
    assert "of its own" not in capsys.readouterr().out
    tiny = {
        "iterations": 0,
        "channels": 4,
        "tasks": 2,
        "query-test": 2,
        "eval-steps": 1,
        "trace-steps": 1,
        "workers": 1,
    }
    assert parser.main([*flags, *(word for key, value in tiny.items() for word in (f"--{key}", str(value)))]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines().count(says) == 1
    assert says not in said.out
