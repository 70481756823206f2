"""The contract kit over the whole registry, and over the options that change how a method moves."""

import functools

import pytest

import optimizers
from optimizers.contract.rules import RULES
from optimizers.testing import check_inner_optimizer

VARIANTS = [
    ("metasgd", {"form": "free"}),
    ("mtnet", {"mask": False}),
    ("warpgrad", {"start_objective": "leap"}),
    ("warpgrad", {"warp_start": "random"}),
    ("metakfo", {"adapting": False}),
    ("metakfo", {"transform": "nonlinear"}),
    *(("metaproxnet", {"base": base, "horizon": horizon}) for base, horizon in (("maml", 1), ("metasgd", 2))),
    ("cavia", {"context": 3}),
    *(("ecml", {"wrt": wrt, "adapt": adapt}) for wrt in ("head", "all") for adapt in ("all", "body", "conv*.weight")),
    ("ecml", {"penalty": "ratio"}),
    ("md", {"sigma": "sigmoid"}),
    ("momentum", {"beta": 0.9}),
    ("alfa", {"start": "random"}),
    ("alfa-released", {"start": "random"}),
    *(
        (name, {"adapt": adapt})
        for name in ("maml", "metasgd", "metacurvature", "md", "md-convex", "momentum", "mamlpp", "alfa", "gap")
        for adapt in ("head", "body")
    ),
    ("md", {"adapt": "conv*.weight"}),
]


@functools.cache
def check(name: str, **options):
    return {f.rule: f for f in check_inner_optimizer(lambda net: optimizers.create(name, net, alpha=0.1, **options))}


@pytest.mark.parametrize("name", optimizers.available())
def test_the_contract_holds(name):
    findings = check(name)
    assert list(findings) == list(RULES)
    # the error that remains is that of the differences themselves, far below what any wrong derivative makes
    assert findings["differences"].error < 2e-6
    assert findings["vmap"].error < 1e-11
    assert findings["norm"].error < 1e-11


@pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_the_contract_holds_with_options(name, options):
    assert list(check(name, **options)) == list(RULES)


def test_who_starts_as_maml():
    """Not MT-net (a random mask), MetaKFO (an adapting transform), Adam, CAVIA, and the code of ALFA and of GAP."""
    claims = {name for name in optimizers.available() if optimizers.card(name).starts_as_maml}
    others = {"mtnet", "metakfo", "adam", "cavia", "alfa-released", "gap-released"}
    assert claims == set(optimizers.available()) - others
    assert check("mtnet", mask=False)["start"].error < 1e-12
    assert check("metakfo", adapting=False)["start"].error < 1e-12


def test_only_md_released_has_dead_meta_parameters():
    assert [name for name in optimizers.available() if not optimizers.card(name).alive] == ["md-released"]
    assert not check("md-released")["alive"].detail.startswith("0 of")
    assert check("md")["alive"].detail.startswith("0 of")
