"""The verb `time`: its table, its files, its errors; never how fast anything was."""

import argparse

import pandas as pd
import pytest
import torch
from rich.console import Console

from benchmark.cli import time as timing_verb
from benchmark.engine.counting import flops, peak_bytes
from benchmark.errors import UserError
from benchmark.report import findings
from benchmark.runs import environment
from benchmark.timing import measure
from benchmark.timing.peers import WORK, Workload, plain_cnn4
from tests.engine.helpers import settled


def arguments(*words):
    parser = argparse.ArgumentParser()
    timing_verb.add_arguments(parser)
    return parser.parse_args(words)


def test_table_files_and_figure(tmp_path, capsys):
    places = ("--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports"))
    words = ("--methods", "gd,md", "--peers", "--sizes", "16:4", "--rounds", "2", "--threads", "1", "--steps", "2")
    assert timing_verb.main(arguments(*words, *places)) == 0
    printed = capsys.readouterr().out
    for word in (
        "16×16, CNN4-4, 5-way 1-shot",
        "maml",
        "md",
        "higher",
        "autograd",
        "meta-parameters",
        "peak",
        "Drawing a task's images",
        "timing.csv",
    ):
        assert word in printed
    table = pd.read_csv(tmp_path / "results" / "timing.csv").set_index("method")
    assert list(table.index) == ["maml", "md", "higher", "autograd"]
    assert (table[["meta_gradient_ms", "evaluation_ms"]] > 0).all().all()
    assert table.loc["maml", "meta_gradient_to_maml"] == 1
    assert table.loc["higher", "meta_gradient_to_higher"] == 1
    ratio = table.loc["md", "meta_gradient_ms"] / table.loc["higher", "meta_gradient_ms"]
    assert table.loc["md", "meta_gradient_to_higher"] == pytest.approx(ratio, rel=1e-4)
    assert table.loc["maml", "parameters"] == table.loc["maml", "meta_parameters"] == table.loc["md", "parameters"]
    assert table.loc["maml", "multiply_adds"] == table.loc["maml", "parameters"]
    assert table.loc["md", "meta_parameters"] > table.loc["md", "parameters"]
    assert (tmp_path / "reports" / "cost.png").stat().st_size > 5000
    assert (tmp_path / "reports" / "cost.pdf").read_bytes().startswith(b"%PDF")
    read = findings.read(tmp_path / "results")
    assert set(read.milliseconds(16, 4)) >= {"maml", "md"}


def test_peers_stand_beside_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "choose_device", torch.device)
    with pytest.raises(UserError, match="--peers are timed on the CPU, which says nothing beside cuda"):
        timing_verb.main(
            arguments("--peers", "--device", "cuda", "--results", str(tmp_path), "--reports", str(tmp_path))
        )


def test_rows_of_other_measurements_stay(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(timing_verb, "save", lambda table, folder: drawn.append(table) or [])
    path = tmp_path / "timing.csv"

    def time(*words):
        words = (*words, "--rounds", "1", "--steps", "1", "--results", str(tmp_path))
        assert timing_verb.main(arguments(*words)) == 0
        return path.read_text().splitlines()

    first = time("--methods", "gd,metasgd", "--sizes", "16:4")
    again = time("--methods", "metasgd", "--sizes", "16:4")
    assert [line.partition(",")[0] for line in again] == ["method", "maml", "metasgd"]
    assert again[1] == first[1]  # to the last digit
    assert again[2] != first[2]
    assert drawn[-1]["method"].tolist() == ["maml", "metasgd"]
    other = time("--methods", "metasgd", "--sizes", "16:4", "--shots", "2")
    assert other[:3] == again
    assert len(other) == 4
    assert drawn[-1]["method"].tolist() == ["metasgd"]  # other shots do not compare
    assert len(time("--methods", "metasgd", "--sizes", "16:2,16:4", "--clock", "cpu")) == 6


def test_a_table_from_before_tasks_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(timing_verb, "save", lambda table, folder: [])
    words = ("--methods", "gd", "--sizes", "16:4", "--rounds", "1", "--steps", "1", "--results", str(tmp_path))
    path = tmp_path / "timing.csv"
    timing_verb.main(arguments(*words))
    pd.read_csv(path).drop(columns=["tasks", "strategy"]).to_csv(path, index=False)
    timing_verb.main(arguments(*words))
    assert len(pd.read_csv(path)) == 1
    timing_verb.main(arguments(*words, "--tasks", "2"))
    assert pd.read_csv(path)["tasks"].tolist() == [1, 2]
    path.write_text("a,b\n1,2\n")
    monkeypatch.setattr(measure, "measure", None)  # is not even begun
    with pytest.raises(UserError, match=r"timing.csv: has no column method, .*; move it away"):
        timing_verb.main(arguments(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "mamml"), "maml"),
        (("--methods", ","), "--methods is empty"),
        (("--sizes", "84"), "--sizes takes PIXELS:CHANNELS"),
        (("--sizes", "8:4"), "takes 16 to 1024 pixels"),
        (("--rounds", "0"), "--rounds must lie between 1"),
    ],
)
def test_wrong_flags(words, message):
    with pytest.raises(UserError, match=message):
        timing_verb.main(arguments(*words))


def test_peers_do_our_work():
    """The peers' meta-gradient is maml's, so that what is timed is the same computation."""
    from benchmark.metagrad import Task, meta_gradient

    workload = Workload(16, 4, steps=3)
    task = Task(*(t.double() if t.is_floating_point() else t for t in vars(workload.task()).values()))
    torch.manual_seed(0)
    plain = plain_cnn4(5, workload.image_shape, 4).double()
    optimizer, _, _ = settled("maml")
    from benchmark import networks

    optimizer.network = networks.create("cnn4", 5, workload.image_shape, 4).double()
    optimizer.alpha = 0.01
    optimizer.adapted = tuple(name for name, _ in optimizer.network.named_parameters())
    with torch.no_grad():
        for ours, theirs in zip(optimizer.network.parameters(), plain.parameters(), strict=True):
            ours.copy_(theirs)
    expected = meta_gradient(optimizer, Task(*(t[None] for t in vars(task).values())), 3)[1].values()
    for peer in ("higher", "autograd"):
        for ours, theirs in zip(expected, WORK[peer, "meta_gradient"](plain, task, 3), strict=True):
            torch.testing.assert_close(
                torch.zeros_like(ours) if theirs is None else theirs, ours, rtol=1e-9, atol=1e-12
            )
        outputs = WORK[peer, "evaluation"](plain, task, 3)
        assert outputs.shape == (75, 5)
        assert not outputs.requires_grad


def test_operations_of_the_multiplications(monkeypatch):
    """Whichever is the fastest, its count is what is dispatched."""
    for chosen in range(3):
        ways = iter([0.0 if way == chosen else 1.0 for way in range(3) for _ in range(5)])
        monkeypatch.setattr(measure, "clock_of", lambda device, ways=ways: lambda run: next(ways))
        work, operations = measure.multiplication(torch.device("cpu"))
        assert flops(work) == operations


def test_a_terminal_of_80_columns_cuts_nothing(capsys):
    row = dict.fromkeys([*timing_verb.TIMES, *timing_verb.COUNTS, "episode_ms"], 123456789.0) | {"peak_share": 1.5}
    names = {"meta_gradient_to_maml": 1.25, "meta_gradient_to_higher": 0.5, "evaluation_to_higher": 0.5}
    times = {"adapt_step_ms": 99.99, "transform_ms": 9.99, "meta_gradient_ms": 99999.9, "evaluation_ms": 9999.9}
    what = {"image_size": 84, "channels": 64, "shots": 1, "queries": 15, "steps": 5, "rounds": 7, "threads": 1}
    table = pd.DataFrame([{"method": "metacurvature", "device": "CPU", "clock": "wall"} | row | names | times | what])
    timing_verb.show(table, Console(width=80))
    printed = capsys.readouterr().out
    assert "…" not in printed
    for entry in ("metacurvature", "99999.9", "123,456,789"):
        assert entry in printed


def test_counting():
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    assert flops(lambda: a @ b) == 2 * 30 * 40 * 50
    image, weight = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3)
    assert flops(lambda: torch.conv2d(image, weight, padding=1)) == 2 * 2 * 64 * 3 * 9 * 5

    def work():
        one = torch.zeros(1000)
        two = one + 1  # both alive: 8000 bytes
        del one
        three = two.view(10, 100) * 2  # again two
        del two
        return three

    assert peak_bytes(work) == 8000
    assert peak_bytes(lambda: a @ b) == 4 * 30 * 50
