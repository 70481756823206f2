"""The search for points where a mirror map is not monotone, on maps whose eigenvalues are known."""

from __future__ import annotations

import io

import pandas as pd
import pytest
import torch
from rich.console import Console

from benchmark.report import findings
from benchmark.verify import geometry, search
from optimizers.md import DualDescent, MirrorDescent


class Scalar(torch.nn.Module):
    """A network of two numbers."""

    def __init__(self):
        super().__init__()
        self.z = torch.nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))


def with_map(function):
    class Map(torch.nn.Module):
        def forward(self, z):
            return {"z": function(z["z"])}

    class Method(DualDescent):
        card = MirrorDescent.card

        def __init__(self):
            super().__init__(Scalar(), alpha=0.1)
            self.g = Map()

    return Method()


def steep(z):
    """φ = (z₁, z₂ + z₁³): the symmetric part of the Jacobian is [[1, 3z₁²/2], [3z₁²/2, 1]]."""
    return torch.stack([z[0], z[1] + z[0] ** 3])


def least(z):
    return 1 - 1.5 * float(z) ** 2


def at(*values):
    return {"z": torch.tensor(values, dtype=torch.float64)}


def test_descent_finds_the_counter_example_that_its_start_is_not():
    method = with_map(steep)
    start = at(0.3, 0.5)
    steps, first, found, distance = search.descend(method, start, start, 50)
    assert first == pytest.approx(least(0.3))
    assert first > 0.8
    assert found.negative
    assert 0 < steps < 50
    assert distance > 0.5  # |z₁| must reach √(2/3) from 0.3, and ‖z₀‖ is 0.58


def test_the_slope_is_the_derivative_of_the_level():
    method = with_map(steep)
    g, z = geometry.flattened(method.g, at(0.6, 0.2))
    slope = search.low(g, z).slope(g, z)
    step = 1e-6
    for i, e in enumerate(torch.eye(2, dtype=torch.float64)):
        numeric = (search.low(g, z + step * e).level - search.low(g, z - step * e).level) / (2 * step)
        assert float(slope[i]) == pytest.approx(numeric, abs=1e-6)


def test_a_linear_map_ends_the_search_at_once():
    method = with_map(lambda z: z * torch.tensor([0.5, 2.0], dtype=torch.float64))
    steps, first, found, distance = search.descend(method, at(1.0, 1.0), at(1.0, 1.0), 10)
    assert (steps, distance) == (0, 0.0)
    assert first == found.least == pytest.approx(0.5)


def test_large_maps_are_met_by_products_and_find_the_same(monkeypatch):
    g, z = geometry.flattened(with_map(steep).g, at(0.6, 0.2))
    dense = search.low(g, z)
    monkeypatch.setattr(search, "DENSE", 0)
    assert search.low(g, z).least == pytest.approx(dense.least, abs=1e-12)
    torch.testing.assert_close(search.low(g, z).slope(g, z), dense.slope(g, z))


def test_rows_are_kept_by_method_theta_and_point_and_read_by_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "SCALES", (0.1,))
    monkeypatch.setattr(search, "SEEDS", (1,))
    found = list(search.search(["maml", "md-convex"], {}, [], 1))
    assert {each.method for each in found} == {"md-convex"}  # gradient descent has no map
    assert all(each.least > 0 and each.steps <= 1 for each in found)
    assert [each.point for each in found][:2] == ["z₀", "z_K of task 0"]
    search.write(found, tmp_path / "search.csv")
    search.write(found[:1], tmp_path / "search.csv")
    assert len(pd.read_csv(tmp_path / "search.csv")) == len(found)
    rows = findings.read(tmp_path).search
    assert sorted(rows["least"]) == pytest.approx(sorted(each.least for each in found))
    out = io.StringIO()
    Console(file=out, width=120).print(search.table(found))
    assert "random θ, scale 0.1, seed 1" in out.getvalue()
