"""A file cut short or with one bit flipped is found, the one before serves, and it is said."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from benchmark.cli import parser
from benchmark.engine.shutdown import Interrupted
from benchmark.errors import UserError
from benchmark.runs import checkpoints, store
from benchmark.runs import run as runner
from benchmark.runs.assembly import load_trained
from benchmark.runs.directory import RunDirectory
from benchmark.runs.store import load_run, load_runs
from benchmark.spec import RunSpec
from tests.report.builder import build_run
from tests.robustness.helpers import DAMAGES, TINY, cut, execute, execute_all, numbers, state, tiny
from tests.robustness.test_kill import StopAt


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """The directory of a run that was stopped after its fifth meta-step, with two generations of checkpoint."""
    with pytest.raises(Interrupted):
        execute(tmp_path, stop=StopAt(5))
    path = tmp_path / TINY.name
    assert (path / "checkpoint.prev.pt").exists()
    return path


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_the_one_before_serves(how: str, interrupted: Path, unbroken: Path) -> None:
    file = interrupted / "checkpoint.pt"
    file.write_bytes(cut(file.read_bytes(), how))
    said = io.StringIO()
    assert execute_all(interrupted.parent, TINY, console=Console(file=said, width=300)) == {TINY.name: "finished"}
    assert "going on from the one before" in said.getvalue()
    assert numbers(interrupted) == numbers(unbroken)


def test_a_checkpoint_that_cannot_be_taken_over_is_no_fresh_start(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)

    def full(*_: object) -> None:
        raise UserError("no space left on the disk; make room")

    monkeypatch.setattr(checkpoints, "write_checkpoint", full)
    with pytest.raises(UserError, match="make room"):
        execute(tmp_path, tiny(tasks=TINY.tasks + 1))


def test_the_one_before_is_not_verified_as_the_best(interrupted: Path) -> None:
    """Unless it has the same best meta-parameters, which are those whose results stand in the tables."""
    (interrupted / "checkpoint.pt").write_bytes(b"")
    run = load_run(interrupted)
    before = checkpoints.read_checkpoint(interrupted / "checkpoint.prev.pt")["best_iteration"]
    run.status["best_iteration"] = before
    with pytest.warns(UserWarning, match=r"not a checkpoint.*; taking the one before"):
        load_trained(run)
    run.status["best_iteration"] = before + 1
    with pytest.raises(UserError, match=r"not a checkpoint.*the one before has the meta-parameters of iteration"):
        load_trained(run)


@pytest.mark.parametrize("how", DAMAGES)
def test_with_every_checkpoint_bad_the_run_ends_and_does_not_begin_afresh(how: str, interrupted: Path) -> None:
    for file in interrupted.glob("checkpoint*.pt"):
        file.write_bytes(cut(file.read_bytes(), how))
    before = {file: file.read_bytes() for file in interrupted.glob("*.pt")}
    assert len(before) == 2
    with pytest.raises(UserError, match="delete the run's directory to start it afresh"):
        execute(interrupted.parent)
    assert state(interrupted.parent) == "failed"
    assert {file: file.read_bytes() for file in interrupted.glob("*.pt")} == before


def test_with_no_checkpoint_left_beginning_afresh_is_said(interrupted: Path, unbroken: Path) -> None:
    for file in interrupted.glob("checkpoint*.pt"):
        file.unlink()
    said = io.StringIO()
    execute_all(interrupted.parent, TINY, console=Console(file=said, width=300))
    assert "has no checkpoint of its 5 meta-steps, begins afresh" in said.getvalue()
    assert numbers(interrupted) == numbers(unbroken)


@pytest.mark.parametrize("how", [*DAMAGES, "missing"])
@pytest.mark.parametrize("name", ["evaluation.csv", "training.csv", "validation.csv"])
def test_a_damaged_result_is_found_refused_and_made_again(name: str, how: str, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / name
    file.write_bytes(cut(file.read_bytes(), how)) if how != "missing" else file.unlink()
    with pytest.raises(UserError, match=f"{name}: (damaged or edited|is missing)"):
        load_runs(tmp_path, tables=True)
    assert runner.due(TINY, tmp_path) == "resume"
    said = io.StringIO()
    execute_all(tmp_path, TINY, console=Console(file=said, width=300))
    assert f"{name}: " in said.getvalue()
    assert "measuring again" in said.getvalue()
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)
    assert runner.due(TINY, tmp_path) == "done"


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["spec.json", "status.json"])
def test_a_damaged_record_is_refused_by_name_or_holds_the_same(
    name: str, how: str, unbroken: Path, tmp_path: Path
) -> None:
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / name
    file.write_bytes(cut(file.read_bytes(), how))
    if how == "all but one byte":  # the newline at the end
        assert load_run(tmp_path / TINY.name).spec == TINY.to_dict()
        return
    if how == "bit" and name == "status.json":
        file.write_bytes((unbroken / name).read_bytes().replace(b'"evaluation.csv": "', b'"evaluation.csv": "0'))
        with pytest.raises(UserError, match=r"evaluation\.csv: damaged"):
            load_runs(tmp_path, tables=True)
        return
    with pytest.raises(UserError, match=name):
        load_run(tmp_path / TINY.name)


def test_any_changed_knob_in_a_spec_is_found(unbroken: Path, tmp_path: Path) -> None:
    """The name of the folder holds the hash of the spec."""
    shutil.copytree(unbroken, tmp_path / TINY.name)
    file = tmp_path / TINY.name / "spec.json"
    document = json.loads(file.read_text())
    document["spec"]["alpha"] = 0.02
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is not of"):
        load_run(file.parent)


@pytest.mark.parametrize("how", [*DAMAGES, "foreign"])
def test_a_damaged_or_foreign_partial_measurement_does_no_harm(how: str, unbroken: Path, tmp_path: Path) -> None:
    partials = {spec: tmp_path / spec.name / "evaluation.partial.csv" for spec in (TINY, tiny(seed=1))}
    for spec in partials:
        with pytest.raises(Interrupted, match="while measuring"):
            execute(tmp_path, spec, stop=StopAt(8))
    mine, other = (path.read_bytes() for path in partials.values())
    partials[TINY].write_bytes(other if how == "foreign" else cut(mine, how))
    assert execute(tmp_path) == "finished"
    assert numbers(tmp_path / TINY.name) == numbers(unbroken)
    assert not partials[TINY].exists()


def test_a_partial_measurement_is_used(tmp_path: Path) -> None:
    """It keeps what it was given, under its key alone."""
    table = pd.DataFrame({"task": [0, 1], "nll": pd.Series([0.1, 1 / 3], dtype="float32")})
    path = tmp_path / "evaluation.partial.csv"
    checkpoints.write_partial(path, "key", table)
    pd.testing.assert_frame_equal(checkpoints.read_partial(path, "key"), table)
    assert checkpoints.read_partial(path, "other") is None
    assert checkpoints.read_partial(tmp_path / "none", "key") is None


@pytest.mark.usefixtures("figures_unrendered")
def test_a_folder_that_cannot_be_looked_into_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shut, good = build_run(results, tasks=5), build_run(results, "md", tasks=5)
    real = Path.exists

    def exists(path: Path, **how: Any) -> bool:
        if path.parent.name == shut.name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    monkeypatch.setattr(Path, "exists", exists)
    for words in (["status"], ["report", "--reports", str(tmp_path / "reports")], ["list", "runs"]):
        assert parser.main([*words, "--results", str(results)]) == 0
        shown = capsys.readouterr()
        assert good.name[:20] in shown.out or words[0] == "report"
        assert f"{shut.path}: cannot be read (Permission denied); make it readable, or move it away" in shown.err
    with pytest.raises(UserError, match="cannot be read"):
        RunDirectory(results, RunSpec.from_dict(shut.spec)).run()


@pytest.mark.usefixtures("figures_unrendered")
def test_a_report_is_not_replaced_by_one_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, reports, empty = tmp_path / "results", tmp_path / "reports", tmp_path / "empty"
    build_run(results, tasks=5)
    empty.mkdir()
    assert parser.main(["report", "--results", str(results), "--reports", str(reports)]) == 0
    before = {path: path.read_bytes() for path in reports.rglob("*.*")}
    capsys.readouterr()
    assert parser.main(["report", "--results", str(empty), "--reports", str(reports)]) == 2
    assert "has nothing that can be shown; the report in" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in reports.rglob("*.*")} == before
    (empty / "timing.csv").write_text("method,channels,image_size,adapt_step_ms\nmaml,32,28,3.0\n")
    assert parser.main(["report", "--results", str(empty), "--reports", str(reports)]) == 0


@pytest.mark.usefixtures("figures_unrendered")
def test_a_bad_table_beside_the_runs_is_named_and_costs_no_report(tmp_path: Path) -> None:
    results, reports = tmp_path / "results", tmp_path / "reports"
    build_run(results, tasks=5)
    (results / "tuning").mkdir()
    (results / "geometry.csv").write_text("a,b\n1,2\n")
    (results / "tuning" / "tuning.csv").write_text("trial\n1\n")
    (results / "tuning" / "tuned.json").write_text('{"schema": 1}')
    assert parser.main(["report", "--results", str(results), "--reports", str(reports)]) == 0
    assert "iterations must be a number, got None" in (reports / "warnings.md").read_text()
    (results / "tuning" / "tuned.json").write_text('{"chosen": ')
    assert parser.main(["report", "--results", str(results), "--reports", str(reports)]) == 0
    warned = (reports / "warnings.md").read_text().replace("\\", "")
    assert "geometry.csv: has no column 'method'" in warned
    assert "tuned.json: not valid JSON" in warned
    assert "delete it, and 'tune' makes it again from its trials" in warned


@pytest.mark.usefixtures("figures_unrendered")
def test_one_bad_run_does_not_hide_the_good_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, reports = tmp_path / "results", tmp_path / "reports"
    bad = [build_run(results, seed=seed, tasks=5) for seed in range(4)]
    good = [build_run(results, "md", seed=seed, tasks=5) for seed in range(4)]
    (bad[0].path / "spec.json").write_text("{")
    (bad[1].path / "status.json").write_text('{"state": "fine"}')
    (bad[1].path / "checkpoint.pt").touch()
    (bad[2].path / "evaluation.csv").write_text("task,accuracy\n1,x\n")
    (bad[3].path / "evaluation.csv").unlink()
    reasons: list[str] = []
    assert [run.name for run in load_runs(results, reasons.append, tables=True)] == [run.name for run in good]
    named = zip(sorted(bad, key=lambda run: run.name), reasons, strict=True)
    assert all(run.path.name in reason for run, reason in named)
    for words in (["status"], ["report", "--reports", str(reports)], ["list", "runs"]):
        assert parser.main([*words, "--results", str(results)]) == 0
        shown = capsys.readouterr()
        assert all(run.name[:20] in shown.out for run in good) or words[0] == "report"
        assert "MD" in shown.out or words[0] != "report"
        assert bad[0].name in shown.err, words
        assert "; move its folder away" in shown.err
        assert "; delete it, and 'run' goes on from the checkpoint" in shown.err
        assert "Traceback" not in shown.err
    assert bad[3].name in (reports / "warnings.md").read_text()
    assert store.load_runs(results, reasons.append)  # and tables that nobody reads stop nobody
