"""What TensorBoard reads is what the run's tables say, whole after a resume, and the run is the same without it."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import optimizers
from benchmark import networks
from benchmark.cli import parser
from benchmark.engine.shutdown import Interrupted
from benchmark.meta_optimizer import learning_rate
from tests.robustness.helpers import TINY, execute, numbers, tiny
from tests.robustness.test_kill import StopAt

DECAYING = tiny(lr_step=2, geometry_lr=3.0)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag: (step, value) as TensorBoard shows them."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def table(run: Path, name: str, column: str) -> list[tuple[int, float]]:
    rows = pd.read_csv(run / f"{name}.csv")
    return [(i, pytest.approx(v, rel=1e-6)) for i, v in zip(rows["iteration"], rows[column], strict=True)]


@pytest.mark.parametrize("stop_at", [None, 2, 3], ids=["in one go", "stopped at 2", "stopped at a validation"])
def test_curves_are_those_of_the_tables(stop_at: int | None, tmp_path: Path) -> None:
    if stop_at:
        with pytest.raises(Interrupted):
            execute(tmp_path, DECAYING, stop=StopAt(stop_at), tensorboard=True)
    execute(tmp_path, DECAYING, tensorboard=True)
    run = tmp_path / DECAYING.name
    shown = scalars(run)
    assert shown.keys() == {"loss/meta-training", "learning rate/start", "learning rate/geometry", "validation/nll"}
    assert shown["loss/meta-training"] == table(run, "training", "loss")
    assert shown["validation/nll"] == table(run, "validation", "nll")
    rates = [learning_rate(DECAYING, i) for i in range(6)]
    assert [value for _, value in shown["learning rate/start"]] == pytest.approx(rates)
    assert [value for _, value in shown["learning rate/geometry"]] == pytest.approx([3 * rate for rate in rates])


def test_a_run_that_began_without_it_shows_its_whole_curve(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(4))
    execute(tmp_path, tensorboard=True)
    run = tmp_path / TINY.name
    assert scalars(run)["loss/meta-training"] == table(run, "training", "loss")
    assert scalars(run)["validation/nll"] == table(run, "validation", "nll")


def test_the_methods_own_summaries_are_histograms_at_start_and_validations(tmp_path: Path) -> None:
    execute(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / TINY.name / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    network = networks.create("sine-mlp", 1, (1, 1, 1), 8)
    assert set(events.Tags()["histograms"]) == {f"step size/{name}" for name, _ in network.named_parameters()}
    first, *later = events.Histograms(events.Tags()["histograms"][0])
    assert first.step == 0
    assert first.histogram_value.min == first.histogram_value.max == pytest.approx(TINY.alpha)
    assert [each.step for each in later] == [3, 6]


def test_nothing_else_changes(tmp_path: Path) -> None:
    execute(tmp_path / "with", tensorboard=True)
    execute(tmp_path / "without")
    assert numbers(tmp_path / "with" / TINY.name) == numbers(tmp_path / "without" / TINY.name)
    assert not (tmp_path / "without" / TINY.name / "tensorboard").exists()


def test_without_the_package_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ImportError("No module named 'tensorboard'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert parser.main(["run", "--methods", "maml", "--tensorboard", "--dry-run"]) == 2
    assert "pip install 'inner-optimizer-benchmark[tensorboard]'" in capsys.readouterr().err


TAGS = {
    "metasgd": {"step size"},
    "md": {"step size"},
    "md-released": {"step size"},
    "mamlpp": {"step size"},
    "mtnet": {"adapts with probability"},
    "metacurvature": {"step size", "spectrum"},
    "metakfo": {"spectrum"},
    "md-convex": {"least step size", "weights of the directions"},
    "alfa": {"rate scale", "decay scale"},
    "alfa-released": {"rate scale", "decay scale"},
    "momentum": {"step size", "momentum"},
    "adam": {"rate", "beta1", "beta2"},
}
"""What methods show of what they learn beside the start; of the others there is nothing a line could show."""


@pytest.mark.parametrize("name", optimizers.available())
def test_summaries_are_finite_tensors_by_tag(name: str) -> None:
    optimizer = optimizers.create(name, networks.create("cnn4", 3, (1, 16, 16), 4), alpha=0.3)
    with torch.no_grad():
        found = optimizer.summaries()
    assert {tag.partition("/")[0] for tag in found} == TAGS.get(name, set())
    for tag, value in found.items():
        assert value.isfinite().all(), tag
        assert value.numel(), tag
    for tag in (tag for tag in found if tag.startswith("step size/")):
        torch.testing.assert_close(found[tag], torch.full_like(found[tag], 0.3))  # all start on gradient descent
    for tag in (tag for tag in found if tag.startswith("spectrum/")):
        torch.testing.assert_close(found[tag], torch.ones_like(found[tag]))
