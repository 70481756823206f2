"""Every method sees the same tasks; nothing of the test classes is seen before the test."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import optimizers
from benchmark import data
from benchmark.adapt import adapt
from benchmark.data.episodes import class_names
from benchmark.metagrad import evaluate_batch, meta_gradient
from benchmark.recipes import BASELINE
from benchmark.runs import assembly
from tests.robustness.helpers import GLYPHS, execute, tiny

Call = tuple[str, tuple[int, ...], str]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every batch of tasks that is drawn: its split, its indices and the hash of all its images and labels."""
    calls: list[Call] = []
    real = data.sample

    def sample(of: data.Episodes, indices: Any, *on: Any) -> Any:
        batch = real(of, indices, *on)
        digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest()
        calls.append((of.split, tuple(indices), digest))
        return batch

    monkeypatch.setattr(data, "sample", sample)
    return calls


def glyphs(method: str, **knobs: Any) -> Any:
    return tiny(**{**GLYPHS.to_dict(), "method": method, **knobs})


def test_the_stream_of_tasks_is_the_same_for_every_method(stream: list[Call], tmp_path: Path) -> None:
    streams = {}
    for method in optimizers.available():
        stream.clear()
        execute(tmp_path, glyphs(method, iterations=2, validate_every=2, validation_tasks=2, tasks=2))
        streams[method] = list(stream)
    assert len(streams) >= 10
    assert len(streams["maml"]) >= 4
    for method, calls in streams.items():
        assert calls == streams["maml"], method


def test_the_baseline_is_measured_on_the_same_tasks(stream: list[Call], tmp_path: Path) -> None:
    execute(tmp_path, glyphs(BASELINE, tasks=20))
    baseline = list(stream)
    stream.clear()
    execute(tmp_path, glyphs("maml", iterations=0, tasks=20))
    assert baseline == stream


def test_selection_never_sees_test_tasks(stream: list[Call], tmp_path: Path) -> None:
    """Test tasks are drawn after the last validation, once each, and decide nothing."""
    spec = glyphs("maml", tasks=20)
    execute(tmp_path, spec)
    splits = [split for split, _, _ in stream]
    assert splits == sorted(splits, key=lambda split: split == "test"), "a test task before the end"
    assert {"train", "val", "test"} == set(splits)
    tested = [index for split, indices, _ in stream for index in indices if split == "test"]
    assert tested == list(range(20))
    trained = [index for split, indices, _ in stream for index in indices if split == "train"]
    assert sorted(trained) == list(range(spec.iterations * spec.meta_batch)), "each training task once"


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_test_class_and_no_test_image_reaches_training(split: str) -> None:
    dataset = data.load("glyphs")
    seen, tested = (
        {name for names in class_names(data.Episodes(dataset, part, 5, 1, 15, 0), range(300)) for name in names}
        for part in (split, "test")
    )
    assert seen
    assert tested
    assert not seen & tested
    assert seen <= set(dataset.splits[split])

    def images(part: str) -> set[bytes]:
        batch = data.sample(data.Episodes(dataset, part, 5, 1, 15, 0), range(300))
        flat = torch.cat([batch.support_x, batch.query_x], dim=1).flatten(0, 1).numpy()
        return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in flat}

    assert not images(split) & images("test")


def test_supports_are_the_same_with_five_queries_and_with_fifteen() -> None:
    dataset = data.load("glyphs")
    for shots in (1, 5):
        five, fifteen = (
            data.sample(data.Episodes(dataset, "test", 5, shots, query, 3), range(20)) for query in (5, 15)
        )
        assert torch.equal(five.support_x, fifteen.support_x)
        assert torch.equal(five.support_y, fifteen.support_y)
        nested = fifteen.query_x.unflatten(1, (5, 15))[:, :, :5].flatten(1, 2)
        assert torch.equal(five.query_x, nested)


@pytest.mark.parametrize("method", optimizers.available())
def test_adapting_leaves_no_trace(method: str) -> None:
    """Neither buffers nor meta-parameters change by adapting, measuring or a meta-gradient; no task sees another."""
    dataset = data.load("glyphs")
    spec = glyphs(method)
    optimizer = assembly.build(spec, dataset.image_shape, torch.device("cpu"))
    before = {name: value.clone() for name, value in (*optimizer.named_parameters(), *optimizer.named_buffers())}
    batch = data.sample(data.Episodes(dataset, "test", 3, 1, 3, 0), range(2))
    noise = [optimizer.noise(torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    drawn = None if noise[0] is None else torch.stack(noise)
    both = evaluate_batch(optimizer, batch, 2, noise=drawn)
    adapt(optimizer, batch.support_x[0], batch.support_y[0], 2, noise=noise[0])
    meta_gradient(optimizer, batch, steps=2, noise=drawn)
    for name, value in (*optimizer.named_parameters(), *optimizer.named_buffers()):
        assert torch.equal(value, before[name]), name
    second = type(batch)(*(part[1:] for part in batch))
    alone = evaluate_batch(optimizer, second, 2, noise=None if drawn is None else drawn[1:])
    assert torch.equal(alone.nll[0], both.nll[1])
