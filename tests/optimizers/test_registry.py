"""Names, aliases, options and their errors; registering; plug-ins that work and one that does not."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import optimizers
from optimizers import BadOption, UnknownMethod
from optimizers.base import Card, InnerOptimizer
from optimizers.cards import COMMON_OPTIONS, KINDS
from optimizers.maml import GradientDescent
from optimizers.registry import BrokenPlugin

TABLE_1 = ["maml", "metasgd", "mtnet", "warpgrad", "metacurvature", "metakfo", "ecml", "md"]


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


def test_the_table_and_its_variants_are_available():
    assert optimizers.available()[:10] == [*TABLE_1, "md-released", "md-convex"]


@pytest.mark.parametrize("name", optimizers.available())
def test_every_method_has_a_full_card_and_every_option_a_meaning(name):
    card = optimizers.card(name)
    assert isinstance(card, Card)
    assert all(getattr(card, f) for f in ("title", "paper", "geometry", "equation", "learned", "differences"))
    assert card.kind in KINDS
    described = {**COMMON_OPTIONS, **card.options}
    options = optimizers.options(name)
    assert all(described.get(option) for option in options)
    assert set(card.options) <= set(options)
    assert {"alpha": 0.01, "adapt": "all"}.items() <= options.items()
    assert inspect.Parameter.empty not in options.values()


def test_only_ecml_is_reconstructed():
    assert [name for name in optimizers.available() if optimizers.card(name).reconstructed] == ["ecml"]


def test_aliases():
    assert optimizers.aliases["gd"] == "maml"
    assert optimizers.resolve("gd") == "maml"
    assert type(optimizers.create("gd", net())) is GradientDescent
    assert set(optimizers.aliases.values()) <= set(optimizers.available())


def test_unknown_method_names_the_nearest():
    with pytest.raises(
        UnknownMethod, match=r"unknown method 'metasdg' \(did you mean 'metasgd'\?\); the methods are maml"
    ):
        optimizers.create("metasdg", net())
    with pytest.raises(ValueError, match=r"unknown method 'zzz'; the methods are"):
        optimizers.card("zzz")


def test_unknown_option_names_the_nearest():
    with pytest.raises(
        BadOption, match=r"metasgd has no option 'from' \(did you mean 'form'\?\); its options are form, adapt"
    ):
        optimizers.create("metasgd", net(), **{"from": "log"})
    with pytest.raises(BadOption, match=r"maml has no option 'sigma'; its options are adapt$"):
        optimizers.create("maml", net(), sigma="exp")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maml", {"alpha": 0}, "alpha must be a positive step size, got 0"),
        ("maml", {"alpha": float("nan")}, "alpha must be a positive step size, got nan"),
        ("maml", {"adapt": "conv9.*"}, r"adapt='conv9\.\*' matches no parameter; expected 'all', 'head', 'body' or"),
        ("metasgd", {"form": "lg"}, r"form='lg': expected one of log, free \(did you mean 'log'\?\)"),
        ("metakfo", {"transform": "deep"}, "transform='deep': expected one of linear, nonlinear"),
        ("ecml", {"penalty": "std"}, "penalty='std': expected one of variance, ratio"),
        ("metakfo", {"adapting": 0}, "adapting must be true or false, got 0"),
        ("maml", {"adapt": 3}, "adapt must be text, got 3"),
        ("ecml", {"gamma": "big"}, "gamma must be a number, got 'big'"),
        ("maml", {"alpha": True}, "alpha must be a number, got True"),
    ],
)
def test_bad_values(name, options, message):
    with pytest.raises(BadOption, match=message):
        optimizers.create(name, net(), **options)


def test_what_adapts():
    def adapted(adapt):
        return optimizers.create("maml", net(), adapt=adapt).adapted

    assert adapted("all") == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert adapted("head") == ("1.weight", "1.bias")
    assert adapted("body") == ("0.weight", "0.bias")
    assert adapted("*.bias") == ("0.bias", "1.bias")
    with pytest.raises(BadOption, match="adapt='body' matches no parameter"):
        optimizers.create("momentum", nn.Linear(3, 2), adapt="body")
    head = optimizers.create("maml", net(), adapt="head", alpha=1.0)
    moved = head.params(head.step(head.init_state(), {n: torch.ones_like(p) for n, p in head.start().items()}, 0))
    assert set(moved) == {"1.weight", "1.bias"}


def test_register():
    class Mine(GradientDescent):
        pass

    def factory(network, *, alpha=0.5):
        return Mine(network, alpha=alpha)

    factory.card = Mine.card
    optimizers.register("mine", Mine)
    optimizers.register("made", factory)
    try:
        assert optimizers.available()[-2:] == ["made", "mine"]
        assert type(optimizers.create("mine", net())) is Mine
        assert optimizers.create("made", net()).alpha == 0.5
        assert optimizers.options("made") == {"alpha": 0.5}
        with pytest.raises(BadOption, match="'mine' is taken"):
            optimizers.register("mine", Mine)
        with pytest.raises(BadOption, match="made has no option 'beta'"):
            optimizers.create("made", net(), beta=1)
    finally:
        optimizers.unregister("mine")
        optimizers.unregister("made")
    assert "mine" not in optimizers.available()
    with pytest.raises(BadOption, match="'maml' is taken"):
        optimizers.register("maml", Mine)
    with pytest.raises(BadOption, match="'x' must be an InnerOptimizer class"):
        optimizers.register("x", lambda network: None)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Installs packages by writing what an installer would: a module and its metadata."""

    def install(package, points, code=""):
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[{optimizers.GROUP}]\n{lines}")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in list(sys.modules):
        if name.startswith("plug_"):
            del sys.modules[name]


SOUND = "from optimizers.maml import GradientDescent\nclass Method(GradientDescent): pass\n"


def test_a_broken_plugin_is_named_and_hides_nothing(plugins):
    plugins("plug_good", {"good": "plug_good:Method"}, SOUND)
    plugins("plug_bad", {"bad": "plug_bad:Method"}, "import a_module_that_is_not_there\n")
    plugins("plug_odd", {"odd": "plug_odd:number"}, "number = 3\n")
    plugins("plug_thief", {"md": "plug_thief:Method"}, SOUND)
    with pytest.warns(BrokenPlugin) as warned:
        names = optimizers.available()
    assert names[-1] == "good"
    assert set(names) >= {*TABLE_1, "good"}
    assert not {"bad", "odd"} & set(names)
    assert len(warned) == 3
    broken = optimizers.broken()
    assert "plug_bad failed with ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in broken["bad"]
    assert "plug_odd:number is neither an InnerOptimizer class nor a callable" in broken["odd"]
    assert "the method name 'md' is taken" in broken["md"]
    assert isinstance(optimizers.create("good", net()), InnerOptimizer)
    assert type(optimizers.create("md", net())).__module__ == "optimizers.md"
    with pytest.raises(UnknownMethod, match=r"the plug-in method 'bad' cannot be used: plug_bad:Method of plug_bad"):
        optimizers.create("bad", net())


def test_listing_imports_no_torch():
    code = "import sys, optimizers; optimizers.available(); sys.exit('torch' in sys.modules)"
    root = Path(optimizers.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
