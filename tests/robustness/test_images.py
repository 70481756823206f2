"""The images under a name changed: nothing measured on the old ones stands beside what the new ones give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmark import data
from benchmark.cli.parser import main
from benchmark.errors import UserError
from benchmark.report import caveats, formats, pairs, table
from benchmark.report.claims import judge
from benchmark.report.compare import compare
from benchmark.report.findings import read as read_findings
from benchmark.report.group import group_runs
from benchmark.runs.store import Run, load_run, load_runs
from benchmark.spec import RunSpec
from tests.report.builder import build_run
from tests.robustness.helpers import COMMON, execute, execute_all
from tests.tiny_images import FLAGS, store_tiny

SPEC = RunSpec(method="maml", dataset="tiny", ways=3, shots=1, channels=4, **COMMON)
OLD, NEW = {"dataset_hash": "0a" * 32}, {"dataset_hash": "f1" * 32}


def test_a_finished_run_on_other_images_is_refused_and_kept(tmp_path: Path) -> None:
    root, results = tmp_path / "root", tmp_path / "results"
    store_tiny(root)
    assert execute(results, SPEC, data_root=root) == "finished"
    before = {path.name: path.read_bytes() for path in (results / SPEC.name).iterdir()}
    store_tiny(root, test="poisoned")
    with pytest.raises(UserError, match=r"data set tiny has changed since the run began \(hash \w{12}, now \w{12}\)"):
        execute(results, SPEC, data_root=root)
    assert execute_all(results, SPEC, data_root=root) == {SPEC.name: "failed"}
    assert {path.name: path.read_bytes() for path in (results / SPEC.name).iterdir()} == before
    store_tiny(root)
    assert execute(results, SPEC, data_root=root) == "finished"


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_the_command_says_so_before_it_works(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, results = tmp_path / "root", tmp_path / "results"
    store_tiny(root)
    words = ["run", "--methods", "maml", "--iterations", "0", "--tasks", "2", "--eval-steps", "1", *FLAGS]
    words += ["--results", str(results), "--data-root", str(root)]
    assert main(words) == 0
    store_tiny(root, test="poisoned")
    names = sorted(path.name for path in results.iterdir())
    capsys.readouterr()
    assert main([*words, "--methods", "maml,md", *more]) == 2
    error = capsys.readouterr().err
    assert "data set tiny has changed since the run began" in error
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in results.iterdir()) == names, "not even the new method was begun"


def test_a_run_that_began_without_data_records_them_when_they_come(tmp_path: Path) -> None:
    root, results = tmp_path / "root", tmp_path / "results"
    with pytest.raises(UserError, match="tiny"):
        execute(results, SPEC, data_root=root)
    store_tiny(root)
    assert execute(results, SPEC, data_root=root) == "finished"
    assert load_run(results / SPEC.name).environment["dataset_hash"] == data.load("tiny", root).hash


@pytest.fixture
def mixed(tmp_path: Path) -> list[Run]:
    """MAML on the old images; MD, much better, on the new ones; MetaSGD on both; three seeds of each."""
    results = tmp_path / "results"
    for seed in range(3):
        build_run(results, "maml", dataset="cifar-fs", mean=0.4, seed=seed, environment=OLD)
        build_run(results, "metasgd", dataset="cifar-fs", mean=0.4, seed=seed, environment=OLD)
        build_run(results, "md", dataset="cifar-fs", mean=0.8, seed=3 + seed, environment=NEW)
        build_run(results, "metasgd", dataset="cifar-fs", mean=0.8, seed=3 + seed, environment=NEW)
    return load_runs(results)


def test_tune_and_study_say_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, results, study = tmp_path / "root", tmp_path / "results", tmp_path / "study.toml"
    store_tiny(root)
    shared = {"iterations": 1, "ways": 3, "channels": 4, "steps": 1, "meta_batch": 1, "query_train": 3, "query_test": 3}
    knobs = "\n".join(f"{key} = {value}" for key, value in {**shared, "validation_tasks": 2, "tasks": 2}.items())
    study.write_text(f'dataset = "tiny"\nmethods = ["maml"]\n{knobs}\n[[stage]]\nname = "a"\n')
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in {**shared, "validation_tasks": 2}.items()]
    lines = (
        ["tune", "--dataset", "tiny", "--methods", "maml", "--trials", "1", *flags],
        ["study", str(study), "--reports", str(tmp_path / "reports")],
    )
    where = ["--data-root", str(root), "--workers", "1"]
    for line in lines:
        assert main([*line, *where, "--results", str(results / line[0])]) == 0
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    store_tiny(root, test="poisoned")
    capsys.readouterr()
    for line in lines:
        assert main([*line, *where, "--results", str(results / line[0])]) == 2
        error = capsys.readouterr().err
        assert "data set tiny has changed since the run began" in error
        assert len(error.splitlines()) == 1
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_no_table_pair_or_claim_mixes_images(mixed: list[Run]) -> None:
    groups = group_runs(mixed)
    assert [group.title for group in groups] == ["CIFAR-FS (images 0a0a0a0a)", "CIFAR-FS (images f1f1f1f1)"]
    assert [[row.method for row in group.rows] for group in groups] == [["maml", "metasgd"], ["metasgd", "md"]]
    assert all(cell.score.mean < 50 for cell in groups[0].cells(1))
    assert all(cell.score.mean > 70 for cell in groups[1].cells(1))
    compared = pairs.frame(groups)
    assert {frozenset(pair) for pair in compared[["a", "b"]].itertuples(index=False)} == {
        frozenset({"MAML", "MetaSGD"}),
        frozenset({"MetaSGD", "MD"}),
    }
    claims = {claim.key: claim for claim in judge.judge(groups, compared, read_findings(mixed[0].path.parent))}
    for key in ("faster", "drop", "end"):
        (check,) = claims[key].checks
        assert "f1f1" in check.where
        assert "no run of MAML, MetaCurvature" in check.evidence
        assert "vs MAML" not in check.evidence
    assert [check.evidence.count(" > ") for check in claims["order"].checks] == [1]  # MD > MetaSGD, on the new ones


def test_compare_finds_no_winner_on_different_images(mixed: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set with the same images"):
        compare("md", "maml", tmp_path / "results")
    for folder, images in (("a", OLD), ("b", NEW), ("c", OLD)):
        build_run(tmp_path / folder, "maml", accuracy=np.full(20, 0.5), environment=images)
    assert compare(str(tmp_path / "a"), str(tmp_path / "c"), tmp_path)
    with pytest.raises(UserError, match="no data set with the same images"):
        compare(str(tmp_path / "a"), str(tmp_path / "b"), tmp_path)


def test_each_set_of_images_has_its_table_and_it_is_said(mixed: list[Run]) -> None:
    groups = group_runs(mixed)
    text = formats.markdown(table.tables(groups))
    assert "## 5-way CIFAR-FS (images 0a0a0a0a)" in text
    assert "## 5-way CIFAR-FS (images f1f1f1f1)" in text
    assert "58.90" in text, "beside what is published on CIFAR-FS still"
    (warned,) = (text for text in caveats.warnings(groups) if "different sets of images" in text)
    assert warned.startswith("cifar-fs stands for 2 different sets of images (0a0a0a0a, f1f1f1f1)")


def test_images_that_were_not_recorded_are_other_images(tmp_path: Path) -> None:
    run = build_run(tmp_path, "maml", environment=OLD)
    other = build_run(tmp_path, "md")
    assert "dataset_hash" not in json.loads((other.path / "spec.json").read_text())["environment"]
    assert [group.title for group in group_runs([run, other])] == [
        "glyphs (images 0a0a0a0a)",
        "glyphs (images not recorded)",
    ]
