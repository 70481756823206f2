"""``verify``: what it prints and returns, at the start and at a checkpoint, and that a fault fails."""

import dataclasses
import io

import pandas as pd
import pytest
import torch
from rich.console import Console

import optimizers
from benchmark.cli.parser import main
from benchmark.errors import UserError
from benchmark.metagrad import meta_gradient
from benchmark.report import findings
from benchmark.verify import checkpoint, derivatives, estimators
from benchmark.verify import methods as verb
from optimizers.maml import GradientDescent

FAST = (
    "contract",
    "loop = finite differences",
    "loop = primitives",
    "loop = vmap",
    "loop = higher",
    "starts as MAML",
    "no gradient at all",
)


def run(*methods, **options):
    out = io.StringIO()
    records = verb.verify(methods, console=Console(file=out, width=200), **options)
    return {(r.method, r.check): r for r in records}, out.getvalue()


def test_a_sound_method_passes_every_check():
    records, text = run("gd")
    assert [check for method, check in records if method == "maml"] == [*FAST, "start", "random θ"]
    assert all(record.passed for record in records.values())
    assert records["maml", "loop = higher"].value < 1e-12
    assert records["counter-example", "z₂ + 3 z₁"].geometry.least == pytest.approx(-0.5)
    assert records["maml", "start"].cosine == pytest.approx(1)
    assert "10 of 10 checks passed" in text
    assert "-0.5000" in text


def test_a_method_on_every_network():
    out = io.StringIO()
    records = verb.verify(["maml"], console=Console(file=out, width=200), networks=("cnn2", "resnet12"))
    assert all(record.passed for record in records)
    for network in ("cnn2", "resnet12"):
        assert f"maml on {network}" in out.getvalue()
        assert [record.check for record in records if record.network == network] == list(FAST[1:])


def test_a_variant_is_verified_and_its_geometry_kept_nowhere(tmp_path):
    options = {"ecml": {"adapt": "body", "penalty": "ratio"}}
    records, text = run("ecml", "gd", networks=("cnn2",), options=options, results=tmp_path)
    assert all(record.passed for record in records.values())
    assert "ecml adapt=body penalty=ratio on cnn2" in text
    body = (p for n, p in derivatives.small("maml").network.named_parameters() if not n.startswith("head"))
    assert records["ecml", "start"].parameters == sum(p.numel() for p in body)
    assert pd.read_csv(tmp_path / "geometry.csv")["method"].tolist() == ["maml"]


def test_options_that_the_kits_network_cannot_take_are_not_asked_of_it():
    record = derivatives.contract("maml", {"adapt": "norm*"})
    assert record.passed
    assert record.detail.startswith("not asked")
    assert derivatives.contract("maml", {"adapt": "head"}).detail.startswith("rules card")


@pytest.mark.parametrize("check", [derivatives._primitives, derivatives._differences])
@pytest.mark.parametrize("network", ["cnn2", "resnet12"])
def test_a_pull_back_vmapped_around_batch_norm_fails(network, check):
    class Fault(GradientDescent):
        def objective(self, task, trajectory):
            def outputs(phi):
                return self.predict(trajectory.params | phi, task.support_x).flatten()

            last = {n: p for n, p in trajectory.params.items() if "conv3" in n or "norm2" in n}
            value, pull = torch.func.vjp(outputs, last)
            rows = torch.func.vmap(lambda e: pull(e)[0])(torch.eye(len(value), dtype=value.dtype))
            return super().objective(task, trajectory) + sum(r.square().sum() for r in rows.values()) / 100

    optimizers.register("fault", Fault)
    try:
        assert not check("fault", network, {}).passed
        assert check("maml", network, {}).passed
    finally:
        optimizers.unregister("fault")


def test_dead_meta_parameters_are_counted():
    released, trains = (derivatives._dead(name) for name in ("md-released", "md"))
    assert released.passed  # its card says so
    assert trains.passed
    assert released.value / 859_391 == pytest.approx(0.9, abs=0.02)  # nine tenths of θ_g
    assert trains.value / 859_391 < 0.15  # ReLUs that this draw of the start puts off
    assert "; 0 whole tensors" not in released.detail
    assert "; 0 whole tensors" in trains.detail


def test_faults_fail_and_the_other_checks_still_run():
    class Fault(GradientDescent):
        """Detaches, doubles the step and says it is MAML."""

        card = dataclasses.replace(GradientDescent.card)

        def step(self, state, grads, k):
            return super().step(state, {name: 2 * g.detach() for name, g in grads.items()}, k)

    optimizers.register("fault", Fault)
    try:
        records, text = run("fault")
    finally:
        optimizers.unregister("fault")
    failed = {check for (_, check), record in records.items() if not record.passed}
    assert failed == {"contract", "loop = finite differences", "starts as MAML", "start"}
    assert "FAIL fault: contract: ContractViolation: rule 'differences' is broken" in text


def test_unknown_method():
    with pytest.raises(UserError, match="did you mean 'maml'"):
        verb.verify(["mamal"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    words = ["run", "--methods", "md-convex", "--results", str(results), "--iterations", "2", "--tasks", "2"]
    assert main([*words, "--validation-tasks", "2", "--channels", "4", "--steps", "1", "--workers", "1"]) == 0
    return next(path for path in results.iterdir() if "md-convex" in path.name)


def test_geometry_at_a_checkpoint(trained, data_root, tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=200)
    (_, record) = verb.verify([], [trained], console=console, data_root=data_root, results=tmp_path)
    assert record.passed
    assert record.geometry.monotone
    assert record.geometry.symmetric
    assert record.geometry.least != pytest.approx(1, abs=1e-6)  # it is the learned map, not its start
    assert trained.name in out.getvalue()
    (row,) = findings.read(tmp_path).geometry.to_dict("records")
    assert (row["method"], row["run"], row["stage"]) == ("md-convex", trained.name, "trained")
    assert row["least"] == pytest.approx(record.geometry.least)
    verb.write_geometry([dataclasses.replace(record, run="another")], tmp_path / "geometry.csv")
    verb.write_geometry([dataclasses.replace(record, cosine=0.5)], tmp_path / "geometry.csv")
    assert findings.read(tmp_path).geometry["cosine"].tolist() == pytest.approx([record.cosine, 0.5])


def test_estimators_at_a_checkpoint(data_root, tmp_path):
    """Against differences of gradients written out here; the last truncation is nearer than first order."""
    words = ["run", "--methods", "maml", "--results", str(tmp_path), "--iterations", "2", "--tasks", "2"]
    assert main([*words, "--steps", "3", "--validation-tasks", "2", "--channels", "4", "--workers", "1"]) == 0
    path = next(path for path in tmp_path.iterdir() if "maml" in path.name)
    trained = checkpoint.load(path, data_root)
    rows = {row.estimator: row for row in estimators.distances(trained)}
    assert list(rows) == ["exact", "first-order", "truncated:1", "truncated:2"]
    assert rows["exact"].cosine == pytest.approx(1, abs=1e-12)
    assert rows["exact"].error == 0
    _, g = meta_gradient(trained.optimizer, trained.batch, 3, "vmap")
    _, first = meta_gradient(trained.optimizer, trained.batch, 3, "vmap", estimator="first-order")
    square = sum(float((g[n] ** 2).sum()) for n in g)
    product = sum(float((g[n] * first[n]).sum()) for n in g)
    off = sum(float(((g[n] - first[n]) ** 2).sum()) for n in g)
    length = sum(float((first[n] ** 2).sum()) for n in g)
    assert rows["first-order"].error == pytest.approx((off / square) ** 0.5, rel=1e-6)
    assert rows["first-order"].cosine == pytest.approx(product / (square * length) ** 0.5, rel=1e-6)
    assert 0 < rows["truncated:2"].error < rows["first-order"].error
    out = io.StringIO()
    verb.verify([], [path], console=Console(file=out, width=200), data_root=data_root)
    shown = [line.split() for line in out.getvalue().splitlines()]
    assert [line[0] for line in shown if line and line[0] in rows] == list(rows)


def test_distance_of_two_vectors():
    found = estimators.distance("x", torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0]))
    assert (found.cosine, found.error) == pytest.approx((0.6, 0.8))


def test_checkpoint_that_is_not_there(trained, tmp_path):
    copy = tmp_path / trained.name
    copy.mkdir()
    for name in ("spec.json", "status.json"):
        (copy / name).write_bytes((trained / name).read_bytes())
    with pytest.raises(UserError, match=r"no checkpoint\.pt"):
        verb.verify([], [copy], console=Console(file=io.StringIO()))
