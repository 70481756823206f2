"""The stream of tasks: what a number stands for, where and as which numbers a task arrives, and its noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark import data
from benchmark.engine.execution import Execution
from benchmark.spec import RunSpec
from benchmark.tasks import TaskStream

META = torch.device("meta")


@pytest.fixture
def dataset(data_root: Path) -> data.Dataset:
    return data.load("glyphs", data_root)


@pytest.mark.parametrize(("split", "query"), [("train", 3), ("val", 2), ("test", 2)])
def test_a_split_has_the_queries_of_its_phase(split: str, query: int, dataset: data.Dataset) -> None:
    spec = RunSpec(ways=4, shots=2, query_train=3, query_test=2, seed=7)
    stream = TaskStream.of(spec, dataset, split)
    assert stream == TaskStream(dataset, split, ways=4, shots=2, query=query, seed=7)
    batch = stream.batch([5, 1])
    assert (batch.support_x.shape[:2], batch.query_x.shape[:2]) == ((2, 8), (2, 4 * query))
    expected = data.sample(data.Episodes(dataset, split, 4, 2, query, 7), [5, 1])
    assert all(torch.equal(one, two) for one, two in zip(batch, expected, strict=True))


def test_a_rank_without_a_share_gets_an_empty_batch(dataset: data.Dataset) -> None:
    batch = TaskStream(dataset, "train", 5, 1, 2, 0).batch([])
    image = dataset.image_shape
    assert [tuple(part.shape) for part in batch] == [(0, 5, *image), (0, 5), (0, 10, *image), (0, 10)]


def test_tasks_come_in_the_precision_and_on_the_device_of_the_execution(dataset: data.Dataset) -> None:
    stream = TaskStream(dataset, "train", 5, 1, 2, 0)
    single, double = stream.batch([3]), stream.batch([3], Execution(precision="float64"))
    assert [part.dtype for part in double] == [torch.float64, torch.int64] * 2
    assert [part.dtype for part in single] == [torch.float32, torch.int64] * 2
    assert torch.equal(double.query_x, single.query_x.double())
    assert stream.batch([3], Execution(precision="tf32")).query_x.dtype == torch.float32
    assert all(part.device == META for part in stream.batch([3], Execution(device=META)))


class Drawing:
    def noise(self, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(2, generator=generator)


class Silent:
    def noise(self, generator: torch.Generator) -> None:
        return None


def test_noise_is_a_function_of_seed_split_and_task(dataset: data.Dataset) -> None:
    def draw(seed: int, split: str, indices: list[int]) -> torch.Tensor:
        return TaskStream.of(RunSpec(seed=seed), dataset, split).noise(Drawing(), indices)

    assert torch.equal(draw(0, "train", [3, 4])[1], draw(0, "train", [4])[0])
    drawn = [draw(*place)[0] for place in ((0, "train", [0]), (1, "train", [0]), (0, "test", [0]), (0, "train", [1]))]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 4


def test_a_method_that_draws_nothing_has_no_noise(dataset: data.Dataset) -> None:
    stream = TaskStream(dataset, "train", 5, 1, 2, 0)
    assert stream.noise(Silent(), [0, 1]) is None
    assert stream.noise(Drawing(), []) is None
