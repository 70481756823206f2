"""The same spec gives the same numbers, whatever runs beside it. (With workers: see test_kill.)"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import optimizers
from benchmark import data
from benchmark.engine.group import Group
from benchmark.runs import assembly, environment, store
from tests.robustness.helpers import GLYPHS, TINY, execute, execute_all, numbers, tiny


def test_neither_order_nor_company_nor_the_state_of_the_process_matters(unbroken: Path, tmp_path: Path) -> None:
    others = [tiny(method=method) for method in ("maml", "md", "mtnet")]
    execute_all(tmp_path / "last", *others, TINY)
    assert numbers(tmp_path / "last" / TINY.name) == numbers(unbroken)
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    execute_all(tmp_path / "first", TINY, *reversed(others))
    for spec in (TINY, *others):
        assert numbers(tmp_path / "first" / spec.name) == numbers(tmp_path / "last" / spec.name)


def test_seed_zero_is_a_seed(unbroken: Path, tmp_path: Path) -> None:
    shape = data.load("sine").image_shape
    starts = [assembly.build(tiny(seed=seed), shape, torch.device("cpu")).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])
    assert store.load_run(unbroken).spec["seed"] == 0
    other = tiny(seed=1)
    execute(tmp_path, other)
    assert numbers(tmp_path / other.name)["evaluation.csv"] != numbers(unbroken)["evaluation.csv"]


def test_the_start_of_the_network_is_the_same_for_every_method() -> None:
    """A method's own meta-parameters are drawn after the network's, or not at all."""
    shape = data.load("glyphs").image_shape
    found = {}
    for method in optimizers.available():
        optimizer = assembly.build(tiny(**{**GLYPHS.to_dict(), "method": method}), shape, torch.device("cpu"))
        found[method] = {
            name: value for name, value in optimizer.network.state_dict().items() if not name.startswith("inserted.")
        }
    for method, parameters in found.items():
        for name, value in found["maml"].items():
            assert torch.equal(parameters[name], value), f"{method}: {name}"


def test_what_cannot_be_repeated_bit_by_bit_is_recorded(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = store.load_run(unbroken).environment
    assert found["deterministic"] is True
    assert found["device"].startswith("cpu")
    assert {"workers", "threads", "torch", "dataset_hash", "version", "commit"} <= found.keys()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    there = environment.environment(torch.device("cuda"), Group(), "")
    assert (there["device"], there["deterministic"]) == ("cuda (a card)", False)


def test_how_gradients_are_computed_is_recorded_and_changes_no_more_than_roundings(tmp_path: Path) -> None:
    spec = tiny(precision="float64")
    tables = {}
    for how in ({}, {"strategy": "vmap"}, {"recompute": True}, {"strategy": "vmap", "recompute": True}):
        folder = tmp_path / "-".join(how)
        execute(folder, spec, **how)
        run = store.load_run(folder / spec.name)
        assert {key: run.environment[key] for key in ("strategy", "recompute")} == {
            "strategy": "auto", "recompute": False, **how,
        }  # fmt: skip
        tables["-".join(how)] = run.evaluation
    for name, table in tables.items():
        np.testing.assert_allclose(table, tables[""], rtol=1e-6, err_msg=name)
